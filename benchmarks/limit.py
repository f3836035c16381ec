# SPDX-License-Identifier: BSD-2-Clause
"""The limit of the machine: limit.cc, compiled where it runs, over memory of Dragon's own."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Callable

from dragon.vm import torch

import dragon_optim
from benchmarks import inputs
from benchmarks.cases import Case
from benchmarks.traffic import BYTES, state_bytes

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "out" / "benchmarks"
SOURCE = Path(__file__).with_suffix(".cc")
KERNELS = Path(dragon_optim.__file__).parent / "_lib" / "libdragon_optim_kernels.so"

sys.path.insert(0, str(ROOT / "scripts"))
from native_build import libraries, toolchain  # noqa: E402  the build's own modules are no package of ours

# As in limit.cc.
KINDS = {"step": 0, "sum_grad": 0, "clip_grad_norm_": 0, "clip_norm": 1, "zero_grad": 2}
STATELESS = ("sum_grad", "clip_grad_norm_")  # they read two arrays, or one twice, and write one
MAX_STATES = 4
# Enough work to be worth another thread, and a piece of it.
SERIAL_ELEMENTS = 64 * 1024
PART_ELEMENTS = 32 * 1024


class _Range(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_int64),
        ("grad", ctypes.c_void_p),
        ("param", ctypes.c_void_p),
        ("states", ctypes.c_void_p * MAX_STATES),
    )


class _Part(ctypes.Structure):
    _fields_ = (("begin", ctypes.c_int64), ("end", ctypes.c_int64))


@functools.lru_cache(maxsize=None)
def library() -> ctypes.CDLL:
    """Compile limit.cc, unless that was done, and load it."""
    compiler = toolchain.find_compiler()
    flags = (*libraries.FLAGS, "-march=native", "-shared", f"-Wl,-rpath,{KERNELS.parent}")
    # The kernels' library for its threads: the limit is reached by the same ones.
    command = [*compiler.command, *flags, str(SOURCE), str(KERNELS), "-o"]
    stamp = hashlib.sha256("\0".join([*command, compiler.version]).encode() + SOURCE.read_bytes()).hexdigest()
    path = FOLDER / f"liblimit-{stamp[:16]}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Under a name of its own first: another process may be compiling too.
        unfinished = path.with_suffix(f".{os.getpid()}")
        run = subprocess.run([*command, str(unfinished)], cwd=ROOT, capture_output=True, text=True)
        if run.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{run.stderr}")
        unfinished.replace(path)
    loaded = ctypes.CDLL(str(path))
    loaded.benchmark_limit.argtypes = (
        *(ctypes.c_int,) * 4,
        *(ctypes.c_void_p,) * 2,
        ctypes.c_int64,
        ctypes.c_int,
    )
    return loaded


class Limit:
    """A call that moves the bytes of a case's call, and does nothing else."""

    def __init__(self, case: Case) -> None:
        states = 0 if case.kind in STATELESS else case.states + (case.dtype == "float16")
        self._memory: list[torch.Tensor] = []
        ranges, parts, begin, filled = [], [], 0, 0
        for values, gradient in inputs.pairs(case):
            widths = [case.dtype, case.dtype] + [f"float{8 * state_bytes(case.dtype)}"] * states
            tensors = [torch.tensor(gradient), torch.tensor(values)]
            tensors += [torch.ones(*values.shape, dtype=dtype) for dtype in widths[2:]]
            self._memory += tensors
            pointers = [tensor.numpy().ctypes.data for tensor in tensors]
            for offset in range(0, values.size, PART_ELEMENTS):
                size = min(PART_ELEMENTS, values.size - offset)
                places = [pointer + offset * BYTES[dtype] for pointer, dtype in zip(pointers, widths)]
                ranges.append(_Range(size, *places[:2], (ctypes.c_void_p * MAX_STATES)(*places[2:])))
                filled += size
                if filled >= PART_ELEMENTS:
                    parts.append(_Part(begin, len(ranges)))
                    begin, filled = len(ranges), 0
        if begin < len(ranges):
            parts.append(_Part(begin, len(ranges)))
        if case.elements < SERIAL_ELEMENTS:
            parts = [_Part(0, len(ranges))]
        self._ranges, self._parts = (_Range * len(ranges))(*ranges), (_Part * len(parts))(*parts)
        function: Callable[..., int] = library().benchmark_limit
        # fmt: off
        arguments = (
            KINDS[case.kind], BYTES[case.dtype], state_bytes(case.dtype), states,
            ctypes.addressof(self._ranges), ctypes.addressof(self._parts), len(parts), case.threads,
        )
        # fmt: on
        if function(*arguments) != 0:
            raise ValueError(f"limit.cc has no loop for {case.name}")
        self._run = functools.partial(function, *arguments)

    def __call__(self) -> None:  # bound to the memory that it is to move
        self._run()
