# SPDX-License-Identifier: BSD-2-Clause
"""One step on a GPU: these kernels, PyTorch's RMSprop in all its ways, and a copy that moves as many bytes.

`python benchmarks/cuda.py` builds the kernels for this card and takes some minutes. It needs nvcc, g++, NumPy
and PyTorch; no Dragon. README.md says how to read the tables; the numbers go to out/benchmarks/cuda.json, as
soon as a case is measured.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import platform
import random
import re
import signal
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
# Without this folder, where Python looks first: this file would be the `cuda` of which PyTorch takes NVIDIA's
# bindings.
sys.path[:] = [str(ROOT), *(path for path in sys.path if Path(path).resolve() != HERE)]

import numpy as np  # noqa: E402

from benchmarks import cuda_results, cuda_sides  # noqa: E402
from benchmarks.commit import commit  # noqa: E402
from benchmarks.cuda_results import COMPILED, KIND, OURS, SIDES  # noqa: E402
from benchmarks.cuda_sides import Case  # noqa: E402
from benchmarks.summary import summary  # noqa: E402
from tests.kernels import card, device_memory  # noqa: E402
from tests.kernels.cuda_library import build, nvcc_version  # noqa: E402

LEAST_SECONDS = 0.02  # of one measurement: shorter steps are repeated
COMPILE_SECONDS = 150  # for torch.compile, all cases together; what comes later is left out
NO_GPU = 3


class Compiling:
    """torch.compile, as long as it takes not too long and does not fail."""

    def __init__(self, wanted: bool):
        self.seconds = 0.0
        self.refused = "" if wanted else "left out by --no-compile"

    def refuses(self, case: Case) -> str:
        """Why it takes no part in this case; nothing where it does."""
        if not cuda_results.is_large(case.tensors, case.elements):
            return "only large tensors"
        if not self.refused and self.seconds >= COMPILE_SECONDS:
            self.refused = f"the cases before took {self.seconds:.0f} s to compile"
        return self.refused

    def __call__(self, torch, case: Case):
        begin = time.monotonic()
        signal.signal(signal.SIGALRM, too_long)
        signal.setitimer(signal.ITIMER_REAL, COMPILE_SECONDS - self.seconds)
        try:
            return cuda_sides.torch_compiled(torch, case)
        except Exception as error:
            self.refused = said(error)
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.seconds += time.monotonic() - begin


def too_long(_signal, _frame):
    raise TimeoutError(f"not compiled within the {COMPILE_SECONDS:g} s that all cases have")


def said(error: Exception) -> str:
    """Its first words: the cause of what PyTorch's compiler throws stands in the second line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def seconds(torch, call, repetitions: int) -> float:
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(repetitions):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / repetitions


def prepare(torch, case: Case, compiling: Compiling) -> tuple[dict, dict, dict]:
    """What to call, how often for one measurement, and why some sides are missing."""
    calls, repetitions, absent = {}, {}, {}
    for name in SIDES:
        refused = compiling.refuses(case) if name == COMPILED else ""
        if refused:
            absent[name] = refused
            continue
        try:
            call = (compiling if name == COMPILED else cuda_sides.MAKERS[name])(torch, case)
            seconds(torch, call, 3)
            repetitions[name] = max(1, int(LEAST_SECONDS / seconds(torch, call, 3)))
            calls[name] = call
        except Exception as error:  # the others go on
            traceback.print_exc(limit=-3, file=sys.stdout)
            absent[name] = said(error)
    return calls, repetitions, absent


def measure(torch, case: Case, rounds: int, compiling: Compiling) -> dict:
    """One entry of the results. In each round every side has a turn, in an order drawn anew."""
    calls, repetitions, absent = prepare(torch, case, compiling)
    samples: dict = {name: [] for name in calls}
    shuffle, names = random.Random(0).shuffle, list(calls)
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffle(names)
            for name in names:
                samples[name].append(seconds(torch, calls[name], repetitions[name]))
    finally:
        gc.enable()
    clocks = card.ask(card.CLOCKS)  # at once, before they go down
    try:
        launches = cuda_sides.launches(torch, calls[OURS]) if OURS in calls else None
    except Exception as error:
        launches, absent["launches"] = None, said(error)
    return {
        "name": case.name,
        "tensors": case.tensors,
        "elements": case.elements,
        "bytes": case.bytes_moved,
        "launches": launches,
        "clocks": clocks,
        "repetitions": repetitions,
        "sides": {name: summary(values) for name, values in samples.items()},
        "absent": absent,
    }


def describe(torch, memory, arguments) -> dict:
    properties = torch.cuda.get_device_properties(0)
    return {
        "kind": KIND,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": arguments.commit or commit(),
        "card": {
            "name": memory.card,
            "capability": memory.capability,
            "l2_bytes": getattr(properties, "L2_cache_size", None),
            **card.ask(card.DRIVER),
        },
        "versions": {
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "nvcc": nvcc_version(),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "settings": {"quick": arguments.quick, "rounds": arguments.rounds, "least_seconds": LEAST_SECONDS},
        "unit": "seconds",
        "cases": [],
    }


def write(report: dict, path: Path) -> None:
    """The samples of a side in one line."""
    text = json.dumps(report, indent=1)
    text = re.sub(r"\[[\d\s.,e+-]*\]", lambda found: " ".join(found.group().split()), text)
    card.write_whole(path, text + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two cases, three rounds: does everything work?")
    parser.add_argument("--rounds", type=int, help="measurements of each side, in turns (15)")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--built", action="store_true", help="take the library in build/native as it is")
    parser.add_argument("--commit", help="of these sources, where there is no git to ask")
    parser.add_argument(
        "--json",
        type=Path,
        default=ROOT / "out" / "benchmarks" / "cuda.json",
        help="for the results (out/benchmarks/cuda.json)",
    )
    arguments = parser.parse_args()
    if arguments.rounds is None:
        arguments.rounds = 3 if arguments.quick else 15
    if arguments.rounds < 2:
        parser.error(f"--rounds {arguments.rounds}: a spread needs at least 2")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    card.count_as_nvidia_smi_does()
    try:
        memory = device_memory.find("torch")
    except device_memory.NoGpuError as error:
        print(error)
        return NO_GPU
    begin = time.monotonic()
    if not arguments.built:
        build(memory.capability)
    import torch

    report = describe(torch, memory, arguments)
    compiling = Compiling(not arguments.no_compile)
    for case in cuda_sides.QUICK if arguments.quick else cuda_sides.CASES:
        report["cases"].append(measure(torch, case, arguments.rounds, compiling))
        report["seconds"] = round(time.monotonic() - begin, 1)
        write(report, arguments.json)
        print(f"  measured: {case.name} ({report['seconds']} s so far)", flush=True)
        gc.collect()
        torch.cuda.empty_cache()
    print(cuda_results.as_text(report))
    print(f"\nMedians over {arguments.rounds} rounds. Written to {arguments.json}")
    return 0 if all(OURS in case["sides"] for case in report["cases"]) else 1


if __name__ == "__main__":
    sys.exit(main())
