# SPDX-License-Identifier: BSD-2-Clause
"""A GPU's memory, streams and graphs, by PyTorch or by CuPy, whichever is there."""

from __future__ import annotations

import importlib.util

import numpy as np


class NoGpuError(RuntimeError):
    """Neither PyTorch nor CuPy is here, or they see no GPU; the message says which."""


def find(name: str = ""):
    """The memory by `name`, "torch" or "cupy", or the first of them that finds a GPU."""
    reasons = []
    for kind in (TorchMemory, CupyMemory):
        if name not in ("", kind.name):
            continue
        if importlib.util.find_spec(kind.name) is None:
            reasons.append(f"{kind.name} is not installed")
            continue
        try:
            return kind()
        except Exception as error:  # whatever their initialisation throws
            reasons.append(f"{kind.name}: {first_line(error)}")
    raise NoGpuError("no GPU to be had: " + "; ".join(reasons))


def first_line(error: BaseException) -> str:
    """What an error says, in a line; of which kind it is where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


class TorchMemory:
    name = "torch"

    def __init__(self):
        import torch

        self._torch = torch
        # Where it cannot, this says why: no GPU, no driver or too old a one, no CUDA in this PyTorch.
        torch.zeros(1, device="cuda")

    @property
    def version(self) -> str:
        return self._torch.__version__

    @property
    def card(self) -> str:
        return self._torch.cuda.get_device_name()

    @property
    def capability(self) -> int:
        major, minor = self._torch.cuda.get_device_capability()
        return 10 * major + minor

    def free_bytes(self) -> int:
        return self._torch.cuda.mem_get_info()[0]

    def upload(self, image: np.ndarray) -> TorchArray:
        data = np.ascontiguousarray(image).view(np.uint8).ravel()
        array = TorchArray(self._torch.from_numpy(data.copy()).cuda())
        self.synchronize()  # it may be used on any stream
        return array

    def full(self, size: int, value: float):
        """`size` float32 elements."""
        return TorchArray(self._torch.full((size,), value, dtype=self._torch.float32, device="cuda"))

    def all_equal(self, array, value: float) -> bool:
        return bool((array.data == value).all().item())

    def new_stream(self):
        """An object to keep, and the address to pass on."""
        stream = self._torch.cuda.Stream()
        return stream, stream.cuda_stream

    def synchronize(self) -> None:
        self._torch.cuda.synchronize()

    def capture(self, call):
        """A function that replays what call(stream) launches."""
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph):
            call(self._torch.cuda.current_stream().cuda_stream)
        return graph.replay


class TorchArray:
    def __init__(self, data):
        self.data = data

    @property
    def pointer(self) -> int:
        return self.data.data_ptr()

    def read(self) -> np.ndarray:
        import torch

        torch.cuda.synchronize()
        return self.data.cpu().numpy().view(np.uint8)

    def write(self, values: np.ndarray) -> None:
        import torch

        self.data.copy_(torch.from_numpy(np.ascontiguousarray(values).view(np.uint8).ravel()))


class CupyMemory:
    name = "cupy"

    def __init__(self):
        import cupy

        self._cupy = cupy
        if cupy.cuda.runtime.getDeviceCount() == 0:
            raise NoGpuError("it sees no GPU")

    @property
    def version(self) -> str:
        return self._cupy.__version__

    @property
    def card(self) -> str:
        return self._cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()

    @property
    def capability(self) -> int:
        return int(self._cupy.cuda.Device().compute_capability)

    def free_bytes(self) -> int:
        return self._cupy.cuda.runtime.memGetInfo()[0]

    def upload(self, image: np.ndarray) -> CupyArray:
        array = CupyArray(self._cupy.asarray(np.ascontiguousarray(image).view(np.uint8).ravel()))
        self.synchronize()  # it may be used on any stream
        return array

    def full(self, size: int, value: float):
        return CupyArray(self._cupy.full(size, value, np.float32))

    def all_equal(self, array, value: float) -> bool:
        return bool((array.data == np.float32(value)).all())

    def new_stream(self):
        stream = self._cupy.cuda.Stream(non_blocking=True)
        return stream, stream.ptr

    def synchronize(self) -> None:
        self._cupy.cuda.runtime.deviceSynchronize()

    def capture(self, call):
        stream = self._cupy.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            call(stream.ptr)
            graph = stream.end_capture()

        def replay():
            graph.launch(stream)
            stream.synchronize()

        return replay


class CupyArray:
    def __init__(self, data):
        self.data = data

    @property
    def pointer(self) -> int:
        return self.data.data.ptr

    def read(self) -> np.ndarray:
        import cupy

        cupy.cuda.runtime.deviceSynchronize()
        return self.data.get().view(np.uint8)

    def write(self, values: np.ndarray) -> None:
        self.data.set(np.ascontiguousarray(values).view(np.uint8).ravel())
