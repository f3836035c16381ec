# SPDX-License-Identifier: BSD-2-Clause
"""Cases for the CUDA kernels of global clipping, as those in cuda_cases.py: on a GPU and on its emulation."""

from __future__ import annotations

import ctypes
import itertools
import math

import numpy as np

from tests.kernels import cuda_cases as cases
from tests.kernels import library
from tests.kernels.cuda_cases import Arena, gradients
from tests.kernels.cuda_library import HostArray, NormTensor
from tests.kernels.library import DTYPE_CODES

ORDERS = (2.0, 1.0, 0.0, math.inf, -math.inf)
SPECIAL = (0.0, -0.0, 1.0, -2.5, 6e-8, 65504.0, np.inf, -np.inf, np.nan)


def stored(values, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        return cases.bfloat16(values) if dtype == "uint16" else np.asarray(values).astype(dtype)


def check_norm(cuda, dtype: str, order: float, sizes, shift: int, values=None) -> None:
    """Terms of all gradients, at places in another order; and the norm, of both dtypes."""
    if values is None:
        values = cases.random_array(sum(sizes), dtype, 1)
    arena = Arena({"grad": values}, {"grad": shift})
    host, device = HostArray(arena.image), cuda.upload(arena.image)
    places = list(reversed(range(len(sizes))))
    tensors = gradients(arena, sizes, device.pointer, NormTensor)
    for tensor, place in zip(tensors, places):
        tensor.place = place
    terms = cuda.norm_terms(DTYPE_CODES[dtype], order, tensors)
    expected, on_host = np.full(len(sizes), -1.0), gradients(arena, sizes, host.pointer)
    pointer = expected.ctypes.data_as(ctypes.c_void_p)
    count = ctypes.c_int64(len(sizes))
    library.call("norm_terms", DTYPE_CODES[dtype], ctypes.c_double(order), on_host, count, 1, pointer)
    expected = expected[::-1].copy()
    what = f"order {order} of {dtype}, shift {shift}"
    library.assert_same_bits(terms.read().view(np.float64)[: len(sizes)], expected, f"terms: {what}")
    norm = ctypes.c_double(-1)
    pointer = expected.ctypes.data_as(ctypes.c_void_p)
    library.call("norm_of_terms", ctypes.c_double(order), pointer, count, ctypes.byref(norm))
    for result in (np.float32, np.float64):
        actual = cuda.norm_of_terms(order, terms, len(sizes), np.dtype(result).name)
        with np.errstate(over="ignore"):
            library.assert_same_bits(actual, np.array([norm.value]).astype(result), f"norm: {what}")


def check_special_norms(cuda, dtype: str, order: float) -> None:
    """Each special value first, last and in the middle of others; then numbers of every exponent."""
    for value, place in itertools.product(SPECIAL, (0, 7, 5099)):
        values = np.full(5100, 0.5)
        values[place] = value
        check_norm(cuda, dtype, order, [5000, 0, 100], 0, stored(values, dtype))
    check_norm(cuda, dtype, order, [3000, 7], 1, cases.random_bits(3007, dtype, 1))
    check_norm(cuda, dtype, order, [3000, 7], 1, stored(np.zeros(3007), dtype))


def check_change(cuda, name: str, dtype: str, number: float, sizes, shift: int, values=None) -> None:
    """A list, scaled or clamped."""
    if values is None:
        values = cases.random_array(sum(sizes), dtype, 2)
    arena = Arena({"grad": values}, {"grad": shift})
    host, device = HostArray(arena.image), cuda.upload(arena.image)
    count, code = ctypes.c_int64(len(sizes)), DTYPE_CODES[dtype]
    on_host, on_device = (gradients(arena, sizes, memory.pointer) for memory in (host, device))
    library.call(name, code, on_host, count, ctypes.c_double(number), 1)
    getattr(cuda, name)(code, on_device, number)
    arena.assert_same(device.read(), host.read(), f"{name} {number} of {dtype}, shift {shift}, {sizes[:5]}")


def check_special_changes(cuda, dtype: str) -> None:
    values = np.concatenate([stored(SPECIAL * 3, dtype), cases.random_bits(3001, dtype, 3)])
    for name, numbers in (
        ("scale", (0.3, 1.0, 0.0, -7.0, math.nan, math.inf, 1e-40)),
        ("clamp", (0.1, 0.0, 3.0, 1e-40, math.inf)),
    ):
        for number, shift in itertools.product(numbers, (0, 1)):
            check_change(cuda, name, dtype, number, [values.size], shift, values)


FACTORS = [
    (0.5, 5.0, 0.5 / (5.0 + 1e-6)),
    (5.0, 5.0, 5.0 / (5.0 + 1e-6)),
    (6.0, 5.0, 1.0),
    (1.0, 0.0, 1.0),
    (math.inf, 5.0, 1.0),
    (0.0, 5.0, 0.0),
    (1.0, math.inf, 0.0),
    (math.inf, math.inf, math.nan),
    (1.0, math.nan, math.nan),
]


def check_factors(cuda) -> None:
    """By norms of every dtype, all of which have these numbers; of a gradient of ones that is the factor."""
    for dtype, (max_norm, norm, expected) in itertools.product(cases.GRAD_DTYPES, FACTORS):
        ones, tensors = cuda.upload(np.ones(3)), (library.Gradient * 1)()
        tensors[0].size, tensors[0].grad = 3, ones.pointer
        code = DTYPE_CODES["float64"]
        cuda.scale_to_norm(code, tensors, max_norm, stored([norm], dtype), DTYPE_CODES[dtype])
        what = f"{max_norm} / {norm} of {dtype}"
        library.assert_same_bits(ones.read().view(np.float64), np.full(3, expected), what)
