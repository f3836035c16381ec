# SPDX-License-Identifier: BSD-2-Clause
"""The numbers of the cases: parameters, and gradients of several kinds.

They are the same everywhere: made of integers, and multiplications by powers of two.
"""

from __future__ import annotations

import functools

import numpy as np


def _random_bits(seed: int, count: int) -> np.ndarray:
    """Splitmix64 (Steele, Lea and Flood, 2014): the same 64-bit integers with every version of numpy."""
    with np.errstate(over="ignore"):
        x = np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed) * np.uint64(1 << 32)
        x = x * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def uniform(seed: int, shape) -> np.ndarray:
    """Multiples of 2**-52 in [-1, 1)."""
    bits = _random_bits(seed, int(np.prod(shape, dtype=int)))
    return ((bits >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0).reshape(shape)


def _wide(step, place, shape):
    """Nine orders of magnitude, by element and by step; one element in sixteen is zero."""
    size = int(np.prod(shape, dtype=int))
    by_element = _random_bits(1000 + place, size) % np.uint64(24)
    by_step = _random_bits(2000 + 100 * step + place, size)
    exponent = by_element.astype(np.float64) - 15 + (by_step % np.uint64(6)).astype(np.float64)
    value = uniform(10000 + 100 * step + place, (size,)) * 2.0**exponent
    return np.where(by_step >> np.uint64(60) == 0, 0.0, value).reshape(shape)


def _gentle(step, place, shape):
    return uniform(10000 + 100 * step + place, shape)


def _zero(step, place, shape):
    return np.zeros(shape)


def _constant(step, place, shape):
    """The centered variance rounds below zero: 1.21 at step 137 with alpha=0.9, 2.575 at 267 with 0.95."""
    return np.full(shape, (1.21, 2.575)[place % 2])


def _with(special):
    """Gentle gradients, and at steps 2 and 5 a value that is not finite in every third element."""

    def make(step, place, shape):
        grad = _gentle(step, place, shape).reshape(-1)
        if step in (2, 5):
            grad[::3] = special if step == 2 else -special
        return grad.reshape(shape)

    return make


_GRADIENTS = {
    "wide": _wide,
    "gentle": _gentle,
    "zero": _zero,
    "constant": _constant,
    "inf": _with(np.inf),
    "nan": _with(np.nan),
    "huge": _with(1e30),
}


@functools.lru_cache(maxsize=None)
def gradient(kind, step, place, shape, dtype):
    """Many cases share these; nobody may write into them."""
    with np.errstate(over="ignore"):
        grad = _GRADIENTS[kind](step, place, shape).astype(dtype)
    grad.flags.writeable = False
    return grad
