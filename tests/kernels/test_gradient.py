# SPDX-License-Identifier: BSD-2-Clause
"""Squared norm, accumulation and float16 conversion: the same bits everywhere."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from tests import exact
from tests.kernels import library
from tests.kernels.library import DTYPE_CODES, Guarded, assert_same_bits

DTYPES = ["float16", "float32", "float64"]
LENGTHS = list(range(41)) + [127, 4095, 4096, 4097, 8191, 8192, 8193, 12288 + 5, 100003]


def gradient(size: int, dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.RandomState(seed)
    return (rng.randn(size) * 10.0 ** rng.uniform(-4, 2, size)).astype(dtype)


def squared_norm(grad: Guarded, scale: float = 1.0, threads: int = 1) -> np.float64:
    result = ctypes.c_double(-1)
    library.call(
        "squared_norm",
        DTYPE_CODES[grad.array.dtype.name],
        ctypes.c_void_p(grad.pointer),
        ctypes.c_int64(grad.array.size),
        ctypes.c_double(scale),
        threads,
        ctypes.byref(result),
    )
    return np.float64(result.value)


def accumulate(grads, sums, first, threads: int = 1) -> None:
    tensors = (library.Sum * len(grads))()
    for tensor, grad, total in zip(tensors, grads, sums):
        tensor.size, tensor.first = grad.array.size, first
        tensor.grad, tensor.sum = grad.pointer, total.pointer
    code = DTYPE_CODES[grads[0].array.dtype.name]
    library.call("accumulate", code, tensors, ctypes.c_int64(len(tensors)), threads)
    for guarded in [*grads, *sums]:
        guarded.check()


def convert(name: str, source: np.ndarray, dtype, offset: int = 0) -> np.ndarray:
    given, result = Guarded(source, offset), Guarded(np.zeros(source.size, dtype), offset)
    pointers = ctypes.c_void_p(given.pointer), ctypes.c_void_p(result.pointer)
    library.call(name, *pointers, ctypes.c_int64(source.size))
    given.check()
    result.check()
    return result.array.copy()


@pytest.mark.parametrize("scale", [1.0, 0.3, -7.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_squared_norm(dtype, scale, forced_isa):
    for size in LENGTHS:
        grad = gradient(size, dtype, seed=size)
        expected = exact.squared_norm(grad, scale)
        for threads, offset in ((1, 0), (1, 1), (2, 3), (3, 0)):
            actual = squared_norm(Guarded(grad, offset), scale, threads)
            assert_same_bits(actual, expected, f"size {size} threads {threads} offset {offset}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_squared_norm_of_what_is_not_finite(dtype, value, forced_isa):
    grad = gradient(5000, dtype)
    grad[4321] = value
    assert_same_bits(squared_norm(Guarded(grad)), np.float64(value * value))


def test_squared_norm_keeps_what_float32_would_lose():
    """The sum is in double: 3e38 squared is no overflow, and 1e-30 squared no underflow."""
    assert squared_norm(Guarded(np.array([3e38], np.float32))) == float(np.float32(3e38)) ** 2
    assert squared_norm(Guarded(np.array([1e-30], np.float32))) == float(np.float32(1e-30)) ** 2


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_accumulate(dtype, threads, forced_isa):
    sizes = LENGTHS
    arithmetic = exact.arithmetic_dtype(dtype)
    first = [gradient(size, dtype, seed=1) for size in sizes]
    second = [gradient(size, dtype, seed=2) for size in sizes]
    sums = [Guarded(np.full(size, np.nan, arithmetic), offset=size % 4) for size in sizes]
    accumulate([Guarded(grad, offset=1) for grad in first], sums, 1, threads)
    for total, grad in zip(sums, first):
        assert_same_bits(total.array, exact.accumulate(grad))
    accumulate([Guarded(grad) for grad in second], sums, 0, threads)
    for total, one, two in zip(sums, first, second):
        assert_same_bits(total.array, exact.accumulate(two, exact.accumulate(one)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_accumulate_special_values(dtype, forced_isa):
    values = np.array([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan, 6e-8, 65504.0]).astype(dtype)
    grad, start = (array.ravel() for array in np.meshgrid(values, values))
    total = Guarded(start.astype(exact.arithmetic_dtype(dtype)))
    accumulate([Guarded(grad)], [total], 0)
    assert_same_bits(total.array, exact.accumulate(grad, start.astype(total.array.dtype)))


def quiet(halves: np.ndarray) -> np.ndarray:
    """The conversions make every NaN quiet, as the instructions do; numpy keeps signalling ones."""
    return np.where((halves & 0x7FFF) > 0x7C00, halves | 0x0200, halves).astype(np.uint16)


@pytest.mark.parametrize("offset", [0, 1, 3])
def test_every_half_to_float(offset, forced_isa):
    """Bit for bit, the NaNs' signs and payloads too."""
    halves = np.arange(65536, dtype=np.uint16)
    expected = quiet(halves).view(np.float16).astype(np.float32)
    for size in (65536, 65533):
        actual = convert("half_to_float", halves[:size], np.float32, offset)
        assert np.array_equal(actual.view(np.uint32), expected[:size].view(np.uint32))


