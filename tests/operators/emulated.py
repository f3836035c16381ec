# SPDX-License-Identifier: BSD-2-Clause
"""The emulated devices, for tests in a process that has them: see test_on_emulated_cuda.py.

Importing this gives Dragon operators for CUDA, those for the CPU whose results go to the device, and lets
``.cuda()`` work: a tensor's memory follows at its first use there.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np
from dragon.vm import torch
from dragon.vm.torch.core.cpp import device as Device

from dragon_optim._dragon import graphs, library, names, replay, workspace

DEVICES = 3  # emulated_cuda/device.h

_operators = ctypes.CDLL(library._path(library._OPERATORS))
_devices = ctypes.CDLL(library._path("libemulated_cuda.so"))
_devices.emulated_cuda_launches.restype = ctypes.c_int64
_devices.emulated_cuda_in_use.restype = ctypes.c_int64


class Counts(NamedTuple):
    allocations: int
    copies: int
    fills: int
    copied_bytes: int


NOTHING = Counts(0, 0, 0, 0)


def counts() -> Counts:
    """What was done since the last question, whether on a stream or by Dragon's memory."""
    result = (ctypes.c_int64 * len(NOTHING))()
    _devices.emulated_cuda_counts(result)
    return Counts(*result)


def launches() -> int:
    """Since the last question."""
    return _devices.emulated_cuda_launches()


def in_use() -> int:
    """Bytes, of all devices."""
    return _devices.emulated_cuda_in_use()


class OutOfMemory:
    """No more memory than these bytes, on all devices together."""

    def __init__(self, free_bytes: int = 0):
        self.free_bytes = free_bytes

    def __enter__(self) -> None:
        _devices.emulated_cuda_free_bytes(ctypes.c_int64(self.free_bytes))

    def __exit__(self, *error) -> None:
        _devices.emulated_cuda_free_bytes(ctypes.c_int64(-1))


class FailingLaunches:
    """After so many good launches all others are refused."""

    def __init__(self, good: int = 0):
        self.good = good

    def __enter__(self) -> None:
        _devices.emulated_cuda_fail_after(ctypes.c_int64(self.good))

    def __exit__(self, *error) -> None:
        _devices.emulated_cuda_fail_after(ctypes.c_int64(-1))


def give_gradient(param, values: np.ndarray) -> None:
    """Let a gradient lie where a backward pass on the parameter's device would have left it."""
    home, name = workspace.current(), names.gradient_name(param)
    home.create_tensor("emulated/source").FromNumpy(values, True)
    home.create_tensor(name)
    graphs.run_once(home, [graphs.operator("Identity", ["emulated/source"], [name], param.device)])


def _cuda(tensor, device=0):
    tensor._device = Device("cuda", getattr(device, "index", device))
    return tensor


def _install() -> None:
    _operators.emulated_cuda_register()
    torch.Tensor.cuda = _cuda
    # Dragon's Python knows no CUDA here: it copies by way of the host.
    replay._OPTIONS.update({("cuda", index): Device("cpu").to_proto() for index in range(DEVICES)})


_install()
