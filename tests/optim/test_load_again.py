# SPDX-License-Identifier: BSD-2-Clause
"""`load_state_dict()` at odd times, and again and again."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from dragon.core.framework import workspace

import dragon_optim
from tests.golden import state_dicts
from tests.golden.state_dicts import StateDicts
from tests.optim import trainings
from tests.optim.memory import MEGABYTE, growth
from tests.optim.support import backward, parameter, values
from tests.optim.trainings import plain, trained

RECORDED = StateDicts("2.13")


# --- loaded at an odd time ------------------------------------------------------------------------


def test_in_the_middle_of_a_round_of_sums():
    """The sums are no part of a state dict: the round goes on."""
    param = parameter([0.0])
    optimizer = dragon_optim.RMSprop([param], lr=1.0, alpha=0.0, eps=1.0)
    backward(param, 1.0)
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    for _ in range(3):
        backward(param, 1.0)
        optimizer.sum_grad()
    optimizer.load_state_dict(saved)
    before = values(param)
    optimizer.step()
    assert round(float((before - values(param))[0]), 6) == 0.75  # 3 / (3 + 1)


@pytest.mark.parametrize("when", ["closure", "pre-hook"])
def test_within_a_step(when):
    optimizer, params = trained("two-groups")
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["lr"] = saved["param_groups"][1]["lr"] = 0.0
    before = plain(params)
    if when == "closure":
        optimizer.step(lambda: optimizer.load_state_dict(saved))
    else:
        optimizer.register_step_pre_hook(lambda *_: optimizer.load_state_dict(saved))
        optimizer.step()
    assert plain(params) == before
    assert optimizer.state[params[0]]["step"] == state_dicts.STEPS + 1


def test_a_group_changed_by_hand_just_before():
    optimizer, params = trained("two-groups")
    saved = copy.deepcopy(optimizer.state_dict())
    new = parameter(values(params[1]))
    optimizer.param_groups[0]["params"] = [params[0], new]
    optimizer.load_state_dict(saved)
    assert optimizer.state[new]["step"] == state_dicts.STEPS
    assert params[1] not in optimizer.state
    trainings.advance(optimizer, [params[0], new, *params[2:]], trainings.GOES_ON)
    twin, weights = trained("two-groups")
    trainings.advance(twin, weights, trainings.GOES_ON)
    assert plain([params[0], new, *params[2:]]) == plain(weights)


def test_a_group_is_added_afterwards():
    """Its parameters start without state; those of the others go on."""
    optimizer, params = trained("two-groups")
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    new = parameter([0.0])
    optimizer.add_param_group({"params": [new]})
    assert optimizer.param_groups[2]["lr"] == optimizer.defaults["lr"]
    assert new not in optimizer.state
    backward(new, 1.0)
    optimizer.step()
    assert [optimizer.state[each]["step"] for each in (new, params[0])] == [1, state_dicts.STEPS + 1]


def test_a_model_that_was_converted_goes_on_in_its_new_dtype():
    """`.double()` converts in place; a step would ask for the state to be cleared."""
    optimizer, params = trained("two-groups")
    saved = optimizer.state_dict()
    wide = {
        number: {key: plain(each) for key, each in entry.items()} for number, entry in saved["state"].items()
    }
    for param in params:
        param._impl.FromNumpy(values(param).astype("float64"), True)
    optimizer.load_state_dict(saved)
    assert {optimizer.state[param]["square_avg"].dtype for param in params} == {"float64"}
    trainings.advance(optimizer, params, trainings.GOES_ON[:1])
    assert optimizer.state[params[0]]["step"] == state_dicts.STEPS + 1
    assert plain(saved["state"]) == wide


def test_a_parameter_that_takes_no_part_keeps_its_state():
    optimizer, params = trained("two-groups")
    params[0].requires_grad = False
    optimizer.load_state_dict(RECORDED.get("two-groups")["state_dict"])
    trainings.advance(optimizer, params, trainings.GOES_ON[:1])
    assert [optimizer.state[param]["step"] for param in params] == [4, 5, 5, 5]


def test_the_base_class_has_no_requirements():
    param = parameter([1.0])
    optimizer = dragon_optim.Optimizer([param], {})
    optimizer.state[param] = {"step": 3, "mine": 4}
    other = dragon_optim.Optimizer([param], {})
    other.load_state_dict(optimizer.state_dict())
    assert dict(other.state[param]) == {"step": 3, "mine": 4}


# --- again and again ------------------------------------------------------------------------------


def _again_from_a_copy(optimizer, kept):
    optimizer.load_state_dict(kept["saved"])


def _again_from_itself(optimizer, kept):
    optimizer.load_state_dict(optimizer.state_dict())


def _again_while_it_is_held(optimizer, kept):
    kept["held"] = optimizer.state_dict()
    optimizer.load_state_dict(kept["held"])


def _again_with_other_buffers(optimizer, kept):
    kept["saved"] = saved = copy.deepcopy(kept["saved"])
    on = kept["on"] = not kept.get("on", False)
    for group in saved["param_groups"]:
        group["centered"] = on
    for entry in saved["state"].values():
        entry.pop("grad_avg", None)
    optimizer.load_state_dict(saved)


def _again_refused(optimizer, kept):
    saved = dict(kept["saved"], state=dict(kept["saved"]["state"]))
    saved["state"][3] = dict(saved["state"][3], grad_avg=np.ones(7))
    with pytest.raises(ValueError, match="grad_avg"):
        optimizer.load_state_dict(saved)


@pytest.mark.usefixtures("ws")
@pytest.mark.parametrize(
    "again",
    [
        _again_from_a_copy,
        _again_from_itself,
        _again_while_it_is_held,
        _again_with_other_buffers,
        _again_refused,
    ],
)
def test_two_hundred_loads_leave_nothing(again):
    ws = workspace.get_workspace()
    optimizer, params = trained("two-groups")
    kept = {"saved": copy.deepcopy(optimizer.state_dict())}

    def work(i):
        again(optimizer, kept)
        trainings.advance(optimizer, params, range(1))

    grown = growth(ws, work, 20, 200, collect=True)
    assert grown.after == grown.before
    assert grown.resident < MEGABYTE


@pytest.mark.usefixtures("ws")
def test_two_optimizers_that_load_each_other_leave_nothing():
    ws = workspace.get_workspace()
    optimizer, params = trained("two-groups")
    both = [optimizer, trainings.MAKE["two-groups"](params)]

    def work(i):
        both.reverse()
        both[0].load_state_dict(both[1].state_dict())
        trainings.advance(both[0], params, range(1))

    grown = growth(ws, work, 20, 200)
    assert grown.after == grown.before
    assert grown.resident < MEGABYTE
    assert both[0].state[params[0]]["step"] == state_dicts.STEPS + 220