def interesting_floats() -> np.ndarray:
    """All float16 values, the points halfway between neighbours, what lies next to those, and random bits."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    edges = [65519.0, 65520.0, 65521.0, 1e10, 1e-10, 3.4e38]
    floats = np.concatenate([halves, (halves[:-1] + halves[1:]) / 2, edges]).astype(np.float32)
    above, below = (np.nextafter(floats, np.float32(limit)) for limit in (np.inf, 0))
    nans = [0x7FC00000, 0x7F800001, 0x7FFFFFFF, 0x7FA00000, 0x7F802000]
    others = [0x7F800000, 0, 1, 0x007FFFFF, 0x33000000, 0x33000001]
    bits = np.random.RandomState(0).randint(0, 2**32, 200000, dtype=np.uint32)
    bits = np.append(bits, np.array(nans + others, np.uint32))
    floats = np.concatenate([floats, above, below, bits.view(np.float32)])
    return np.concatenate([floats, -floats])


@pytest.mark.parametrize("offset", [0, 1])
def test_float_to_half(offset, forced_isa):
    floats = interesting_floats()
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        expected = floats.astype(np.float16).view(np.uint16)
    bits = floats.view(np.uint32)
    nan_bits = (bits >> 16 & 0x8000 | 0x7E00 | bits >> 13 & 0x03FF).astype(np.uint16)
    expected = np.where(np.isnan(floats), nan_bits, expected)
    for size in (floats.size, floats.size - 3):
        actual = convert("float_to_half", floats[:size], np.uint16, offset)
        assert np.array_equal(actual, expected[:size])


def test_conversion_of_every_short_length(forced_isa):
    for size in range(40):
        halves = gradient(size, "float16")
        floats = convert("half_to_float", halves, np.float32)
        assert_same_bits(floats, halves.astype(np.float32))
        assert_same_bits(convert("float_to_half", floats, np.float16), halves)


@pytest.mark.parametrize("code", [-1, 4])
def test_an_unknown_dtype_is_an_error(code):
    with pytest.raises(ValueError, match=f"Invalid dtype code: {code}"):
        library.call("accumulate", code, None, ctypes.c_int64(0), 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fill(dtype, forced_isa):
    for size in [*range(40), 1000]:
        for value in (0.1, -0.0, 1e300, 0.0):
            filled = Guarded(np.full(size, np.nan, dtype), offset=size % 3)
            pointer = ctypes.c_void_p(filled.pointer)
            library.call("fill", DTYPE_CODES[dtype], pointer, ctypes.c_int64(size), ctypes.c_double(value))
            filled.check()
            with np.errstate(over="ignore"):
                assert_same_bits(filled.array, np.full(size, value).astype(dtype))


@pytest.mark.parametrize("code", [0, 3])
def test_fill_of_short_dtypes_is_an_error(code):
    with pytest.raises(ValueError, match="Invalid dtype to fill"):
        library.call("fill", code, None, ctypes.c_int64(0), ctypes.c_double(0))


def has_non_finite(grads, threads: int = 1) -> int:
    gradients = (library.Gradient * len(grads))()
    for gradient, grad in zip(gradients, grads):
        gradient.size, gradient.grad = grad.array.size, grad.pointer
    found = ctypes.c_int32(-1)
    code = DTYPE_CODES[grads[0].array.dtype.name]
    count = ctypes.c_int64(len(grads))
    library.call("has_non_finite", code, gradients, count, threads, ctypes.byref(found))
    return found.value


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_has_non_finite(dtype, threads, forced_isa):
    """Numbers of every size are none of it, one infinity or NaN anywhere in a list is."""
    info = np.finfo(dtype)
    for size in [*range(1, 41), 4097, 100003]:
        grads = [gradient(size, dtype), np.zeros(0, dtype), gradient(size, dtype, seed=1)]
        grads[0][: min(size, 4)] = [info.max, -info.max, info.tiny, -0.0][:size]
        assert has_non_finite([Guarded(grad, offset=1) for grad in grads], threads) == 0
        for place in {0, size // 2, size - 1}:
            for value in (np.inf, -np.inf, np.nan):
                bad = grads[2].copy()
                bad[place] = value
                assert has_non_finite([Guarded(grad) for grad in (*grads[:2], bad)], threads) == 1
