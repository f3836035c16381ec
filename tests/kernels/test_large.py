# SPDX-License-Identifier: BSD-2-Clause
"""Tensors of more than 2**31 elements: the last ones are reached too.

Of memory there is little: every buffer is one file, mapped again and again, and behind it a part of its own.
Only that part is looked at; in the others all threads write to the same memory.
"""

from __future__ import annotations

import ctypes
import mmap
import os

import numpy as np
import pytest

from tests.kernels import library

SIZE = 2**31 + 4099
OWN = 2**13  # elements of the last part
REPEATED = 2**24  # bytes of the file

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
MAP_FIXED, MAP_NORESERVE = 0x10, 0x4000
READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE


class Large:
    """`SIZE` numbers of one value; `own` are the last `OWN` of them."""

    def __init__(self, value, dtype="float32"):
        itemsize = np.dtype(dtype).itemsize
        self._bytes = -(-SIZE * itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
        self.pointer = self._map(None, self._bytes, MAP_NORESERVE | mmap.MAP_ANONYMOUS | mmap.MAP_PRIVATE, -1)
        repeated = self._bytes - OWN * itemsize - mmap.PAGESIZE
        file = os.memfd_create("repeated")
        try:
            os.ftruncate(file, REPEATED)
            os.pwrite(file, np.full(REPEATED // itemsize, value, dtype).tobytes(), 0)
            for begin in range(0, repeated - REPEATED, REPEATED):
                self._map(self.pointer + begin, REPEATED, MAP_FIXED | mmap.MAP_SHARED, file)
        finally:
            os.close(file)
        memory = (ctypes.c_byte * self._bytes).from_address(self.pointer)
        numbers = np.ctypeslib.as_array(memory).view(dtype)[:SIZE]
        numbers[begin // itemsize :] = value
        self.own = numbers[-OWN:]

    @staticmethod
    def _map(address, size, flags, file):
        result = LIBC.mmap(address, size, READ_WRITE, flags, file, 0)
        if result == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), "mmap")
        return result

    def close(self):
        del self.own
        LIBC.munmap(self.pointer, self._bytes)


@pytest.fixture
def large():
    made = []

    def make(value):
        made.append(Large(value))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_the_last_elements_are_updated(large):
    """Clipped as well: the norm is that of all elements."""
    param, grad, square_avg = large(1.0), large(1.0), large(0.0)
    tensors = (library.Tensor * 1)()
    tensors[0].size = SIZE
    tensors[0].param, tensors[0].grad, tensors[0].square_avg = param.pointer, grad.pointer, square_avg.pointer
    options = {"lr": 1.0, "alpha": 0.0, "eps": 1.0, "clip_norm": SIZE**0.5 / 4}
    library.call_update(1, 1, options, tensors, threads=2)
    assert square_avg.own == pytest.approx(np.full(OWN, 0.0625), rel=1e-6)
    assert param.own == pytest.approx(np.full(OWN, 0.8), rel=1e-6)
    assert (grad.own == 1).all()


def test_the_last_elements_are_summed(large):
    grad, total = large(1.0), large(2.0)
    sums = (library.Sum * 1)()
    sums[0].size, sums[0].grad, sums[0].sum = SIZE, grad.pointer, total.pointer
    library.call("accumulate", 1, sums, ctypes.c_int64(1), 2)
    assert (total.own == 3).all()
