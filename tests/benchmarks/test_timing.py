# SPDX-License-Identifier: BSD-2-Clause
"""Turns, with a clock that goes as the test says."""

import pytest

from benchmarks import timing
from benchmarks.timing import Settings, Side, alternate, pace, sample


class Clock:
    """Time passes when a call says so."""

    def __init__(self):
        self.now = 0.0
        self.slept = 0.0

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.slept += seconds
        self.now += seconds

    def takes(self, seconds):
        def call():
            self.calls = getattr(self, "calls", 0) + 1
            self.now += seconds

        return call


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_a_sample_is_the_mean_of_its_calls_after_a_warm_up(clock):
    assert sample(Side(clock.takes(1e-3)), 5) == pytest.approx(1e-3)
    assert clock.calls == 5 + 3  # 3 ms of warm-up


def test_what_comes_before_a_call_is_not_timed(clock):
    assert sample(Side(clock.takes(1e-3), before=clock.takes(1.0)), 4) == pytest.approx(1e-3)


def test_a_long_call_waits_instead(clock):
    assert sample(Side(clock.takes(0.2)), 1, long=True) == pytest.approx(0.2)
    assert (clock.calls, clock.slept) == (1, timing.WARM_UP_SECONDS)


def test_an_exception_leaves_the_garbage_collector_on():
    def fail():
        raise KeyError

    with pytest.raises(KeyError):
        sample(Side(fail), 1)
    assert timing.gc.isenabled()


@pytest.mark.parametrize(
    ("seconds", "repetitions", "long"),
    [(1e-5, 2000, False), (0.015, 2, False), (0.03, 1, False), (0.5, 1, True)],
)
def test_short_calls_are_repeated(seconds, repetitions, long):
    found = pace(lambda repetitions, long: seconds, Settings(seconds=0.02))
    assert (found.repetitions, found.long) == (repetitions, long)
    assert found.seconds == pytest.approx(seconds * repetitions + timing.WARM_UP_SECONDS)


def run(settings, seconds):
    """Alternate sides that take so long. Returns the samples and who had a turn when."""
    turned = []

    def turn(name):
        def turn(repetitions, long):
            turned.append(name)
            return seconds[name]

        return turn

    turns = {name: turn(name) for name in seconds}
    paces = {name: pace(turns[name], settings) for name in seconds}
    turned.clear()
    return alternate(turns, paces, settings), turned


def test_sides_take_turns_in_changing_order():
    samples, turned = run(Settings(rounds=9), {"a": 0.01, "b": 0.02, "c": 0.03})
    assert samples == {"a": [0.01] * 9, "b": [0.02] * 9, "c": [0.03] * 9}
    rounds = {tuple(turned[begin : begin + 3]) for begin in range(0, 27, 3)}
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(rounds) > 2


@pytest.mark.parametrize(("budget", "rounds"), [(100.0, 11), (8.1, 8), (0.1, 5)])
def test_rounds_follow_the_budget(budget, rounds):
    samples, _ = run(Settings(rounds=11, fewest_rounds=5, budget=budget), {"a": 1 - timing.WARM_UP_SECONDS})
    assert len(samples["a"]) == rounds
