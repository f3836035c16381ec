# SPDX-License-Identifier: BSD-2-Clause
"""`GradScaler.scale`: what it takes, the values and gradients that come out."""

from __future__ import annotations

import collections
import inspect

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from tests.optim.elsewhere import run_script
from tests.optim.scalers import scaler_of
from tests.optim.support import parameter, values


def ones(*numbers):
    return [torch.tensor([float(number)]) for number in numbers]


def numbers(outputs):
    """The same nesting with floats in the place of tensors."""
    if isinstance(outputs, torch.Tensor):
        return float(outputs)
    return type(outputs)(numbers(each) for each in outputs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (0,), (2, 0)], ids=str)
def test_a_tensor(shape, dtype):
    """A new one, of its own dtype and shape; the product is rounded once."""
    scaler = scaler_of(1000.1)
    array = (np.arange(1, 1 + np.prod(shape, dtype=int)) / 7).reshape(shape).astype(dtype)
    given = torch.tensor(array, dtype=dtype)
    found = scaler.scale(given)
    assert found is not given
    assert (found.dtype, tuple(found.shape)) == (dtype, shape)
    if found.numel():  # reading a tensor without elements would end the process
        assert values(found).tobytes() == (array * np.dtype(dtype).type(np.float32(1000.1))).tobytes()
        assert values(given).tobytes() == array.tobytes()


@pytest.mark.parametrize("scale", [65536.0, 1000.1])
def test_float16(scale):
    """As PyTorch: a loss without dimensions becomes float32, others are rounded, once."""
    scaler = scaler_of(scale)
    array = np.float16([0.1, -1.0, 2.0**-24, 60000.0])
    with np.errstate(over="ignore"):
        expected = (array.astype("float32") * np.float32(scale)).astype("float16")
    found = scaler.scale(torch.tensor(array, dtype="float16"))
    assert found.dtype == "float16"
    assert values(found).tobytes() == expected.tobytes()
    found = scaler.scale(torch.tensor(np.float16(1.5), dtype="float16"))
    assert (found.dtype, tuple(found.shape)) == ("float32", ())
    assert float(found) == float(np.float32(1.5) * np.float32(scale))


def test_the_gradient_of_float16():
    p = parameter([1.0, 2.0], "float16")
    scaler_of().scale(p).backward(torch.tensor(np.float16([0.5, 3.0]), dtype="float16"))
    assert (p.grad.dtype, values(p.grad).tolist()) == ("float16", [4, 24])


def test_nested():
    a, b, c, d = ones(1, 2, 3, 4)
    scale = scaler_of().scale
    assert numbers(scale([a, b])) == [8, 16]
    assert numbers(scale((a, b))) == (8, 16)
    assert numbers(scale([a, (b, [c]), [[]], (d,)])) == [8, (16, [24]), [[]], (32,)]
    assert scale([]) == []
    assert scale(()) == ()


def test_other_iterables_are_scaled_as_they_are_read():
    a, b = ones(1, 2)
    scale = scaler_of().scale
    read = []

    def generator():
        for each in (a, b):
            read.append(each)
            yield each

    found = scale(generator())
    assert inspect.isgenerator(found) or isinstance(found, map)
    assert read == []
    assert float(next(found)) == 8
    assert len(read) == 1
    assert [float(each) for each in found] == [16]
    assert sorted(float(each) for each in scale({a, b})) == [8, 16]
    assert [float(each) for each in scale(collections.deque([a, b]))] == [8, 16]


def test_the_gradient_is_scaled():
    """Of a loss without dimensions, of parts of lists; and not where no gradient is asked for."""
    p = parameter([1.0, 2.0])
    scaler = scaler_of()
    loss = (p * torch.tensor([3.0, 4.0], dtype="float32")).sum()
    scaled = scaler.scale(loss)
    scaled.backward()
    assert values(p.grad).tolist() == [24, 32]
    assert (float(loss), float(scaled)) == (11, 88)
    first, (second,) = scaler.scale([(p * 2.0).sum(), ((p * 3.0).sum(),)])
    (first + second).backward()
    assert values(p.grad).tolist() == [40, 40]
    assert scaled.requires_grad
    with torch.no_grad():
        assert not scaler.scale((p * 2.0).sum()).requires_grad
    assert not scaler.scale(torch.ones(1)).requires_grad


