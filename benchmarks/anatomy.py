# SPDX-License-Identifier: BSD-2-Clause
"""Where the time of a small step goes: its parts, each timed alone."""

from __future__ import annotations

import math
import time
from typing import Any, Callable

import dragon

import dragon_optim
from benchmarks import dragon_sides
from benchmarks.cases import Case, step
from benchmarks.tables import Table, digits

CASES = {"1 x 100": step("1 x 100", threads=1), "1000 x 100": step("1000 x 100", threads=1)}
WHOLE = "step()"
GRAPH, GROUPS = "the graph: Dragon's call, check, update", "looking for changes in the groups"
GUARDS = "guards: workspace, trace, cleared workspace"
REST = "hooks, the lock, the process group, finding the graph"


def _graph(engine: Any) -> Any:
    (graph,) = engine.cache.current["step", False]
    return graph


def _fastest(calls: dict[str, Callable[[], Any]], repetitions: int) -> dict[str, float]:
    """Seconds of one call. The fastest of many turns: what disturbs one only makes it longer."""
    found = dict.fromkeys(calls, math.inf)
    for _ in range(60):
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(repetitions):
                call()
            found[name] = min(found[name], (time.perf_counter() - begin) / repetitions)
    return found


def dissect(case: Case) -> dict[str, float]:
    """Seconds of a step of this case, and of its parts."""
    dragon.set_num_threads(case.threads)
    with dragon_sides.own_workspace():
        return _dissect(case)


def _dissect(case: Case) -> dict[str, float]:
    optimizer = dragon_optim.RMSprop(dragon_sides.parameters(case), **case.options)
    for _ in range(3):
        optimizer.step()
    engine = optimizer._engine
    calls = {
        WHOLE: optimizer.step,
        GRAPH: _graph(engine).run,
        GROUPS: lambda: engine.sync(optimizer.param_groups),
        GUARDS: lambda: engine.guard("step()"),
    }
    found = _fastest(calls, repetitions=max(5, 300 // case.tensors))
    found[REST] = max(0.0, found[WHOLE] - found[GRAPH] - found[GROUPS] - found[GUARDS])
    return found


def measure() -> dict[str, dict[str, float]]:
    """What a run writes down."""
    return {name: dissect(case) for name, case in CASES.items()}


def table(measured: dict[str, dict[str, float]]) -> Table:
    """Microseconds."""
    parts = [WHOLE, GRAPH, GROUPS, GUARDS, REST]
    rows = [[part, *(digits(1e6 * found[part]) for found in measured.values())] for part in parts]
    return Table("The parts of a step, in microseconds", ["part", *measured], rows)


if __name__ == "__main__":
    print(table(measure()).as_text())
    print("\nmomentum, float32, 1 thread; each part alone, with everything in the caches")
