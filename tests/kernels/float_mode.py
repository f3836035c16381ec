# SPDX-License-Identifier: BSD-2-Clause
"""Arithmetic as a library built with -ffast-math leaves it behind, or as few programs ask for."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import platform

import pytest

# Of the control register of x86.
MODES = {"flush": 0x8040, "round-down": 0x2000, "round-to-zero": 0x6000}

needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="sets the x86 control register")


@contextlib.contextmanager
def float_mode(bits: int):
    """The calling thread's, until the end of the block, where it must still be so."""
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    before, changed, after = ((ctypes.c_uint32 * 8)() for _ in range(3))  # glibc's fenv_t
    libm.fegetenv(before)
    changed[:] = before[:]
    changed[7] |= bits
    libm.fesetenv(changed)
    try:
        yield
        libm.fegetenv(after)
    finally:
        libm.fesetenv(before)
    assert after[7] & bits == bits, "the caller's mode was not put back"
