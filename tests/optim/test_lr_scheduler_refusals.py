# SPDX-License-Identifier: BSD-2-Clause
"""Schedulers of hostile input: a Python exception, and nothing has changed, in no group."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim import lr_scheduler
from dragon_optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    MultiplicativeLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from tests.golden import schedules
from tests.optim.bad_schedules import REFUSED, fails
from tests.optim.schedulers import MAKERS
from tests.optim.support import backward, parameter

NAN = math.nan


def rmsprop(*rates):
    groups = [{"params": [parameter([1.0])], "lr": rate} for rate in rates or (0.1, 0.2)]
    return dragon_optim.RMSprop(groups)


def groups_of(optimizer):
    return [dict(group) for group in optimizer.param_groups]


# --- making them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    case, optimizer = REFUSED[name], rmsprop()
    # What is combined must be made first: the scheduler that is refused is the last.
    before = groups_of(optimizer) if "sequential" not in name and "chained" not in name else None
    with pytest.raises(case.exception, match=case.match):
        case.make(lr_scheduler, optimizer)
    if before is not None:
        assert groups_of(optimizer) == before
    for group in optimizer.param_groups:
        backward(group["params"][0], 1.0)
    optimizer.step()
    assert optimizer.state[optimizer.param_groups[1]["params"][0]]["step"] == 1


def test_what_pytorch_makes_of_the_same():
    recorded = schedules.load()["refused"]
    assert recorded == {
        name: case.exception.__name__ if case.torch == "the same" else case.torch
        for name, case in REFUSED.items()
    }


class NoGroups:
    def step(self):
        pass


class NoRate(NoGroups):
    def __init__(self):
        self.param_groups = [{"params": []}]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("wrong", [None, -1, "adam", NoGroups(), dragon_optim.RMSprop, torch.nn.Linear(2, 2)])
def test_no_optimizer(name, wrong):
    with pytest.raises(TypeError, match="is not an Optimizer"):
        MAKERS[name](wrong)


def test_groups_without_a_rate():
    with pytest.raises(KeyError, match=r"param_groups\[0\] lacks 'lr'"):
        StepLR(NoRate(), 1)


def test_schedulers_of_two_optimizers():
    one, other = rmsprop(), rmsprop()
    parts = [StepLR(one, 1), StepLR(other, 1)]
    before = groups_of(one), groups_of(other)
    for make in (lambda: SequentialLR(one, parts, [3]), lambda: ChainedScheduler(parts)):
        with pytest.raises(
            ValueError, match="expects all schedulers to belong to the same optimizer.*index 1"
        ):
            make()
    with pytest.raises(ValueError, match="same optimizer.*index 0"):
        ChainedScheduler([parts[1]], optimizer=one)
    assert (groups_of(one), groups_of(other)) == before
    assert [part.last_epoch for part in parts] == [0, 0]


def test_schedulers_that_are_none():
    class Bare:
        optimizer = None

    optimizer = rmsprop()
    with pytest.raises(TypeError, match="at index 1 must be a scheduler of this package"):
        ChainedScheduler([StepLR(optimizer, 1), Bare()])
    with pytest.raises(TypeError, match="schedulers must be a list"):
        ChainedScheduler(StepLR(optimizer, 1))
    with pytest.raises(TypeError, match="milestones must be a list"):
        SequentialLR(optimizer, [StepLR(optimizer, 1)], 3)


@pytest.mark.parametrize("name", ["OneCycleLR", "CyclicLR"])
def test_resuming_without_the_keys_of_the_groups(name):
    optimizer = rmsprop()
    for group in optimizer.param_groups:
        group["initial_lr"] = 0.1
    before = groups_of(optimizer)
    if name == "OneCycleLR":
        with pytest.raises(KeyError, match=r"param_groups\[0\] lacks '(initial|max|min)_lr'"):
            OneCycleLR(optimizer, 0.1, 10, last_epoch=5)
    else:
        with pytest.raises(ValueError, match="Invalid base_lr value: nan"):
            CyclicLR(optimizer, [0.1, NAN], 0.2, last_epoch=5)
    assert groups_of(optimizer) == before


# --- steps ----------------------------------------------------------------------------------------


def later(epoch):
    """Fails at the third epoch."""
    return 0.5 if epoch < 3 else fails(epoch)


STEPS = {
    "LambdaLR": lambda optimizer: LambdaLR(optimizer, [lambda epoch: 0.9**epoch, later]),
    "MultiplicativeLR": lambda optimizer: MultiplicativeLR(optimizer, [lambda epoch: 0.9, later]),
    "CyclicLR": lambda optimizer: CyclicLR(optimizer, 0.1, 0.2, 9, scale_fn=later, scale_mode="iterations"),
    "ChainedScheduler": lambda optimizer: ChainedScheduler(
        [ExponentialLR(optimizer, 0.5), StepLR(optimizer, 1), LambdaLR(optimizer, later)]
    ),
    "SequentialLR": lambda optimizer: SequentialLR(
        optimizer, [ExponentialLR(optimizer, 0.5), MultiplicativeLR(optimizer, at_0)], [3]
    ),
}


def at_0(epoch):
    """Fails where its turn begins."""
    return fails(epoch) if epoch == 0 else 1.0


@pytest.mark.parametrize("kind", ["numbers", "tensors"])
@pytest.mark.parametrize("name", STEPS)
def test_a_function_that_raises_later(name, kind):
    """All or nothing: no group, none of the schedulers. It raises again."""
    rates = (0.1, 0.2) if kind == "numbers" else (torch.tensor(0.1), torch.tensor(0.2))
    optimizer = rmsprop(*rates)
    scheduler = STEPS[name](optimizer)
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    numbers = [float(group["lr"]) for group in optimizer.param_groups]
    before, state = groups_of(optimizer), copy.deepcopy(scheduler.state_dict())
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="in the user's function"):
            scheduler.step()
        assert [float(group["lr"]) for group in optimizer.param_groups] == numbers
        assert [{k: v for k, v in group.items() if k != "lr"} for group in groups_of(optimizer)] == [
            {k: v for k, v in group.items() if k != "lr"} for group in before
        ]
        assert all(new["lr"] is old["lr"] for new, old in zip(optimizer.param_groups, before))
        assert scheduler.state_dict() == state


@pytest.mark.parametrize(
    "value", [NAN, "x", None, torch.tensor([1.0, 2.0])], ids=["nan", "word", "None", "two"]
)
def test_a_function_that_returns_no_number(value):
    optimizer = rmsprop()
    scheduler = LambdaLR(optimizer, [lambda epoch: 0.5**epoch, lambda epoch: value if epoch else 1.0])
    optimizer.step()
    before, state = groups_of(optimizer), scheduler.state_dict()
    with pytest.raises(
        (ValueError, TypeError), match="Invalid learning rate: nan|lr_lambda must be a|1-element"
    ):
        scheduler.step()
    assert groups_of(optimizer) == before
    assert scheduler.state_dict() == state


def test_more_steps_than_a_cycle_has():
    """PyTorch's words; there the epoch goes on counting."""
    optimizer = rmsprop()
    scheduler = OneCycleLR(optimizer, 0.1, 3)
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    before = groups_of(optimizer)
    for _ in range(2):
        with pytest.raises(
            ValueError, match="^Tried to step 4 times. The specified number of total steps is 3"
        ):
            scheduler.step()
    assert (groups_of(optimizer), scheduler.last_epoch) == (before, 3)


