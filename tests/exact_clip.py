# SPDX-License-Identifier: BSD-2-Clause
"""Norms of any order over a list of gradients, scaling and clamping, rounded as the kernels round.

In numpy, and independent of the C++: what `kernels/clip.h` says.
"""

from __future__ import annotations

import math

import numpy as np

from tests import exact


def _sum(numbers) -> np.float64:
    """Blocks of 4096; in a block element i into running sum i mod 8; pairs of them; blocks in order."""
    numbers = np.asarray(numbers, np.float64)
    total = np.float64(0)
    with np.errstate(all="ignore"):
        for begin in range(0, numbers.size, exact.NORM_BLOCK):
            block = numbers[begin : begin + exact.NORM_BLOCK]
            lanes = np.zeros(exact.NORM_LANES)
            for first in range(0, block.size, exact.NORM_LANES):
                row = block[first : first + exact.NORM_LANES]
                lanes[: row.size] = lanes[: row.size] + row
            pairs = [lanes[i] + lanes[i + 1] for i in range(0, exact.NORM_LANES, 2)]
            total = total + ((pairs[0] + pairs[1]) + (pairs[2] + pairs[3]))
    return total


def _power(base: float, order: float) -> float:
    """The C library's pow, which Python lets through but for two errors."""
    try:
        return math.pow(base, order)
    except (OverflowError, ValueError):
        return math.inf


def norm_term(grad: np.ndarray, order: float) -> np.float64:
    """What one gradient adds to the norm."""
    if order == 2:
        return exact.squared_norm(grad)
    magnitudes = np.abs(np.asarray(grad).ravel().astype(np.float64))
    if order == 0:
        return np.float64((magnitudes != 0).any())
    if order == math.inf:
        return magnitudes.max(initial=0)
    if order == -math.inf:
        return magnitudes.min(initial=np.inf)
    return _sum(magnitudes if order == 1 else [_power(each, order) for each in magnitudes])


def norm_of_terms(order: float, terms) -> np.float64:
    """The norm from what all gradients add; 0 where there are none."""
    terms = np.asarray(terms, np.float64)
    if terms.size == 0:
        return np.float64(0)
    if abs(order) == math.inf:
        return terms.max() if order > 0 else terms.min()
    with np.errstate(all="ignore"):
        total = terms[0]
        for term in terms[1:]:
            total = total + term
    if order in (0, 1):
        return total
    return np.sqrt(total) if order == 2 else np.float64(_power(float(total), 1 / order))


def scale(grad: np.ndarray, factor: float) -> np.ndarray:
    """The product, rounded to the dtype of the arithmetic and then to that of the gradient."""
    arithmetic = exact.arithmetic_dtype(grad.dtype)
    with np.errstate(all="ignore"):
        return (grad.astype(arithmetic) * arithmetic.type(factor)).astype(grad.dtype)


def clamp(grad: np.ndarray, limit: float) -> np.ndarray:
    """Between -limit and limit; NaN stays."""
    arithmetic = exact.arithmetic_dtype(grad.dtype)
    with np.errstate(all="ignore"):
        g, most = grad.astype(arithmetic), arithmetic.type(limit)
        return np.where(g < -most, -most, np.where(g > most, most, g)).astype(grad.dtype)
