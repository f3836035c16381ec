# SPDX-License-Identifier: BSD-2-Clause
"""One run: every case, side by side, and what is written about it."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Sequence

import dragon
from tqdm import tqdm

from benchmarks import anatomy, dragon_sides, machine, overview, timing
from benchmarks.cases import Case
from benchmarks.commit import commit
from benchmarks.results import Results
from benchmarks.summary import summary
from benchmarks.timing import SPIN, Settings, Turn
from benchmarks.torch_process import TorchError, TorchProcess, find_python
from benchmarks.traffic import BYTES, bytes_moved, state_bytes

NOT_COMPILED = "compiling a list takes half a minute and more: --full"
FITTING = 0.8  # of the memory that is available


class Torch:
    """PyTorch's process while there is one, and why there is none."""

    def __init__(self, wanted: bool, log: Path) -> None:
        self.process: TorchProcess | None = None
        self.missing: str | None = None if wanted else "left out by --no-torch"
        if wanted:
            try:
                self.process = TorchProcess(find_python(), log)
            except TorchError as error:
                self.missing = str(error)

    def lose(self, why: str) -> None:
        self.process, self.missing = None, why

    def turns(self, case: Case, folder: Path) -> dict[str, Turn]:
        return self.process.turns(case, folder) if self.process else {}

    def processes(self) -> list[int]:
        return [self.process.number] if self.process else []

    def versions(self) -> dict[str, str]:
        return self.process.versions if self.process else {}

    def state_buffers(self) -> dict[str, float]:
        return self.process.ask("state_buffers") if self.process else {}


def needed_memory(case: Case, sides: int) -> int:
    """Bytes that the sides of a case hold at once, about: stock Dragon has a buffer more than it needs."""
    states = case.states + (case.dtype == "float16") + 1
    return sides * case.elements * (2 * BYTES[case.dtype] + states * state_bytes(case.dtype))


def measure(case: Case, settings: Settings, torch: Torch, folder: Path) -> dict[str, Any]:
    """The samples of all sides, and why some are missing."""
    dragon.set_num_threads(case.threads)
    with dragon_sides.own_workspace():
        return _measure(case, settings, torch, folder)


def _measure(case: Case, settings: Settings, torch: Torch, folder: Path) -> dict[str, Any]:
    turns: dict[str, Turn] = {
        name: functools.partial(timing.sample, side) for name, side in dragon_sides.make(case, folder).items()
    }
    paces = {name: timing.pace(turn, settings) for name, turn in turns.items()}
    absent = {} if dragon_sides.STOCK in turns else {dragon_sides.STOCK: dragon_sides.NO_CENTERED}
    try:
        of_torch = torch.turns(case, folder)
    except TorchError as error:
        of_torch, absent["torch"] = {}, str(error)
    if of_torch and case.kind == "step" and not case.compiled:
        absent["torch.compile"] = NOT_COMPILED
    for name, turn in of_torch.items():
        try:
            paces[name] = timing.pace(turn, settings)
            turns[name] = turn
        except TorchError as error:
            absent[name] = str(error)
    try:
        samples = timing.alternate(turns, paces, settings)
    except TorchError as error:  # its process has ended in the middle of the rounds
        torch.lose(f"{error}, in {case.name!r}")
        turns = {name: turn for name, turn in turns.items() if name not in of_torch}
        paces = {name: paces[name] for name in turns}
        samples = timing.alternate(turns, paces, settings)
    return {"sides": {name: summary(values) for name, values in samples.items()}, "absent": absent}


def describe(case: Case) -> dict[str, Any]:
    fields = {name: value for name, value in dataclasses.asdict(case).items() if name != "compiled"}
    sizes = {"tensors": case.tensors, "elements": case.elements, "bytes": bytes_moved(case)}
    return {"name": case.name, **fields, **sizes}


def run(cases: Sequence[Case], settings: Settings, torch: Torch, folder: Path) -> dict[str, Any]:
    """The results of all cases."""
    found = []
    progress = tqdm(cases, unit="case", dynamic_ncols=True, disable=None)
    for case in progress:
        progress.set_description(case.name)
        available = machine.available_memory()
        if available is not None and needed_memory(case, sides=6) > FITTING * available:
            absent = {"all": "it needs more memory than there is"}
            found.append({**describe(case), "other_programs": 0.0, "sides": {}, "absent": absent})
            continue
        others = machine.OtherPrograms([os.getpid(), *torch.processes()])
        measured = measure(case, settings, torch, folder)
        found.append({**describe(case), "other_programs": others.cpus(), **measured})
    buffers = {**dragon_sides.state_buffers(), **torch.state_buffers()}
    return {"cases": found, "state_buffers": buffers, "anatomy": anatomy.measure()}


def as_json(results: dict[str, Any]) -> str:
    """Indented, but with the samples of a side in one line."""
    text = json.dumps(results, indent=1)
    return re.sub(r"\[[\d\s.,e+-]*\]", lambda found: " ".join(found.group().split()), text) + "\n"


def _draw(results: Results, folder: Path) -> None:
    try:
        from benchmarks import plots
    except ImportError as error:
        print(f"No plots: {error}")
        return
    paths = plots.draw(results, folder)
    if paths:
        print("Plots:", *paths)


def main(
    cases: Sequence[Case], settings: Settings, chosen: dict[str, Any], with_torch: bool, output: Path
) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    torch = Torch(with_torch, output.parent / "torch.log")
    began = datetime.datetime.now(datetime.timezone.utc)
    try:
        # On the disk of the sources: that of /tmp may be memory.
        with tempfile.TemporaryDirectory(dir=output.parent) as folder:
            found = run(cases, settings, torch, Path(folder))
    finally:
        if torch.process:
            torch.process.close()
    seconds = (datetime.datetime.now(datetime.timezone.utc) - began).total_seconds()
    results = {
        "date": began.isoformat(timespec="seconds"),
        "seconds": round(seconds),
        "commit": commit(),
        "settings": {
            **chosen,
            **dataclasses.asdict(settings),
            "environment": {name: os.environ.get(name) for name in SPIN},
        },
        "machine": machine.machine(),
        "versions": {**machine.versions(), **torch.versions()},
        "missing": {"torch": torch.missing} if torch.missing else {},
        **found,
    }
    output.write_text(as_json(results), encoding="utf-8")
    print(overview.everything(Results(results)))
    print(f"\nResults: {output}")
    _draw(Results(results), output.parent)
