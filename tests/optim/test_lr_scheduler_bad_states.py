# SPDX-License-Identifier: BSD-2-Clause
"""State dicts that are not of the scheduler: a Python exception, and nothing has changed."""

from __future__ import annotations

import copy
import math

import pytest

from dragon_optim.lr_scheduler import (
    ChainedScheduler,
    LambdaLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)
from tests.golden import schedules
from tests.optim.schedulers import MAKERS
from tests.optim.test_lr_scheduler_refusals import groups_of, rmsprop

NAN = math.nan


def changed(**values):
    return lambda state: {**state, **values}


def without(key):
    return lambda state: {name: value for name, value in state.items() if name != key}


BAD_STATES = {
    "none": ("StepLR", lambda state: None, TypeError, "^state_dict must be a dict, but got .*NoneType"),
    "list": ("StepLR", lambda state: [state], TypeError, "^state_dict must be a dict"),
    "key": ("StepLR", lambda state: {**state, 3: 3}, TypeError, "must be strings, but one is 3"),
    "empty": ("StepLR", lambda state: {}, KeyError, "lacks 'base_lrs', 'gamma', 'last_epoch', 'step_size'"),
    "missing": ("StepLR", without("gamma"), KeyError, "lacks 'gamma', which StepLR needs"),
    "other": (
        "CosineAnnealingLR",
        lambda state: StepLR(rmsprop(), 3).state_dict(),
        KeyError,
        "lacks 'T_max', 'eta_min', which CosineAnnealingLR needs: it is of another scheduler",
    ),
    "word": (
        "StepLR",
        changed(gamma="x"),
        TypeError,
        "^gamma of the state dict must be a number, but is 'x'",
    ),
    "nan": ("StepLR", changed(gamma=NAN), ValueError, "^Invalid gamma of the state dict value: nan"),
    "list-as-number": (
        "StepLR",
        changed(step_size=[3]),
        TypeError,
        "^step_size of the state dict must be a number",
    ),
    "number-as-list": (
        "StepLR",
        changed(base_lrs=0.1),
        TypeError,
        "^base_lrs of the state dict must be a list",
    ),
    "rate-word": (
        "StepLR",
        changed(base_lrs=[0.1, "x"]),
        TypeError,
        "^base_lrs of the state dict must be a number",
    ),
    "epoch": ("StepLR", changed(last_epoch="3"), TypeError, "^last_epoch of the state dict must be a number"),
    "method": ("StepLR", changed(step=3), ValueError, "the key 'step', which is no state of StepLR"),
    "optimizer": ("StepLR", changed(optimizer=3), ValueError, "the key 'optimizer', which is no state"),
    "watch": ("StepLR", changed(_watch=3), ValueError, "the key '_watch', which is no state"),
    "milestones": ("MultiStepLR", changed(milestones=3), TypeError, "^milestones must be an iterable"),
    "milestone-times": (
        "MultiStepLR",
        changed(milestones={3: "x"}),
        ValueError,
        "^Invalid milestones value: 3 counts",
    ),
    "groups": (
        "LambdaLR",
        changed(base_lrs=[0.1]),
        ValueError,
        "^base_lrs of the state dict has 1 values, and the",
    ),
    "no-functions": ("LambdaLR", without("lr_lambdas"), KeyError, "lacks 'lr_lambdas'"),
    "functions": ("LambdaLR", changed(lr_lambdas=[None]), ValueError, "must be a list of 2 entries"),
    "function": (
        "LambdaLR",
        changed(lr_lambdas=[None, 3]),
        TypeError,
        "must hold None or dicts, but holds 3",
    ),
    "cycle-groups": (
        "CyclicLR",
        changed(max_lrs=[0.1] * 3),
        ValueError,
        "^max_lrs of the state dict has 3 values",
    ),
    "cycle-mode": (
        "CyclicLR",
        changed(mode="x"),
        ValueError,
        "a schedule by a scale_fn that this scheduler lacks",
    ),
    "cycle-scale-mode": (
        "CyclicLR",
        changed(scale_mode="x"),
        ValueError,
        "^Invalid scale_mode value of the state",
    ),
    "cycle-function": ("CyclicLR", changed(_scale_fn_custom=3), TypeError, "must hold None or dicts"),
    "cycle-no-function": ("CyclicLR", changed(_scale_fn_custom={"a": 1}), ValueError, "which can have none"),
    "phases": ("OneCycleLR", changed(_schedule_phases=[{}]), ValueError, "which is no phase"),
    "no-phases": ("OneCycleLR", changed(_schedule_phases=[]), ValueError, "is not that of a OneCycleLR"),
    "strategy": ("OneCycleLR", changed(_anneal_func_type="x"), ValueError, "is not that of a OneCycleLR"),
    "no-schedulers": ("SequentialLR", without("_schedulers"), ValueError, "must be a list of 2 state dicts"),
    "schedulers": ("SequentialLR", changed(_schedulers=[{}]), ValueError, "must be a list of 2 state dicts"),
    "second": (
        "SequentialLR",
        lambda state: {**state, "last_epoch": 7, "_schedulers": [state["_schedulers"][0], {}]},
        KeyError,
        "which ExponentialLR needs",
    ),
    "chained-second": (
        "ChainedScheduler",
        lambda state: {**state, "_schedulers": [{**state["_schedulers"][0], "last_epoch": 9}, 3]},
        TypeError,
        "^state_dict must be a dict",
    ),
}


