# SPDX-License-Identifier: BSD-2-Clause
"""The CUDA kernels compiled for the CPU; `emulated_cuda/` holds what they take for CUDA."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kernels.cuda_library import CudaLibrary, HostArray

ROOT = Path(__file__).resolve().parents[2]
EMULATION = Path(__file__).parent / "emulated_cuda"
FLAGS = [
    "-std=c++17",
    "-O1",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-fsanitize=alignment",  # emulation.cc defines what it calls
    "-Wall",
    "-Wextra",
    "-Werror",
]
FLAGS += ["-Wno-unknown-pragmas", '-DDRAGON_OPTIM_CUDA_ARCHITECTURES="emulated"']


def kernels() -> list:
    """Their sources."""
    found = sorted((ROOT / "kernels" / "cuda").glob("*.c[cu]"))
    if not found:
        pytest.skip("the sources are not here: the installed package is tested")
    return found


def build(folder: Path, *flags: str) -> Path:
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no g++ is installed")

    def compiled(source: Path) -> str:
        target = str(folder / f"{source.name}.o")
        include = [f"-I{EMULATION}", f"-I{ROOT}"]
        subprocess.check_call(
            [compiler, "-x", "c++", *FLAGS, *flags, *include, "-c", str(source), "-o", target]
        )
        return target

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        objects = list(pool.map(compiled, [*kernels(), *sorted(EMULATION.glob("*.cc"))]))
    path = folder / "libemulated.so"
    subprocess.check_call([compiler, "-shared", "-Wl,--no-undefined", *objects, "-o", str(path), "-lpthread"])
    return path


class Emulated(CudaLibrary):
    STREAM = 0x5EED

    def __init__(self, path: Path):
        super().__init__(path, stream=self.STREAM)
        for name in ("launches", "chunk"):
            getattr(self.handle, f"emulated_cuda_{name}").restype = ctypes.c_int64
        self.handle.emulated_cuda_last_stream.restype = ctypes.c_void_p

    def device(self, multiprocessors: int = 2, threads: int = 2048, reverse: bool = False) -> None:
        self.handle.emulated_cuda_device(multiprocessors, threads, reverse)

    def driver(self, version: int = 0) -> None:
        """As 1000 * major + 10 * minor; 0 is the toolkit's."""
        self.handle.emulated_cuda_driver(version)

    def fail_after(self, launches: int, status: int = 701) -> None:
        """With too many resources, unless another status is given."""
        self.handle.emulated_cuda_failure(status)
        self.handle.emulated_cuda_fail_after(ctypes.c_int64(launches))

    def chunk(self, sizes: list, chunk_size: int, index: int) -> tuple:
        """(number of all chunks, [tensor of this one, its first element, its size])."""
        place = (ctypes.c_int64 * 3)()
        given = (ctypes.c_int64 * len(sizes))(*sizes)
        count, index = ctypes.c_int64(len(sizes)), ctypes.c_int64(index)
        return self.handle.emulated_cuda_chunk(given, count, chunk_size, index, place), list(place)

    def grid(self, blocks: int, threads: int) -> int:
        return self.handle.emulated_cuda_grid(ctypes.c_int64(blocks), threads)

    def launches(self) -> int:
        """Since the last question."""
        return self.handle.emulated_cuda_launches()


class EmulatedMemory:
    """What `device_memory.find()` gives on a machine with a GPU."""

    name, version, card, capability = "emulated", "", "an emulated card", 0

    def free_bytes(self) -> int:
        return 1 << 20

    def upload(self, image) -> HostArray:
        return HostArray(image)

    def new_stream(self):
        return None, Emulated.STREAM

    def synchronize(self) -> None:
        pass

    def capture(self, call):
        return lambda: call(Emulated.STREAM)
