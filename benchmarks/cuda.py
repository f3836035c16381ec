# SPDX-License-Identifier: BSD-2-Clause
"""One step on a GPU: these kernels, PyTorch's RMSprop in all its ways, and a copy that moves as many bytes.

`python benchmarks/cuda.py` builds the kernels for this card and takes some minutes. It needs nvcc, g++, NumPy
and PyTorch; no Dragon. README.md says how to read the table; the numbers go to out/benchmarks/cuda.json.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from tests.kernels import device_memory, library  # noqa: E402
from tests.kernels.cuda_library import BUILT, CudaLibrary, build  # noqa: E402

LEAST_SECONDS = 0.02  # of one measurement: shorter steps are repeated
COMPILE_SECONDS = 150  # for torch.compile, all cases together; what comes later is left out
NO_GPU = 3
LR = 1e-4


@dataclass(frozen=True)
class Case:
    name: str
    tensors: int
    size: int  # elements of each, float32
    options: dict = field(default_factory=dict)

    @property
    def bytes_moved(self) -> int:
        """What the formula must read (gradient, parameter, states) and write (parameter, states)."""
        states = 1 + ("momentum" in self.options) + ("centered" in self.options)
        return (1 + 2 + 2 * states) * 4 * self.tensors * self.size

    @property
    def is_large(self) -> bool:
        return self.tensors == 1 and self.size >= 1_000_000


MOMENTUM = {"momentum": 0.9}
CENTERED = dict(MOMENTUM, centered=True)
CASES = [
    Case("1 x 10M, plain", 1, 10_000_000),
    Case("1 x 10M, momentum", 1, 10_000_000, MOMENTUM),
    Case("1 x 10M, momentum + centered", 1, 10_000_000, CENTERED),
    Case("1 x 16M, momentum", 1, 1 << 24, MOMENTUM),
    Case("1 x 64M, plain", 1, 1 << 26),
    Case("1 x 64M, momentum", 1, 1 << 26, MOMENTUM),
    Case("161 x 16K, momentum", 161, 16 * 1024, MOMENTUM),
    Case("1000 x 100, momentum", 1000, 100, MOMENTUM),
    Case("1 x 100, momentum", 1, 100, MOMENTUM),
]


def parameters(torch, case: Case) -> list:
    """Parameters with gradients."""
    made = []
    for _ in range(case.tensors):
        param = torch.nn.Parameter(torch.randn(case.size, device="cuda"))
        param.grad = torch.randn(case.size, device="cuda")
        made.append(param)
    return made


class Ours:
    """The C function, given the same list of tensors at each step."""

    def __init__(self, torch, case: Case):
        self.cuda = CudaLibrary(BUILT / "libdragon_optim_cuda.so")
        self._torch = torch
        self.kept = [self._buffers(torch, param, case) for param in parameters(torch, case)]
        self.options = library.make_options(dict(case.options, lr=LR))
        self.tensors = (library.Tensor * case.tensors)()
        for tensor, (_, buffers) in zip(self.tensors, self.kept):
            tensor.size = case.size
            for name, buffer in buffers.items():
                setattr(tensor, name, buffer.data_ptr())

    @staticmethod
    def _buffers(torch, param, case: Case) -> tuple:
        buffers = {"param": param, "grad": param.grad, "square_avg": torch.zeros_like(param)}
        if "momentum" in case.options:
            buffers["momentum_buffer"] = torch.zeros_like(param)
        if "centered" in case.options:
            buffers["grad_avg"] = torch.zeros_like(param)
        return param, buffers

    def launch(self, stream: int, numbers: int | None = None) -> None:
        self.cuda.stream = stream
        count, nothing = ctypes.c_int64(len(self.tensors)), ctypes.c_int64(0)
        options, numbers = ctypes.byref(self.options), ctypes.c_void_p(numbers)
        self.cuda.call("rmsprop", 1, 1, options, numbers, None, self.tensors, count, None, nothing)

    def __call__(self) -> None:
        self.launch(self._torch.cuda.current_stream().cuda_stream)


def captured(torch, case: Case):
    """The same in a CUDA graph, with the numbers in device memory."""
    ours = Ours(torch, case)
    values = [getattr(ours.options, name) for name in library.NUMBERS]
    numbers = torch.tensor(values, dtype=torch.float64, device="cuda")
    ours.launch(torch.cuda.current_stream().cuda_stream, numbers.data_ptr())
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ours.launch(torch.cuda.current_stream().cuda_stream, numbers.data_ptr())
    graph.kept = (ours, numbers)
    return graph.replay


def torchs(torch, case: Case, **ways):
    return torch.optim.RMSprop(parameters(torch, case), lr=LR, **case.options, **ways)


def torch_graph(torch, case: Case):
    optimizer = torchs(torch, case, foreach=True, capturable=True)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())  # the parameters are made there
    with torch.cuda.stream(stream):
        for _ in range(3):
            optimizer.step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    graph.kept = optimizer
    return graph.replay


def torch_compiled(torch, case: Case):
    # Else a case would be compiled for all sizes, because an earlier one had another.
    torch.compiler.reset()
    optimizer = torchs(torch, case, foreach=True, capturable=True)
    step = torch.compile(lambda: optimizer.step())
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    return step


def copy(torch, case: Case):
    """Of half the bytes, each of which is read and written."""
    source = torch.ones(case.bytes_moved // 8, device="cuda")
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


class Compiling:
    """How long torch.compile has taken so far."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self, torch, case: Case):
        begin = time.monotonic()
        step = torch_compiled(torch, case)
        self.seconds += time.monotonic() - begin
        return step


