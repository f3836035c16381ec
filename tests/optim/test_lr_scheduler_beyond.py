# SPDX-License-Identifier: BSD-2-Clause
"""Where PyTorch divides by 0 or has no implementation, and the schedule goes on here."""

from __future__ import annotations

import pytest

from dragon_optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    LinearLR,
    OneCycleLR,
    PolynomialLR,
    SequentialLR,
)
from tests.optim.schedulers import MAKERS, go, lrs, rmsprop


def test_a_factor_of_0_ends():
    """PyTorch divides by 0."""
    optimizer = rmsprop(0.5)
    assert go(optimizer, ConstantLR(optimizer, 0.0, 2), 3) == [0.0, 0.5, 0.5]


def test_a_rise_of_one_step():
    """PyTorch divides by 0 where ``pct_start * total_steps`` is 1."""
    optimizer = rmsprop(0.5)
    OneCycleLR(optimizer, 1.0, 10, pct_start=0.1)
    assert lrs(optimizer) == [1.0]
    scheduler = OneCycleLR(rmsprop(), 1.0, 1, pct_start=1.0)
    assert scheduler.get_last_lr() == [1.0]


@pytest.mark.parametrize(
    ("make", "last"),
    [(lambda o: LinearLR(o, 0.5, total_iters=0), 0.5), (lambda o: PolynomialLR(o, total_iters=0), 1.0)],
    ids=["LinearLR", "PolynomialLR"],
)
def test_no_epochs_in_a_later_place(make, last):
    """PyTorch divides by 0 at the milestone. It stays at what it comes to alone."""
    alone, later = rmsprop(1.0), rmsprop(1.0)
    assert set(go(alone, make(alone), 3)) == {last}
    scheduler = SequentialLR(later, [ConstantLR(later, 0.25, 9), make(later)], [2])
    assert go(later, scheduler, 4) == [0.25, last, last, last]


@pytest.mark.parametrize("inner", ["SequentialLR", "ChainedScheduler"])
def test_a_scheduler_of_schedulers_in_a_later_place(inner):
    """PyTorch raises NotImplementedError at the milestone. It goes as it goes alone."""
    alone, nested = rmsprop(1.0), rmsprop(1.0)
    expected = [1.0 * 0.5, *go(alone, MAKERS[inner](alone), 5)]  # the first of both is ConstantLR's
    outer = SequentialLR(nested, [ConstantLR(nested, 0.1, 9), MAKERS[inner](nested)], [3])
    found = go(nested, outer, 8)
    assert found[:2] == [0.1, 0.1]
    assert found[2:] == expected


def constant(epochs):
    return lambda optimizer: ConstantLR(optimizer, 0.5, epochs)


def chained(*makers):
    return lambda optimizer: ChainedScheduler([make(optimizer) for make in makers])


def sequential(milestones, *makers):
    return lambda optimizer: SequentialLR(optimizer, [make(optimizer) for make in makers], milestones)


INNER = {
    "both": chained(MAKERS["SequentialLR"], MAKERS["ChainedScheduler"]),
    "sequential-last": chained(MAKERS["ChainedScheduler"], MAKERS["SequentialLR"]),
    "later": sequential([2], constant(9), chained(constant(2), MAKERS["StepLR"])),
}


@pytest.mark.parametrize("name", INNER)
def test_schedulers_of_schedulers_of_schedulers(name):
    """However deep, in a later place: as alone."""
    alone, nested = rmsprop(1.0), rmsprop(1.0)
    scheduler = INNER[name](alone)
    expected = [lrs(alone)[0], *go(alone, scheduler, 5)]
    outer = sequential([3], constant(9), INNER[name])(nested)
    assert go(nested, outer, 8)[2:] == expected


def test_milestones_count_from_where_it_begins():
    optimizer = rmsprop(1.0)
    first = sequential([2], constant(9), MAKERS["ExponentialLR"])
    outer = sequential([3], constant(9), sequential([4], first, MAKERS["StepLR"]))(optimizer)
    assert go(optimizer, outer, 8) == [0.5, 0.5, 0.5, 0.5, 1.0, 0.5, 1.0, 0.5]
