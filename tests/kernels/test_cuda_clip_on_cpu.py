# SPDX-License-Identifier: BSD-2-Clause
"""The CUDA kernels of global clipping, over the emulation of test_cuda_on_cpu.py: the bits of the CPU's."""

from __future__ import annotations

import ctypes
import math

import numpy as np
import pytest

from tests.kernels import clip_cases, library
from tests.kernels.clip_cases import ORDERS
from tests.kernels.cuda_cases import GRAD_DTYPES
from tests.kernels.cuda_library import HostArray, NormTensor
from tests.kernels.emulation import Emulated
from tests.kernels.float_mode import MODES, float_mode, needs_x86

SIZES = [*range(40), 0, 255, 256, 257, 4095, 4096, 4097, 20001]


@pytest.fixture(params=[False, True], ids=["forward", "reversed"])
def small_device(cuda, request):
    """Eight blocks at a time, so that blocks go round; in both orders."""
    cuda.device(multiprocessors=1, threads=256, reverse=request.param)
    return cuda


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", GRAD_DTYPES)
def test_norms_of_every_order(small_device, dtype, order):
    for shift in (0, 1, 3):
        clip_cases.check_norm(small_device, dtype, order, SIZES, shift)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", GRAD_DTYPES)
def test_norms_of_special_values(cuda, dtype, order):
    clip_cases.check_special_norms(cuda, dtype, order)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("count", [0, 1, 100, 119, 120, 121, 1015, 1016, 1017, 3000])
def test_norms_of_lists(cuda, count, order):
    """Around the capacity of a launch, and of a tile of terms."""
    clip_cases.check_norm(cuda, "float32", order, [index % 4 for index in range(count)], 0)


def test_norms_of_more_blocks_than_a_tile(small_device):
    clip_cases.check_norm(small_device, "float16", 1.0, [1024 * 4096 + 4099, 5], shift=1)


@pytest.mark.parametrize(("name", "number"), [("scale", 0.3), ("scale", 1.0), ("clamp", 0.3)])
@pytest.mark.parametrize("dtype", GRAD_DTYPES)
def test_in_place(small_device, dtype, name, number):
    for shift in range(9):
        clip_cases.check_change(small_device, name, dtype, number, SIZES, shift)


@pytest.mark.parametrize("name", ["scale", "clamp"])
@pytest.mark.parametrize("count", [0, 1, 159, 160, 161, 1354, 1355, 1356, 3000])
def test_lists_in_place(cuda, count, name):
    clip_cases.check_change(cuda, name, "float32", 0.3, [index % 4 for index in range(count)], 1)


@pytest.mark.parametrize("dtype", GRAD_DTYPES)
def test_special_values_in_place(cuda, dtype):
    clip_cases.check_special_changes(cuda, dtype)


def test_factors(cuda):
    clip_cases.check_factors(cuda)


@pytest.mark.parametrize(("max_norm", "norm"), [(5.1, 5.0), (1e-6, 0.0)])  # the second is a factor of 1
def test_a_norm_that_is_small_writes_nothing(cuda, max_norm, norm):
    """To the last bit: a signalling NaN, which any multiplication would change, stays one."""
    odd = np.array([0x7FA00000, 0xFFA00001, 1, 5], np.uint32)
    grad = HostArray(odd)
    tensors = (library.Gradient * 1)()
    tensors[0].size, tensors[0].grad = 4, grad.pointer
    cuda.scale_to_norm(1, tensors, max_norm, np.float64([norm]), 2)
    assert grad.read().tobytes() == odd.tobytes()


@needs_x86
@pytest.mark.parametrize("bits", MODES.values(), ids=MODES)
def test_the_callers_float_mode_changes_nothing(cuda, bits):
    """The limit is rounded before the launch."""
    with float_mode(bits):
        clip_cases.check_change(cuda, "clamp", "float32", 1.1e-39, [300], 0)


