# SPDX-License-Identifier: BSD-2-Clause
"""bfloat16, which numpy has not: arrays hold bits. Rounding by fractions, updates by the float32 oracle."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from tests import exact
from tests.kernels import library
from tests.kernels.cuda_cases import bfloat16
from tests.kernels.library import Guarded, assert_same_bits
from tests.kernels.test_gradient import accumulate, has_non_finite, squared_norm

OPTIONS = [
    {},
    {"momentum": 0.9, "centered": True, "weight_decay": 0.01, "grad_scale": 0.5, "clip_value": 0.8},
    {"momentum": 0.9, "lr_in_momentum": True, "clip_norm": 0.7, "maximize": True},
    {"lr": 1e-4, "weight_decay": 0.1, "decoupled_weight_decay": True, "eps_inside_sqrt": True},
]
LENGTHS = [*range(20), 511, 512, 513, 5000]


def floats(bits) -> np.ndarray:
    return (np.asarray(bits, np.uint32) << 16).view(np.float32)


def rounded(values: np.ndarray) -> np.ndarray:
    """The bits of the nearest bfloat16, of two the even one: both neighbours are tried, in fractions."""
    below = bfloat16(values)  # towards zero
    result = below.copy()
    for i in np.flatnonzero(np.isfinite(values)):
        low, high = (value_of(int(below[i]) + step) for step in (0, 1))
        distance, other = abs(Fraction(float(values[i])) - low), abs(high - Fraction(float(values[i])))
        if other < distance or (other == distance and below[i] % 2 == 1):
            result[i] += 1
    result[np.isnan(values)] = 0x7FC0
    return result


def value_of(bits: int) -> Fraction:
    """Of the number behind the largest too, where infinity stands: 2**128."""
    exponent, fraction = bits >> 7 & 0xFF, bits & 0x7F
    magnitude = Fraction(fraction + (128 if exponent else 0)) * Fraction(2) ** (max(exponent, 1) - 134)
    return -magnitude if bits & 0x8000 else magnitude


def same(actual: np.ndarray, expected: np.ndarray) -> None:
    nan = np.isnan(floats(actual)) & np.isnan(floats(expected))
    wrong = np.flatnonzero((actual != expected) & ~nan)
    assert wrong.size == 0, f"first [{wrong[0]}]: {actual[wrong[0]]:x} {expected[wrong[0]]:x}"


def call(options: dict, param, grad, state: dict, threads: int = 1, offset: int = 0):
    """The parameter's bits and the states after a step."""
    buffers = dict(state, param=param, grad=grad)
    guarded = {name: Guarded(values, offset) for name, values in buffers.items()}
    tensors = (library.Tensor * 1)()
    tensors[0].size = param.size
    for name, values in guarded.items():
        setattr(tensors[0], name, values.pointer)
    code = library.DTYPE_CODES[grad.dtype.name]
    library.call_update(3, code, options, tensors, threads)
    for values in guarded.values():
        values.check()
    return {name: guarded[name].array.copy() for name in (*state, "param")}


def start(size: int, grad_dtype: str, options: dict, seed: int = 0):
    random = np.random.RandomState(seed)
    grad = (random.standard_normal(size) * 10.0 ** random.uniform(-4, 2, size)).astype(np.float32)
    param = bfloat16(random.standard_normal(size))
    state = {"square_avg": np.abs(grad) * 0, "master_param": floats(param) * np.float32(1.0001)}
    if "momentum" in options:
        state["momentum_buffer"] = np.zeros(size, np.float32)
    if "centered" in options:
        state["grad_avg"] = np.zeros(size, np.float32)
    return param, bfloat16(grad) if grad_dtype == "uint16" else grad, state


def oracle(options: dict, param, grad, state: dict) -> dict:
    """A float32 step of the master parameters; those that were overwritten come from the parameters."""
    state = dict(state)
    master = state.pop("master_param")
    master = np.where(rounded(master) == param, master, floats(param))
    given = floats(grad) if grad.dtype == np.uint16 else grad
    new, states = exact.step(options, master, given, state)
    return dict(states, master_param=new, param=rounded(new))


@pytest.mark.parametrize("grad_dtype", ["uint16", "float32"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_update(options, grad_dtype, forced_isa):
    for size, offset in itertools.product(LENGTHS, (0, 1, 3)):
        if size > 600 and offset == 1:
            continue
        param, grad, state = start(size, grad_dtype, options, seed=size)
        param[::5] = bfloat16(np.float32(2.0))  # overwritten
        expected = oracle(options, param, grad, state)
        actual = call(options, param, grad, state, 2, offset)
        same(actual.pop("param"), expected.pop("param"))
        for name in expected:
            assert_same_bits(actual[name], expected[name], f"{name}, size {size}")


def test_rounding(forced_isa):
    """Through a step that changes nothing: the parameter becomes what its master rounds to."""
    every = np.arange(65536, dtype=np.uint32)
    low = np.array([0x0000, 0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    master = ((every[::7, None] << 16) | low).ravel().view(np.float32)
    master = np.append(master, np.float32([3.4e38, -3.4e38, 0, -0.0]))
    param = rounded(master)
    state = {"square_avg": np.ones(master.size, np.float32), "master_param": master}
    actual = call({"lr": 0.0}, param, np.zeros(master.size, np.float32), state)
    same(actual["param"], param)
    assert_same_bits(actual["master_param"], master)


def test_every_value_is_read(forced_isa):
    """As a gradient: its first sum is the value itself."""
    every = np.arange(65536, dtype=np.uint16)
    sums = Guarded(np.zeros(every.size, np.float32), 1)
    accumulate([Guarded(every, 1)], [sums], 1)
    assert_same_bits(sums.array, floats(every))
    accumulate([Guarded(every)], [sums], 0)
    with np.errstate(over="ignore", invalid="ignore"):
        assert_same_bits(sums.array, floats(every) + floats(every))


def test_squared_norm(forced_isa):
    for size in (1, 7, 8, 4095, 4096, 4097, 20001):
        grad = bfloat16(np.random.RandomState(size).standard_normal(size))
        for scale, threads in ((1.0, 1), (-0.3, 2)):
            expected = exact.squared_norm(floats(grad), scale)
            assert_same_bits(squared_norm(Guarded(grad, 1), scale, threads), expected)


def test_has_non_finite(forced_isa):
    every = np.arange(65536, dtype=np.uint16)
    finite = every[np.isfinite(floats(every))]
    assert has_non_finite([Guarded(finite)]) == 0
    for bits in (0x7F80, 0xFF80, 0x7F81, 0xFFFF):
        grad = finite.copy()
        grad[12345] = bits
        assert has_non_finite([Guarded(grad)]) == 1