@pytest.mark.parametrize("epoch", [-1, -0.5, NAN, math.inf, "1"])
def test_restarts_at_an_epoch_that_is_none(epoch):
    optimizer = rmsprop()
    scheduler = CosineAnnealingWarmRestarts(optimizer, 3, 2)
    before, state = groups_of(optimizer), scheduler.state_dict()
    with pytest.raises(
        (ValueError, TypeError), match="^Expected non-negative epoch|^Invalid epoch|^epoch must be"
    ):
        scheduler.step(epoch)
    assert (groups_of(optimizer), scheduler.state_dict()) == (before, state)


@pytest.mark.parametrize("metrics", [None, "0.5", np.ones(2), object()])
def test_a_metric_that_is_no_number(metrics):
    optimizer = rmsprop()
    scheduler = ReduceLROnPlateau(optimizer, patience=0)
    state = scheduler.state_dict()
    with pytest.raises((TypeError, ValueError), match="metrics"):
        scheduler.step(metrics)
    assert scheduler.state_dict() == state


def test_a_dead_tensor_as_rate():
    rate = torch.tensor(0.5)
    optimizer = rmsprop(0.1, rate)
    scheduler = ExponentialLR(optimizer, 0.5)
    optimizer.step()
    rate._impl.Reset()
    with pytest.raises(RuntimeError, match="has no data"):
        scheduler.step()
    assert (optimizer.param_groups[0]["lr"], scheduler.last_epoch) == (0.1, 0)


def test_a_negative_rate_is_the_optimizers_affair():
    """As in PyTorch, the scheduler sets it; the step refuses it."""
    optimizer = rmsprop()
    scheduler = ExponentialLR(optimizer, -1.0)
    optimizer.step()
    scheduler.step()
    with pytest.raises(ValueError, match="^Invalid learning rate: -0.1"):
        optimizer.step()
