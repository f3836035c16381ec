# SPDX-License-Identifier: BSD-2-Clause
"""A state dict that does not fit is refused before anything changes.

The optimizer that refused is compared with one that was never asked: at once, at the end of the round of
sums that was open, and after more training. What would end the process in Dragon is in
`misuse_of_state_dicts.py`.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from dragon.core.framework import workspace

from tests.optim import bad_entries, bad_state_dicts, trainings
from tests.optim.memory import kept
from tests.optim.support import backward, snapshot
from tests.optim.trainings import plain

pytestmark = [
    pytest.mark.usefixtures("ws"),
    pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate"),
    # numpy's word on ragged lists, before it refuses them.
    pytest.mark.filterwarnings("ignore:Creating an ndarray from ragged nested sequences"),
]

TABLE = [*bad_state_dicts.TABLE, *bad_entries.TABLE]


def optimizer_at_work(training):
    """In the middle of a round of sums, with entries of the user's own."""
    optimizer, params = trainings.trained(training)
    optimizer.state["seen"] = {"epochs": [1]}
    optimizer.state[params[0]]["ema"] = np.ones(2)
    optimizer.param_groups[0].update(lr_scale=0.5, mine=[1, 2])
    for number in (1.0, -0.25):
        backward(params[0], number, params[1], 2 * number)
        optimizer.sum_grad()
    return optimizer, params


def everything(optimizer, params):
    """All that may be looked at, with the identity of what has one."""
    groups = [
        (id(group), {key: (id(each), plain(each)) for key, each in group.items() if key != "params"})
        for group in optimizer.param_groups
    ]
    lists = [
        (id(group["params"]), [id(param) for param in group["params"]]) for group in optimizer.param_groups
    ]
    tensors = [
        {key: id(each) for key, each in optimizer.state[param].items() if key != "step"} for param in params
    ]
    return {
        "groups": (id(optimizer.param_groups), groups, lists),
        "values": snapshot(optimizer, *params[1:]),
        "state": (tensors, plain(optimizer.state_dict())),
        "keys": [key if isinstance(key, str) else id(key) for key in optimizer.state],
        "defaults": plain(optimizer.defaults),
    }


def goes_on(optimizer, params):
    """Yield what is there after the round that is open, and after each of some more steps."""
    optimizer.step()
    yield plain([params, optimizer.state_dict()])
    for step in trainings.GOES_ON:
        trainings.advance(optimizer, params, [step])
        yield plain([params, optimizer.state_dict()])


@pytest.fixture(scope="module")
def never_asked():
    """What an optimizer comes to that was never given anything wrong, by training."""
    return {
        training: list(goes_on(*optimizer_at_work(training))) for training in {bad.training for bad in TABLE}
    }


@pytest.mark.parametrize("bad", TABLE, ids=str)
def test_it_is_refused_and_nothing_has_changed(bad, never_asked):
    optimizer, params = optimizer_at_work(bad.training)
    ws = workspace.get_workspace()
    before, counted = everything(optimizer, params), kept(ws)
    with pytest.raises(bad.exception) as caught:
        optimizer.load_state_dict(bad.given(), keep=bad.keep)
    assert type(caught.value) is bad.exception
    message = str(caught.value.args[0])  # str() of a KeyError is quoted
    assert re.search(bad.match, message), message
    assert everything(optimizer, params) == before
    assert kept(ws) == counted
    assert list(goes_on(optimizer, params)) == never_asked[bad.training]


def test_the_table_is_long_and_its_names_are_unique():
    names = [bad.name for bad in TABLE]
    assert len(names) >= 60
    assert len(names) == len(set(names))


def test_the_undamaged_dicts_are_taken(never_asked):
    """Otherwise nothing in the table would say anything: `change` is all that is wrong with them."""
    for training in never_asked:
        optimizer, _ = optimizer_at_work(training)
        optimizer.load_state_dict(bad_state_dicts.recorded(training))


WARNINGS = {
    "names": lambda saved: saved["param_groups"][0].update(param_names=list("abcd")),
    "clip": lambda saved: saved["param_groups"][0].update(clip_norm=1.0, clip_value=1.0),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("change", WARNINGS.values(), ids=WARNINGS)
def test_a_warning_that_is_an_error_changes_nothing(change, never_asked):
    optimizer, params = optimizer_at_work("named")
    saved = bad_state_dicts.recorded("named")
    change(saved)
    before = everything(optimizer, params)
    with pytest.raises(UserWarning):
        optimizer.load_state_dict(saved)
    assert everything(optimizer, params) == before
    assert list(goes_on(optimizer, params)) == never_asked["named"]
