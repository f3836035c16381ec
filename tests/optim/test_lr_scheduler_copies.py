# SPDX-License-Identifier: BSD-2-Clause
"""Schedulers outside of this process: copies, pickles, state dicts and files, with their optimizers."""

from __future__ import annotations

import copy
import math

import pytest

import dragon_optim
from dragon_optim import lr_scheduler
from dragon_optim.lr_scheduler import CyclicLR, LambdaLR, MultiplicativeLR, ReduceLROnPlateau, StepLR
from tests.golden import schedules
from tests.optim.copied import params_of, step
from tests.optim.schedulers import optimizer_of
from tests.optim.support import parameter, values


def row(optimizer):
    return [(group["lr"], group["momentum"]) for group in optimizer.param_groups]


class Run:
    """A training with a schedule of the table."""

    def __init__(self, name):
        self.case = schedules.CASES[name]
        self.optimizer = optimizer_of(self.case)
        self.scheduler = self.case.make(lr_scheduler, self.optimizer)

    def steps(self, first, count):
        found = []
        for number in range(first, first + count):
            step(self.optimizer, number, 1)
            self.scheduler.step(*(self.case.given(number) if self.case.given else ()))
            found.append(row(self.optimizer))
        return found, [values(param).tolist() for param in params_of(self.optimizer)]


# The epoch is deprecated; here it is not what is looked at.
NAMES = [name for name, case in schedules.CASES.items() if "given" not in name and case.kind == "rmsprop"]


@pytest.mark.parametrize("name", NAMES)
def test_a_deep_copy_goes_on(name):
    """Optimizer and scheduler, copied together, go on together; the original stays where it is."""
    original = Run(name)
    original.steps(0, 4)
    made = Run(name)
    made.optimizer, made.scheduler = copy.deepcopy((original.optimizer, original.scheduler))
    assert made.scheduler.optimizer is made.optimizer
    before = row(original.optimizer)
    found = made.steps(4, 1 if "none" in name else 8)
    assert row(original.optimizer) == before
    assert original.steps(4, 1 if "none" in name else 8) == found


@pytest.mark.parametrize("name", ["step-two", "cosine-up", "cyclic-uneven", "one-cycle-three", "plateau-max"])
def test_a_pickle_goes_on(name, way):
    original = Run(name)
    original.steps(0, 4)
    made = Run(name)
    made.optimizer, made.scheduler = way((original.optimizer, original.scheduler))
    assert made.steps(4, 8) == original.steps(4, 8)


def test_the_scheduler_first(way):
    """It brings its optimizer along."""
    optimizer = dragon_optim.RMSprop([parameter([1.0])], lr=1.0)
    scheduler = way(StepLR(optimizer, 1, 0.5))
    assert scheduler.optimizer is not optimizer
    scheduler.optimizer.step()
    scheduler.step()
    assert (scheduler.optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["lr"]) == (0.5, 1.0)


# --- state dicts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_resumed_in_the_middle(name):
    """New objects, both state dicts loaded: the same bits of rates and parameters from there on."""
    original = Run(name)
    original.steps(0, 3)
    saved = copy.deepcopy((original.optimizer.state_dict(), original.scheduler.state_dict()))
    params = [values(param) for param in params_of(original.optimizer)]
    expected = original.steps(3, 1 if "none" in name else 8)
    resumed = Run(name)
    for param, array in zip(params_of(resumed.optimizer), params):
        param._impl.FromNumpy(array.copy(), True)
    resumed.optimizer.load_state_dict(saved[0])
    resumed.scheduler.load_state_dict(saved[1])
    assert resumed.scheduler.state_dict() == saved[1]
    assert resumed.steps(3, 1 if "none" in name else 8) == expected


def test_a_state_dict_stays_as_it_was():
    run = Run("multistep-twice")
    saved = run.scheduler.state_dict()
    kept = copy.deepcopy(saved)
    run.steps(0, 12)
    assert saved == kept
    saved["base_lrs"][0] = 7.0
    saved["milestones"].clear()
    assert run.scheduler.base_lrs[0] != 7.0
    assert run.scheduler.milestones


@pytest.mark.parametrize("make", [LambdaLR, MultiplicativeLR])
def test_functions_are_not_saved_objects_are(make):
    optimizer = dragon_optim.RMSprop([{"params": [parameter([1.0])]} for _ in range(4)], lr=1.0)
    function, number = schedules.Factor(0.5), schedules.Factor(0.25)
    scheduler = make(optimizer, [function, lambda epoch: 1.0, math.sqrt, number.__call__])
    saved = scheduler.state_dict()["lr_lambdas"]
    assert saved == [vars(function), None, None, {}]
    other = schedules.Factor(9.0)
    made = make(
        dragon_optim.RMSprop([{"params": [parameter([1.0])]} for _ in range(4)], lr=1.0),
        [other, schedules.falling, math.sqrt, number.__call__],
    )
    made.load_state_dict(scheduler.state_dict())
    assert vars(other) == vars(function)
    assert made.lr_lambdas[1] is schedules.falling


def test_scale_fn_of_a_cycle():
    def make(scale_fn):
        return CyclicLR(dragon_optim.RMSprop([parameter([1.0])]), 0.1, 0.2, 4, scale_fn=scale_fn)

    scheduler, other = make(schedules.Factor(0.5)), schedules.Factor(0.9)
    make(other).load_state_dict(scheduler.state_dict())
    assert other.base == 0.5
    assert make(lambda x: 1.0).state_dict()["_scale_fn_custom"] is None


def test_state_dicts_of_older_versions():
    """PyTorch 2.1 has `verbose`, and lacks what came later."""
    scheduler = StepLR(dragon_optim.RMSprop([parameter([1.0])], lr=1.0), 3, 0.5)
    old = dict(step_size=2, gamma=0.25, base_lrs=[1.0], last_epoch=4, verbose=False, _step_count=5)
    scheduler.load_state_dict({**old, "_get_lr_called_within_step": False, "_last_lr": [0.0625]})
    assert (scheduler.step_size, scheduler.last_epoch, scheduler.get_last_lr()) == (2, 4, [0.0625])
    plateau = ReduceLROnPlateau(dragon_optim.RMSprop([parameter([1.0])], lr=1.0))
    state = {**plateau.state_dict(), "verbose": False, "best": 0.5}
    del state["default_min_lr"], state["_last_lr"]
    plateau.load_state_dict(state)
    assert plateau.best == 0.5


def test_loading_leaves_the_learning_rates_to_the_optimizer():
    """As in PyTorch: a scheduler's state dict alone does not write to the groups."""
    run = Run("exponential")
    run.steps(0, 5)
    fresh = Run("exponential")
    fresh.scheduler.load_state_dict(run.scheduler.state_dict())
    assert row(fresh.optimizer) == [(0.05, 0)]
    assert fresh.scheduler.get_last_lr() == run.scheduler.get_last_lr()
