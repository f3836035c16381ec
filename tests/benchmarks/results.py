# SPDX-License-Identifier: BSD-2-Clause
"""Results that nobody measured."""

from __future__ import annotations

from benchmarks.cases import Case
from benchmarks.results import Results
from benchmarks.run import describe
from benchmarks.summary import summary


def entry(case: Case, absent=None, other_programs=0.01, **medians: float) -> dict:
    """What a run writes about a case, from milliseconds of its sides in three rounds a tenth apart."""
    sides = {
        name.replace("_", " ") if name.startswith("torch") else name: summary(
            [1e-3 * median * factor for factor in (1.0, 0.9, 1.1)]
        )
        for name, median in medians.items()
    }
    return {**describe(case), "other_programs": other_programs, "sides": sides, "absent": absent or {}}


def made_up(*entries: dict, missing=None) -> Results:
    return Results(
        {
            "date": "2020-02-29T12:00:00+00:00",
            "commit": "0123456789abcdef+",
            "machine": {"cpu": "an abacus", "cpus": 2, "caches": ["L1 beads"], "instruction set": "fingers"},
            "versions": {"dragon": "0.3.0", "torch": "2.13.0"},
            "missing": missing or {},
            "cases": list(entries),
            "state_buffers": {"dragon_optim": 1.0, "stock": 2.0},
        }
    )