@pytest.mark.parametrize("name", BAD_STATES)
def test_a_bad_state_dict(name):
    maker, spoil, exception, match = BAD_STATES[name]
    optimizer = rmsprop()
    scheduler = MAKERS[maker](optimizer)
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    before, groups = copy.deepcopy(scheduler.state_dict()), groups_of(optimizer)
    with pytest.raises(exception, match=match):
        scheduler.load_state_dict(spoil(copy.deepcopy(before)))
    assert scheduler.state_dict() == before
    assert groups_of(optimizer) == groups
    optimizer.step()
    scheduler.step()


@pytest.mark.parametrize("key", ["mode", "threshold_mode"])
def test_a_bad_state_of_a_plateau(key):
    scheduler = ReduceLROnPlateau(rmsprop())
    before = scheduler.state_dict()
    with pytest.raises(ValueError, match="x is unknown!"):
        scheduler.load_state_dict({**before, key: "x", "best": 0.5})
    assert scheduler.state_dict() == before


def test_attributes_of_objects_are_loaded_last():
    """Where the rest is refused, a callable object is as it was."""
    function = schedules.Factor(0.5)
    scheduler = LambdaLR(rmsprop(), [function, function])
    state = {**scheduler.state_dict(), "lr_lambdas": [{"base": 9.0}, None], "last_epoch": "x"}
    with pytest.raises(TypeError, match="last_epoch"):
        scheduler.load_state_dict(state)
    assert function.base == 0.5
    optimizer = rmsprop()
    chain = ChainedScheduler([LambdaLR(optimizer, function), StepLR(optimizer, 3)])
    state = chain.state_dict()
    state["_schedulers"][0]["lr_lambdas"] = [{"base": 9.0}, None]
    state["_schedulers"][1]["gamma"] = "x"
    with pytest.raises(TypeError, match="gamma"):
        chain.load_state_dict(state)
    assert function.base == 0.5


def test_lists_of_a_state_dict_are_copied():
    scheduler = OneCycleLR(rmsprop(), 0.1, 10)
    state = copy.deepcopy(scheduler.state_dict())
    scheduler.load_state_dict(state)
    kept = copy.deepcopy(state)
    state["_schedule_phases"][0]["end_step"] = 99
    state["_schedule_phases"].pop()
    state["base_lrs"].clear()
    assert scheduler.state_dict() == kept


def test_milestones_of_a_state_dict_are_copied():
    scheduler = MultiStepLR(rmsprop(), [2, 4])
    state = scheduler.state_dict()
    scheduler.load_state_dict(state)
    state["milestones"].clear()
    assert dict(scheduler.milestones) == {2: 1, 4: 1}
