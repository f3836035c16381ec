# SPDX-License-Identifier: BSD-2-Clause
"""One `step()` of this package, of stock Dragon, and of a loop that only moves as many bytes.

The three take turns within one process, so that whatever slows the machine down slows all of them down.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import dragon
import numpy as np
from dragon import version as dragon_version
from dragon.core.framework import workspace
from dragon.vm import torch

import dragon_optim
from dragon_optim._dragon import library

ROOT = Path(__file__).resolve().parents[1]
LEAST_SECONDS = 0.005  # of one measurement: shorter steps are repeated


@dataclass(frozen=True)
class Case:
    name: str
    tensors: int
    size: int  # elements of each, float32
    options: dict = field(default_factory=dict)
    stock: bool = True  # whether stock Dragon has it

    @property
    def bytes_moved(self) -> int:
        """What the formula must read (gradient, parameter, states) and write (parameter, states)."""
        states = 1 + ("momentum" in self.options) + ("centered" in self.options)
        return (1 + 2 + 2 * states) * 4 * self.tensors * self.size


MOMENTUM = {"momentum": 0.9}
CASES = [
    Case("1 x 10M, plain", 1, 10_000_000),
    Case("1 x 10M, momentum", 1, 10_000_000, MOMENTUM),
    Case("1 x 10M, momentum + centered", 1, 10_000_000, dict(MOMENTUM, centered=True), stock=False),
    Case("161 x 16K, momentum", 161, 16 * 1024, MOMENTUM),
    Case("1000 x 100, momentum", 1000, 100, MOMENTUM),
]


def parameters(case: Case) -> list:
    """Parameters with gradients, put where a backward pass would put them."""
    random = np.random.default_rng(0)
    params = []
    for _ in range(case.tensors):
        param = torch.nn.Parameter(torch.tensor(random.standard_normal(case.size, "float32")))
        gradient = workspace.get_workspace().create_tensor(param.id + "_grad")
        gradient.FromNumpy(random.standard_normal(case.size, "float32"), True)
        params.append(param)
    return params


class Sweep:
    """numpy negates an array in place, of half the bytes that a step moves: each is read and written once.

    A stand-in for a loop in C over the step's own arrays. Not a copy from one array to another: the processor
    reads the memory that it is about to write, so that a copy moves half as much again as it seems to.
    """

    def __init__(self, nbytes: int, threads: int):
        size = nbytes // 8
        bounds = np.linspace(0, size, threads + 1).astype(int)
        self._parts = [np.ones(end - begin, "float32") for begin, end in zip(bounds, bounds[1:])]

    def __call__(self):
        # Threads of its own, since numpy computes with one; starting them costs some tens of microseconds.
        others = [threading.Thread(target=np.negative, args=(part, part)) for part in self._parts[1:]]
        for thread in others:
            thread.start()
        np.negative(self._parts[0], self._parts[0])
        for thread in others:
            thread.join()


def sides(case: Case, threads: int) -> dict:
    found = {"ours": dragon_optim.RMSprop(parameters(case), lr=1e-4, **case.options).step}
    if case.stock:
        found["stock"] = torch.optim.RMSprop(parameters(case), lr=1e-4, **case.options).step
    # Few bytes are swept by one thread: starting another would cost more than it saves.
    found["sweep"] = Sweep(case.bytes_moved, threads if case.bytes_moved > 1 << 22 else 1)
    return found


def seconds(call, repetitions: int) -> float:
    begin = time.perf_counter()
    for _ in range(repetitions):
        call()
    return (time.perf_counter() - begin) / repetitions


def measure(case: Case, rounds: int, threads: int) -> dict:
    """Seconds for one step: median and quartiles over the rounds, for each side."""
    calls = sides(case, threads)
    repetitions = {}
    for name, call in calls.items():
        seconds(call, 2)  # states are made, graphs are made
        repetitions[name] = max(1, int(LEAST_SECONDS / seconds(call, 1)))
    times: dict = {name: [] for name in calls}
    names = list(calls)
    for number in range(rounds):
        # Who comes first changes from round to round.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            times[name].append(seconds(calls[name], repetitions[name]))
    return {name: summary(values) for name, values in times.items()}


def summary(values: list) -> dict:
    lower, median, upper = statistics.quantiles(values, n=4)
    return {"median": median, "lower_quartile": lower, "upper_quartile": upper, "rounds": len(values)}


# --- what is printed and written ----------------------------------------------------------------------------


def cell(result) -> str:
    if result is None:
        return "-"
    spread = (result["upper_quartile"] - result["lower_quartile"]) / 2
    return f"{result['median'] * 1e3:.3f} +- {spread * 1e3:.3f}"


def row(case: Case, results: dict) -> list:
    ours, stock, sweep = (results.get(name) for name in ("ours", "stock", "sweep"))
    faster = f"{stock['median'] / ours['median']:.1f} x" if stock else "-"
    fraction = f"{sweep['median'] / ours['median']:.2f}"
    return [case.name, cell(ours), cell(stock), cell(sweep), faster, fraction]


HEADER = ["one step, float32", "ours (ms)", "stock (ms)", "sweep (ms)", "ours faster", "sweep / ours"]


def table(rows: list) -> str:
    widths = [max(map(len, column)) for column in zip(HEADER, *rows)]

    def line(cells):
        first, *others = zip(cells, widths)
        return "  ".join([first[0].ljust(first[1]), *[text.rjust(width) for text, width in others]])

    return "\n".join([line(HEADER), "  ".join("-" * width for width in widths), *map(line, rows)])


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def commit() -> str | None:
    """The commit of the sources, with a + where files differ from it; None outside of a repository."""
    try:
        git = ["git", "-C", str(ROOT)]
        name = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
        changes = subprocess.run(
            [*git, "status", "--porcelain"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return name.strip() + ("+" if changes else "")


def surroundings(threads: int) -> dict:
    """What the numbers depend on."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {
            "cpu": cpu_model(),
            "cpus": len(os.sched_getaffinity(0)),
            "platform": platform.platform(),
            "threads": threads,
            "instruction_set": library.instruction_set(),
        },
        "versions": {
            "dragon_optim": dragon_optim.__version__,
            "dragon": dragon_version.version,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21, help="measurements of each side, in turns (21)")
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="all CPUs by default"
    )
    parser.add_argument("--json", type=Path, default=ROOT / "out" / "benchmarks" / "large_step.json")
    arguments = parser.parse_args()
    dragon.set_num_threads(arguments.threads)
    report = dict(surroundings(arguments.threads), unit="seconds", cases={})
    rows = []
    for case in CASES:
        # A workspace for each case: its memory goes with it.
        with dragon.Workspace().as_default():
            results = measure(case, arguments.rounds, arguments.threads)
        report["cases"][case.name] = dict(results, bytes_moved=case.bytes_moved)
        rows.append(row(case, results))
    print(table(rows))
    machine = report["machine"]
    print(
        f"\nMedians over {arguments.rounds} rounds +- half the distance of the quartiles; {machine['cpu']}, "
        f"{arguments.threads} threads, {machine['instruction_set']}."
    )
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {arguments.json}")


if __name__ == "__main__":
    main()
