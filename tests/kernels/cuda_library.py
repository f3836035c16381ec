# SPDX-License-Identifier: BSD-2-Clause
"""The CUDA kernels' flat C functions, called through ctypes."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.kernels import library

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "build" / "native"


def build(capability: int) -> None:
    """Both libraries, for a card of this capability unless the environment names others."""
    environ = dict(os.environ)
    environ.setdefault("DRAGON_OPTIM_CUDA_ARCHS", str(capability))
    command = [sys.executable, str(ROOT / "scripts" / "build_cuda.py")]
    if subprocess.run(command, env=environ, check=False).returncode != 0:
        raise SystemExit("the CUDA kernels could not be built")


def nvcc_version() -> str:
    """The release of the nvcc that `build` takes."""
    folder = str(ROOT / "scripts")
    if folder not in sys.path:
        sys.path.append(folder)
    from native_build import cuda

    found = cuda.find_nvcc()
    return found.version if found else "none"


class NormTensor(ctypes.Structure):
    _fields_ = [("size", ctypes.c_int64), ("grad", ctypes.c_void_p), ("place", ctypes.c_int64)]


class HostArray:
    """Memory of an emulated device: the host's, at an address that is aligned as a device's would be."""

    def __init__(self, image: np.ndarray):
        memory = np.empty(image.nbytes + 256, np.uint8)
        begin = -memory.ctypes.data % 256
        self._bytes = memory[begin : begin + image.nbytes]
        self._bytes[...] = image.view(np.uint8).ravel()

    @property
    def pointer(self) -> int:
        return self._bytes.ctypes.data

    def read(self) -> np.ndarray:
        """A copy, as bytes, after everything on the device is done."""
        return self._bytes.copy()

    def write(self, values: np.ndarray) -> None:
        self._bytes[...] = np.ascontiguousarray(values).view(np.uint8).ravel()


class CudaLibrary:
    """`upload` makes of a numpy array one in device memory, with `pointer` and `read()`."""

    def __init__(self, path: Path, upload=HostArray, stream: int = 0):
        self.path = path
        self.handle = ctypes.CDLL(str(path))
        self.upload = upload
        self.stream = stream
        for name in ("last_error", "architectures"):
            getattr(self.handle, f"dragon_optim_cuda_{name}").restype = ctypes.c_char_p
        for name in ("rmsprop_workspace", "squared_norms_workspace", "norm_terms_workspace"):
            getattr(self.handle, f"dragon_optim_cuda_{name}").restype = ctypes.c_int64

    def call(self, name: str, *arguments) -> None:
        """Calls `dragon_optim_cuda_<name>` on the stream; an error becomes a ValueError with its text."""
        if getattr(self.handle, f"dragon_optim_cuda_{name}")(*arguments, ctypes.c_void_p(self.stream)) != 0:
            raise ValueError(self.handle.dragon_optim_cuda_last_error().decode())

    def scratch(self, size: int):
        """Device memory full of NaNs, for a call to write to first."""
        return self.upload(np.full(max(size, 8), 0xFF, np.uint8))

    def rmsprop(self, dtype, grad_dtype, options, tensors, numbers=None, skip=None) -> None:
        """One step. `numbers` and `skip` are device arrays."""
        size = self.rmsprop_workspace(library.make_options(options), tensors)
        workspace = self.scratch(size)
        self.launch_rmsprop(dtype, grad_dtype, options, tensors, workspace, size, numbers, skip)
        workspace.read()  # which waits: it must not be given back before

    def launch_rmsprop(
        self, dtype, grad_dtype, options, tensors, workspace=None, size=0, numbers=None, skip=None
    ) -> None:
        """The same, waiting for nothing."""
        options = library.make_options(options)
        self.call(
            "rmsprop",
            dtype,
            grad_dtype,
            ctypes.byref(options),
            address(numbers),
            address(skip),
            tensors,
            ctypes.c_int64(len(tensors)),
            address(workspace),
            ctypes.c_int64(size),
        )

    def rmsprop_workspace(self, options: library.Options, tensors) -> int:
        return self.handle.dragon_optim_cuda_rmsprop_workspace(
            ctypes.byref(options), tensors, ctypes.c_int64(len(tensors))
        )

    def accumulate(self, grad_dtype, tensors) -> None:
        self.call("accumulate", grad_dtype, tensors, ctypes.c_int64(len(tensors)))

    def fill(self, dtype, pointer: int, size: int, value: float) -> None:
        self.call("fill", dtype, ctypes.c_void_p(pointer), ctypes.c_int64(size), ctypes.c_double(value))

    def find_non_finite(self, grad_dtype, gradients, found: int = 0) -> int:
        flag = self.upload(np.array([found], np.int32))
        self.call("find_non_finite", grad_dtype, gradients, ctypes.c_int64(len(gradients)), address(flag))
        return int(flag.read().view(np.int32)[0])

    def squared_norms(self, grad_dtype, gradients, scale: float = 1.0) -> np.ndarray:
        count = ctypes.c_int64(len(gradients))
        size = self.handle.dragon_optim_cuda_squared_norms_workspace(gradients, count)
        norms, workspace = self.scratch(8 * len(gradients)), self.scratch(size)
        arguments = (ctypes.c_double(scale), address(norms), address(workspace), ctypes.c_int64(size))
        self.call("squared_norms", grad_dtype, gradients, count, *arguments)
        return norms.read().view(np.float64)[: len(gradients)]

    def norm_terms(self, grad_dtype, order: float, tensors):
        """The terms of a norm, in device memory."""
        count = ctypes.c_int64(len(tensors))
        size = self.handle.dragon_optim_cuda_norm_terms_workspace(tensors, count)
        terms, workspace = self.scratch(8 * len(tensors)), self.scratch(size)
        arguments = (tensors, count, address(terms), address(workspace), ctypes.c_int64(size))
        self.call("norm_terms", grad_dtype, ctypes.c_double(order), *arguments)
        workspace.read()  # which waits: it must not be given back before
        return terms

    def norm_of_terms(self, order: float, terms, count: int, dtype: str) -> np.ndarray:
        norm, code = self.scratch(8), library.DTYPE_CODES[dtype]
        arguments = (ctypes.c_double(order), address(terms), ctypes.c_int64(count))
        self.call("norm_of_terms", *arguments, code, address(norm))
        return norm.read().view(dtype)[:1]

    def scale_to_norm(self, grad_dtype, tensors, max_norm: float, norm: np.ndarray, dtype: int) -> None:
        """By a norm in device memory."""
        on_device, count = self.upload(norm), ctypes.c_int64(len(tensors))
        arguments = (ctypes.c_double(max_norm), dtype, address(on_device))
        self.call("scale_to_norm", grad_dtype, tensors, count, *arguments)
        on_device.read()  # which waits

    def scale(self, grad_dtype, tensors, factor: float) -> None:
        self.call("scale", grad_dtype, tensors, ctypes.c_int64(len(tensors)), ctypes.c_double(factor))

    def clamp(self, grad_dtype, tensors, limit: float) -> None:
        self.call("clamp", grad_dtype, tensors, ctypes.c_int64(len(tensors)), ctypes.c_double(limit))


def address(array) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.pointer)