def test_launches(cuda):
    """Two for the terms of a short list, one for the norm, one in place."""
    memory, tensors = HostArray(np.ones(8)), (NormTensor * 3)()
    in_place = (library.Gradient * 3)()
    for position, (tensor, changed) in enumerate(zip(tensors, in_place)):
        tensor.size, tensor.grad, tensor.place = 2, memory.pointer + 16 * position, position
        changed.size, changed.grad = 2, tensor.grad
    cuda.launches()
    terms = cuda.norm_terms(2, 2.0, tensors)
    assert cuda.launches() == 2
    norm = cuda.norm_of_terms(2.0, terms, 3, "float64")
    assert cuda.launches() == 1
    assert norm[0] == math.sqrt(6)
    cuda.scale_to_norm(2, in_place, 7.0, norm, 2)
    assert cuda.launches() == 1
    cuda.scale(2, in_place, 0.5)
    cuda.clamp(2, in_place, 0.25)
    assert cuda.launches() == 2
    assert memory.read().view(np.float64).tolist() == [0.25] * 6 + [1] * 2
    assert cuda.handle.emulated_cuda_last_stream() == Emulated.STREAM


def tensor(kind=NormTensor, **changed):
    memory, given = np.ones(8), (kind * 1)()
    given[0].size, given[0].grad = 8, memory.ctypes.data
    for name, value in changed.items():
        setattr(given[0], name, value)
    return given, memory


@pytest.mark.parametrize("order", [3.0, 0.5, -1.0, math.nan])
def test_orders_that_are_not_on_a_gpu(cuda, order):
    given, _memory = tensor()
    cuda.launches()
    message = r"Invalid order of a norm: .* \(on a GPU there are 2, 1, 0, inf and -inf\)"
    with pytest.raises(ValueError, match=message):
        cuda.norm_terms(2, order, given)
    with pytest.raises(ValueError, match=message):
        cuda.norm_of_terms(order, HostArray(np.ones(1)), 1, "float64")
    assert cuda.launches() == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": -1}, "Invalid size of tensor 0: -1"),
        ({"grad": 0}, "Invalid grad of tensor 0: null"),
        ({"grad": 0x1004}, "Invalid grad of tensor 0: its address is no multiple of the 8 bytes"),
        ({"place": -1}, r"Invalid place of tensor 0: -1 \(need place >= 0\)"),
    ],
    ids=str,
)
def test_wrong_tensors_launch_nothing(cuda, changed, message):
    cuda.launches()
    with pytest.raises(ValueError, match=message):
        cuda.norm_terms(2, 2.0, tensor(**changed)[0])
    if "place" not in changed:
        given, memory = tensor(library.Gradient, **changed)
        for change in (cuda.scale, cuda.clamp):
            with pytest.raises(ValueError, match=message):
                change(2, given, 0.5)
        assert (memory == 1).all()
    assert cuda.launches() == 0


def test_wrong_memory_launches_nothing(cuda):
    given, _memory = tensor()
    count, one = ctypes.c_int64(1), ctypes.c_double(1)
    address, none = ctypes.c_void_p(HostArray(np.ones(1)).pointer), ctypes.c_int64(0)
    cuda.launches()
    for name, arguments, message in [
        ("norm_terms", (2, one, given, count, address, address, none), "Invalid workspace: 0 bytes"),
        ("norm_terms", (2, one, given, count, None, address, count), "Invalid terms: null"),
        ("norm_of_terms", (one, None, count, 2, address), "Invalid terms: null"),
        ("norm_of_terms", (one, address, count, 2, None), "Invalid norm: null"),
        ("norm_of_terms", (one, address, count, 0, address), "Invalid dtype of a norm"),
        ("norm_of_terms", (one, address, ctypes.c_int64(-1), 2, address), "Invalid size: -1"),
        ("scale_to_norm", (2, given, count, one, 1, None), "Invalid norm: null"),
        ("scale_to_norm", (2, given, count, one, 4, address), "Invalid dtype code: 4"),
    ]:
        with pytest.raises(ValueError, match=message):
            cuda.call(name, *arguments)
    assert cuda.launches() == 0


@pytest.mark.parametrize("good_launches", [0, 1])
def test_a_failed_launch_is_an_error(cuda, good_launches):
    given, _memory = tensor()
    cuda.fail_after(good_launches)
    with pytest.raises(ValueError, match="CUDA error at the .* of a norm: too many resources"):
        cuda.norm_terms(2, 2.0, given)
