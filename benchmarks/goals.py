# SPDX-License-Identifier: BSD-2-Clause
"""What is to be reached, and whether it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Sequence, Tuple

from benchmarks.cases import TRAIN, Case, step
from benchmarks.results import CAPTURED, COMPILED, FOREACH, LIMIT, OURS, STOCK, Measured, Results
from benchmarks.tables import Table, digits, milliseconds

OTHERS = (STOCK, FOREACH, COMPILED)
HEADER = ("goal", "limit", *OTHERS, OURS, "wanted", "reached")

# What is said of the others, of ours, and whether the goal is reached.
Verdict = Tuple[Callable[[str], str], str, bool]


@dataclass(frozen=True)
class Goal:
    """`judge` gives None where a side that it needs was not measured."""

    label: str
    case: Case
    wanted: str
    judge: Callable[[Measured], Verdict | None]

    def row(self, results: Results) -> Sequence[str]:
        measured = results.find(self.case)
        verdict = self.judge(measured) if measured is not None and measured.has(OURS) else None
        if measured is None or verdict is None:
            return (self.label, *("-",) * (len(OTHERS) + 2), self.wanted, "not measured")
        say, ours, reached = verdict
        others = [say(side) if measured.has(side) else "-" for side in OTHERS]
        limit = f"{milliseconds(measured.median(LIMIT))} ms" if measured.has(LIMIT) else "-"
        return (self.label, limit, *others, ours, self.wanted, "yes" if reached else "no")


def within(times: float) -> Callable[[Measured], Verdict | None]:
    """Multiples of the limit."""

    def judge(measured: Measured) -> Verdict | None:
        if not measured.has(LIMIT):
            return None

        def say(side: str) -> str:
            return digits(measured.ratio(side, LIMIT))

        return say, say(OURS), measured.ratio(OURS, LIMIT) <= times

    return judge


def faster(times: float) -> Callable[[Measured], Verdict | None]:
    """Than the faster of stock Dragon and PyTorch's foreach, as far as they were measured."""

    def judge(measured: Measured) -> Verdict | None:
        rivals = [measured.ratio(side, OURS) for side in (STOCK, FOREACH) if measured.has(side)]
        if not rivals:
            return None
        ours = f"{_ms(measured)(OURS)}, {digits(min(rivals), 2)} x"
        return _ms(measured), ours, min(rivals) >= times

    return judge


def under(seconds: float) -> Callable[[Measured], Verdict | None]:
    def judge(measured: Measured) -> Verdict | None:
        return _ms(measured), _ms(measured)(OURS), measured.median(OURS) <= seconds

    return judge


def captured(times: float) -> Callable[[Measured], Verdict | None]:
    """Captured training steps, as multiples of stock Dragon's eager speed."""

    def judge(measured: Measured) -> Verdict | None:
        if not measured.has(CAPTURED, STOCK):
            return None
        speed = measured.ratio(STOCK, CAPTURED)
        return _ms(measured), f"{_ms(measured)(CAPTURED)}, {digits(speed, 2)} x", speed >= times

    return judge


def _ms(measured: Measured) -> Callable[[str], str]:
    return lambda side: f"{milliseconds(measured.median(side))} ms"


def goals(threads: int) -> list[Goal]:
    def case(parameters: str, variant: str = "momentum") -> Case:
        return step(parameters, variant, threads=threads)

    limit, near = "<= 1.10 x limit", "<= 1.25 x limit"
    return [
        Goal("1 x 10M", case("1 x 10M", "plain"), limit, within(1.10)),
        Goal("1 x 10M, momentum", case("1 x 10M"), limit, within(1.10)),
        Goal("1 x 10M, momentum + centered", case("1 x 10M", "momentum + centered"), limit, within(1.10)),
        Goal("161 x 16K, momentum", case("161 x 16K"), near, within(1.25)),
        Goal("1000 x 100, momentum", case("1000 x 100"), ">= 50 x faster", faster(50)),
        Goal("1 x 100, momentum", case("1 x 100"), "<= 0.015 ms", under(0.015e-3)),
    ]


TRAINING = Goal("a training step, captured", TRAIN, ">= 4 x stock, eager", captured(4))


def _memory(results: Results) -> Sequence[str]:
    buffers = {side: digits(value, 2) for side, value in results.state_buffers.items()}
    others = [buffers.get(side, "-") for side in OTHERS]
    return (
        "state, in buffers",
        "-",
        *others,
        buffers[OURS],
        "1",
        "yes" if results.state_buffers[OURS] <= 1.01 else "no",
    )


def tables(results: Results) -> list[Table]:
    two = [goal.row(results) for goal in goals(2)] + [TRAINING.row(results), _memory(results)]
    one = [goal.row(results) for goal in goals(1)]
    note = "where no unit stands, multiples of the limit"
    return [
        Table(f"Goals, 2 threads ({note})", HEADER, two),
        Table(f"The same with 1 thread ({note})", HEADER, one),
    ]
