# SPDX-License-Identifier: BSD-2-Clause
"""Norms of every order over lists, scaling and clamping in place: the same bits everywhere."""

from __future__ import annotations

import ctypes
import functools
import math

import numpy as np
import pytest

from tests import exact_clip
from tests.kernels import library
from tests.kernels.library import DTYPE_CODES, Guarded, assert_same_bits

DTYPES = ["float16", "float32", "float64"]
LENGTHS = [*range(35), 127, 511, 512, 513, 4095, 4096, 4097, 8193]
ORDERS = [2.0, 1.0, 0.0, math.inf, -math.inf, 3.0, 0.5, -1.0]
SPECIAL = [0.0, -0.0, 1.0, -2.5, 6e-8, 65504.0, np.inf, -np.inf]


@functools.lru_cache(maxsize=None)
def gradient(size: int, dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.RandomState(seed)
    return (rng.randn(size) * 10.0 ** rng.uniform(-4, 2, size)).astype(dtype)


def norm_terms(grads, order: float, threads: int = 1) -> np.ndarray:
    gradients = (library.Gradient * len(grads))()
    for given, grad in zip(gradients, grads):
        given.size, given.grad = grad.array.size, grad.pointer
    terms = Guarded(np.full(len(grads), -1.0))
    count, pointer = ctypes.c_int64(len(grads)), ctypes.c_void_p(terms.pointer)
    code = DTYPE_CODES[grads[0].array.dtype.name]
    library.call("norm_terms", code, ctypes.c_double(order), gradients, count, threads, pointer)
    terms.check()
    return terms.array.copy()


def norm_of_terms(order: float, terms) -> np.float64:
    array, result = np.array(terms, np.float64), ctypes.c_double(-1)
    pointer = array.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
    count = ctypes.c_int64(array.size)
    library.call("norm_of_terms", ctypes.c_double(order), pointer, count, ctypes.byref(result))
    return np.float64(result.value)


def change(name: str, grads, number: float, threads: int = 1) -> None:
    """Scale or clamp in place; guards are checked."""
    tensors = (library.Gradient * len(grads))()  # the same fields
    for given, grad in zip(tensors, grads):
        given.size, given.grad = grad.array.size, grad.pointer
    code, count = DTYPE_CODES[grads[0].array.dtype.name], ctypes.c_int64(len(grads))
    library.call(name, code, tensors, count, ctypes.c_double(number), threads)
    for grad in grads:
        grad.check()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_terms_of_every_order(dtype, order, forced_isa):
    grads = [gradient(size, dtype, seed=size) for size in LENGTHS]
    expected = [exact_clip.norm_term(grad, order) for grad in grads]
    for threads, offset in ((1, 0), (1, 1), (3, 3)):
        actual = norm_terms([Guarded(grad, offset) for grad in grads], order, threads)
        assert_same_bits(actual, np.array(expected), f"threads {threads} offset {offset}")
    assert_same_bits(norm_of_terms(order, actual[1:]), exact_clip.norm_of_terms(order, expected[1:]))


@pytest.mark.parametrize("order", [2.0, 1.0, 0.0, math.inf, -math.inf, 3.0])
@pytest.mark.parametrize("threads", [2, 7])
def test_threads_change_no_bit(order, threads, forced_isa):
    """Of lists that are divided: in the middle of a tensor, between many, and none at all."""
    for sizes in ([200003], [5000] * 40, [3] * 3000, [100000, 0, 5, 70000]):
        grads = [Guarded(gradient(size, "float32", seed=at)) for at, size in enumerate(sizes)]
        assert_same_bits(norm_terms(grads, order, threads), norm_terms(grads, order, 1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [0, 7, 4999])
def test_terms_of_what_is_not_finite(dtype, place, forced_isa):
    """A NaN comes through in every order, the smallest and the largest magnitude too; 0 counts it."""
    for special, order, expected in [
        (np.nan, 2, np.nan),
        (np.nan, 1, np.nan),
        (np.nan, math.inf, np.nan),
        (np.nan, -math.inf, np.nan),
        (np.nan, 3, np.nan),
        (np.nan, 0, 1),
        (-np.inf, 2, np.inf),
        (-np.inf, 1, np.inf),
        (-np.inf, math.inf, np.inf),
        (-np.inf, -math.inf, 0.5),
        (-np.inf, 3, np.inf),
        (np.inf, -1, 9998.0),
    ]:
        grad = np.full(5000, 0.5, dtype)
        grad[place] = special
        assert_same_bits(norm_terms([Guarded(grad)], order), np.array([expected], np.float64), f"{order}")


def test_combining_keeps_a_nan_wherever_it_stands():
    for order in (2.0, 1.0, math.inf, -math.inf, 3.0):
        for terms in ([np.nan, 1.0, 2.0], [1.0, np.nan, 2.0], [1.0, 2.0, np.nan]):
            assert np.isnan(norm_of_terms(order, terms))
    assert norm_of_terms(math.inf, [1.0, 3.0, 2.0]) == 3
    assert norm_of_terms(-math.inf, [2.0, 1.0, 3.0]) == 1
    assert norm_of_terms(0.0, [1.0, 0.0, 1.0]) == 2


@pytest.mark.parametrize("order", ORDERS)
def test_no_gradients_have_norm_0(order):
    assert norm_of_terms(order, []) == 0


def test_nan_is_no_order():
    with pytest.raises(ValueError, match="Invalid order of a norm: NaN"):
        norm_terms([Guarded(np.ones(3))], math.nan)


@pytest.mark.parametrize("factor", [0.3, 1.0, 0.0, -7.0, math.nan, math.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_scale(dtype, factor, forced_isa):
    for threads, offset in ((1, 0), (1, 1), (3, 3)):
        arrays = [gradient(size, dtype, seed=size) for size in LENGTHS] + [np.array(SPECIAL, dtype)]
        grads = [Guarded(array, offset) for array in arrays]
        change("scale", grads, factor, threads)
        for grad, array in zip(grads, arrays):
            assert_same_bits(grad.array, exact_clip.scale(array, factor), f"size {array.size}")


@pytest.mark.parametrize("limit", [0.1, 0.0, 3.0, math.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_clamp(dtype, limit, forced_isa):
    for threads, offset in ((1, 0), (1, 1), (3, 3)):
        arrays = [gradient(size, dtype, seed=size) for size in LENGTHS]
        arrays.append(np.array([*SPECIAL, np.nan, limit, -limit], dtype))
        grads = [Guarded(array, offset) for array in arrays]
        change("clamp", grads, limit, threads)
        for grad, array in zip(grads, arrays):
            assert_same_bits(grad.array, exact_clip.clamp(array, limit), f"size {array.size}")


@pytest.mark.parametrize("name", ["scale", "clamp"])
def test_lists_that_are_divided(name, forced_isa):
    for sizes in ([200003], [5000] * 40, [3] * 3000):
        arrays = [gradient(size, "float32", seed=at) for at, size in enumerate(sizes)]
        grads = [Guarded(array) for array in arrays]
        change(name, grads, 0.3, threads=3)
        for grad, array in zip(grads, arrays):
            assert_same_bits(grad.array, getattr(exact_clip, name)(array, 0.3))


def bfloat16(numbers) -> np.ndarray:
    """Numbers that bfloat16 holds, as its bits."""
    return (np.asarray(numbers, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def test_bfloat16(forced_isa):
    numbers = np.array([0.5, -2.0, 0.25, 8.0, -0.125] * 3)
    grad = Guarded(bfloat16(numbers))
    for order, expected in [(2, 3 * 68.328125), (1, 3 * 10.875), (math.inf, 8), (-math.inf, 0.125), (0, 1)]:
        assert norm_terms([grad], order)[0] == expected
    change("scale", [grad], 0.5)
    assert np.array_equal(grad.array, bfloat16(numbers / 2))
    change("clamp", [grad], 1.0)
    assert np.array_equal(grad.array, bfloat16(np.clip(numbers / 2, -1, 1)))