def sides(torch, case: Case, compiling: Compiling | None) -> dict:
    found = {
        "ours": Ours(torch, case),
        "ours, graph": captured(torch, case),
        "for-loop": torchs(torch, case, foreach=False).step,
        "foreach": torchs(torch, case, foreach=True).step,
        "graph": torch_graph(torch, case),
        "copy": copy(torch, case),
    }
    if compiling is not None and case.is_large and compiling.seconds < COMPILE_SECONDS:
        found["compile"] = compiling(torch, case)
    return found


def seconds(torch, call, repetitions: int) -> float:
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(repetitions):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / repetitions


def measure(torch, case: Case, rounds: int, compiling: Compiling | None) -> dict:
    """Seconds for one step: median and quartiles over the rounds, for each side."""
    calls = sides(torch, case, compiling)
    repetitions = {}
    for name, call in calls.items():
        seconds(torch, call, 3)
        repetitions[name] = max(1, int(LEAST_SECONDS / seconds(torch, call, 3)))
    times: dict = {name: [] for name in calls}
    names = list(calls)
    for number in range(rounds):
        # Who comes first changes from round to round.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            times[name].append(seconds(torch, calls[name], repetitions[name]))
    results = {}
    for name, values in times.items():
        lower, median, upper = statistics.quantiles(values, n=4)
        results[name] = {"median": median, "lower_quartile": lower, "upper_quartile": upper}
        results[name]["gigabytes_per_second"] = case.bytes_moved / median / 1e9
    return results


SIDES = ["ours", "ours, graph", "for-loop", "foreach", "graph", "compile", "copy"]


def row(case: Case, results: dict) -> list:
    def time_of(name):
        return f"{results[name]['median'] * 1e6:.1f}" if name in results else "-"

    ours = results["ours"]["median"]
    return [
        case.name,
        *map(time_of, SIDES),
        f"{results['copy']['median'] / ours:.2f}",
        f"{results['foreach']['median'] / ours:.1f} x",
        f"{results['for-loop']['median'] / ours:.1f} x",
    ]


HEADER = ["one step, float32 (us)", *SIDES, "copy / ours", "to foreach", "to for-loop"]


def table(rows: list) -> str:
    widths = [max(map(len, column)) for column in zip(HEADER, *rows)]

    def line(cells):
        first, *others = zip(cells, widths)
        return "  ".join([first[0].ljust(first[1]), *[text.rjust(width) for text, width in others]])

    return "\n".join([line(HEADER), *map(line, rows)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="measurements of each side, in turns (15)")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--built", action="store_true", help="take the library in build/native as it is")
    parser.add_argument("--json", type=Path, default=ROOT / "out" / "benchmarks" / "cuda.json")
    arguments = parser.parse_args()
    try:
        memory = device_memory.find("torch")
    except device_memory.NoGpuError as error:
        print(error)
        return NO_GPU
    if not arguments.built:
        build(memory.capability)
    import torch

    report = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "card": memory.card,
        "versions": {"torch": torch.__version__, "cuda": torch.version.cuda, "numpy": np.__version__},
        "unit": "seconds",
        "cases": {},
    }
    compiling = None if arguments.no_compile else Compiling()
    rows = []
    for case in CASES:
        results = measure(torch, case, arguments.rounds, compiling)
        report["cases"][case.name] = dict(results, bytes_moved=case.bytes_moved)
        rows.append(row(case, results))
        print(f"  measured: {case.name}", flush=True)
        torch.cuda.empty_cache()
    print(table(rows))
    print(f"\nMedians over {arguments.rounds} rounds; {report['card']}, torch {torch.__version__}.")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {arguments.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
