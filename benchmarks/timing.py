# SPDX-License-Identifier: BSD-2-Clause
"""How a call is timed, and how the sides take turns."""

from __future__ import annotations

import gc
import math
import random
import time
from dataclasses import dataclass
from typing import Any, Callable, Mapping

# Of libgomp's threads, which wait for more work by spinning: for 10 ms if nobody says otherwise, which would
# be in the next one's turn; with this for about 1 ms, so that they are awake at the step's next operator.
SPIN = {"GOMP_SPINCOUNT": "30000"}
# So a turn begins with calls that are not timed, for longer than that: caches and threads are the side's own
# by then. A call that is long warms up by itself, and only waits.
WARM_UP_SECONDS = 0.003
LONG_SECONDS = 0.05


@dataclass(frozen=True)
class Settings:
    """`seconds`: of one sample at least; shorter calls are repeated. `budget`: of one case, about."""

    rounds: int = 11
    fewest_rounds: int = 5
    seconds: float = 0.02
    budget: float = 10.0


@dataclass(frozen=True)
class Side:
    """What is timed, and what must happen before each call without being timed."""

    call: Callable[[], Any]
    before: Callable[[], Any] | None = None


def _timed(side: Side, repetitions: int) -> float:
    clock, call, before = time.perf_counter, side.call, side.before
    if before is None:
        begin = clock()
        for _ in range(repetitions):
            call()
        return (clock() - begin) / repetitions
    total = 0.0
    for _ in range(repetitions):
        before()
        begin = clock()
        call()
        total += clock() - begin
    return total / repetitions


def sample(side: Side, repetitions: int, long: bool = False) -> float:
    """Seconds of one call, the mean of some. One turn: nothing else runs, the garbage collector neither."""
    end = time.perf_counter() + WARM_UP_SECONDS
    if long:
        time.sleep(WARM_UP_SECONDS)
    while time.perf_counter() < end:
        _timed(side, 1)
    gc.collect()
    gc.disable()
    try:
        return _timed(side, repetitions)
    finally:
        gc.enable()


# A turn of one side, wherever it runs: a function of `repetitions` and `long`, as `sample`.
Turn = Callable[[int, bool], float]


@dataclass(frozen=True)
class Pace:
    """How long a turn of a side is. `long`: a call of it warms up by itself."""

    repetitions: int
    long: bool
    seconds: float


def pace(turn: Turn, settings: Settings) -> Pace:
    """Look how long a call takes, after one that makes states, graphs and compiled code."""
    turn(1, False)
    once = min(turn(1, False), turn(1, False))
    if once < settings.seconds:  # a single call of some microseconds says little
        once = turn(min(20, math.ceil(settings.seconds / once)), False)
    repetitions = max(1, math.ceil(settings.seconds / once))
    return Pace(repetitions, once > LONG_SECONDS, once * repetitions + WARM_UP_SECONDS)


def alternate(
    turns: Mapping[str, Turn], paces: Mapping[str, Pace], settings: Settings
) -> dict[str, list[float]]:
    """Samples of all sides, by round. In each round every side has a turn, in a new order."""
    affordable = int(settings.budget / sum(pace.seconds for pace in paces.values()))
    rounds = max(settings.fewest_rounds, min(settings.rounds, affordable))
    samples: dict[str, list[float]] = {name: [] for name in turns}
    shuffle, names = random.Random(0).shuffle, list(turns)
    for _ in range(rounds):
        shuffle(names)
        for name in names:
            samples[name].append(turns[name](paces[name].repetitions, paces[name].long))
    return samples