def test_a_tensor_as_gradient_of_the_outputs():
    p = parameter([1.0, 2.0])
    scaler_of().scale(p * 1.0).backward(torch.tensor([0.5, 3.0], dtype="float32"))
    assert values(p.grad).tolist() == [4, 24]


def test_what_was_scaled_keeps_its_scale():
    """The gradient too: PyTorch refuses that backward pass, and it must not be scaled by another number."""
    p = parameter([1.0, 2.0])
    scaler = scaler_of()
    scaled = scaler.scale((p * 3.0).sum())
    scaler.update(2.0)
    assert float(scaled) == 72
    scaled.backward()
    assert values(p.grad).tolist() == [24, 24]


def test_the_first_scale_takes_the_initial_one():
    scaler = dragon_optim.GradScaler("cpu", init_scale=4.0)
    assert numbers(scaler.scale(ones(1, 2))) == [4, 8]
    scaler.update(3.0)
    assert numbers(scaler.scale(ones(1))) == [3]


@pytest.mark.parametrize("given", [3.0, None, object(), len], ids=["float", "None", "object", "function"])
def test_refused(given):
    scaler = scaler_of()
    for outputs in (given, [torch.ones(1), given], ((given,),)):
        with pytest.raises(ValueError, match="outputs must be a Tensor or an iterable of Tensors"):
            scaler.scale(outputs)
    with pytest.raises(ValueError, match="outputs must be a Tensor or an iterable of Tensors"):
        list(scaler.scale(each for each in [given]))


@pytest.mark.parametrize("given", ["loss", b"loss", ""], ids=repr)
def test_strings(given):
    """PyTorch follows them into themselves without end."""
    for outputs in (given, [given]):
        with pytest.raises(ValueError, match="outputs must be a Tensor or an iterable of Tensors"):
            scaler_of().scale(outputs)


@pytest.mark.parametrize("given", [{"loss": 1.0}, np.ones(2)], ids=["dict", "array"])
def test_iterables_of_something_else(given):
    """When they are read, as PyTorch says it."""
    with pytest.raises(ValueError, match="outputs must be a Tensor or an iterable of Tensors"):
        list(scaler_of().scale(given))


def test_a_list_that_holds_itself():
    endless = ones(1)
    endless.append(endless)
    with pytest.raises((RecursionError, ValueError)):
        scaler_of().scale(endless)


HOSTILE = """
import numpy as np, dragon_optim
from dragon.vm import torch
p = torch.nn.Parameter(torch.ones(2))
scaler = dragon_optim.GradScaler("cpu", init_scale=8.5)
scaler.scale(torch.ones(1))
for dtype in ("float16", "int64", "int32", "int8", "uint8", "bool"):
    for shape in ((3,), ()):
        try:
            found = scaler.scale(torch.tensor(np.ones(shape, dtype), dtype=dtype))
        except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
            print("refused", dtype in str(error))
            continue
        assert found.numpy().tolist() == (np.ones(shape) * 8.5).tolist(), (dtype, found)
        print("scaled")
for empty in (torch.Tensor(), torch.nn.Parameter(torch.Tensor())):
    try:
        scaler.scale(empty)
    except (TypeError, ValueError, RuntimeError, AttributeError):
        print("refused", True)
scaler.scale((p * 2.0).sum()).backward()
print(p.grad.numpy().tolist())
"""


def test_tensors_of_other_dtypes_do_not_end_the_process():
    """Dragon multiplies no float16 on the CPU, and integers only by integers: 8.5 is no 8."""
    result = run_script(HOSTILE)
    assert result.returncode == 0, result.stderr[-2000:]
    *found, last = result.stdout.splitlines()
    assert len(found) == 14
    assert set(found) <= {"scaled", "refused True"}
    assert last == "[17.0, 17.0]"
