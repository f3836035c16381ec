# SPDX-License-Identifier: BSD-2-Clause
"""State that is read, forgotten and given to another parameter, as code that grows or prunes a model does."""

from __future__ import annotations

import numpy as np
import pytest

import dragon_optim
from tests.optim.states import copied, trained
from tests.optim.support import backward, parameter, snapshot

ENTRY = {"step": 5, "square_avg": [4.0, 4.0, 4.0]}


def replace(optimizer, param):
    optimizer.state[param] = {"step": 9, "square_avg": np.zeros(3)}


FORGET = {
    "del": lambda optimizer, param: optimizer.state.__delitem__(param),
    "pop": lambda optimizer, param: optimizer.state.pop(param),
    "clear": lambda optimizer, param: optimizer.state.clear(),
    "replace": replace,
    "replace-all": lambda optimizer, param: setattr(optimizer, "state", {}),
    "load": lambda optimizer, param: optimizer.load_state_dict({**optimizer.state_dict(), "state": {}}),
}


@pytest.mark.parametrize("forget", FORGET)
def test_an_entry_that_is_forgotten_is_kept_by_who_has_read_it(forget):
    optimizer, param = trained(momentum=0.9, centered=True)
    optimizer.state[param]["mine"] = parameter([7.0])
    entry = optimizer.state[param]
    before = copied(entry)
    FORGET[forget](optimizer, param)
    assert copied(entry) == before
    optimizer.step()
    assert copied(entry) == before
    now = copied(optimizer.state[param])
    entry["step"] = 77
    entry["square_avg"] = None
    del entry["momentum_buffer"]
    assert list(entry) == ["step", "square_avg", "grad_avg", "mine"]
    assert copied(optimizer.state[param]) == now


def test_an_entry_that_is_not_forgotten_is_live():
    optimizer, param = trained()
    entry = optimizer.state[param]
    optimizer.state[param] = entry
    optimizer.step()
    assert entry["step"] == 2
    assert optimizer.state[param] is entry


def test_state_that_another_parameter_takes_over():
    optimizer, old = trained(momentum=0.9, lr=0.5)
    expected = dragon_optim.RMSprop([parameter([1.0, 2.0, 3.0])], momentum=0.9, lr=0.5)
    (same,) = expected.param_groups[0]["params"]
    stored = optimizer.state.get(optimizer.param_groups[0]["params"][0])
    del optimizer.state[old]
    new = optimizer.param_groups[0]["params"][0] = parameter(old.numpy())
    optimizer.state[new] = stored
    for each in (optimizer, expected):
        for _ in range(1 + (each is expected)):
            backward(each.param_groups[0]["params"][0], 1.0)
            each.step()
    assert copied(optimizer.state[new]) == copied(expected.state[same])
    assert new.numpy().tolist() == same.numpy().tolist()


JOIN = {
    "by-hand": lambda optimizer, param: optimizer.param_groups[0]["params"].append(param),
    "as-a-group": lambda optimizer, param: optimizer.add_param_group({"params": param, "alpha": 1.0}),
    "twice": lambda optimizer, param: optimizer.param_groups[0]["params"].extend([param, param]),
}


@pytest.mark.filterwarnings("ignore:.*duplicate parameters")
@pytest.mark.parametrize("order", ["before", "after", "by-reading"])
@pytest.mark.parametrize("join", JOIN)
def test_state_set_for_a_parameter_that_joins(join, order):
    """Before it joins, or before a call has noticed that it has."""
    optimizer, first = trained(alpha=1.0)
    new = parameter([1.0, 2.0, 3.0])
    if order == "before":
        optimizer.state[new] = dict(ENTRY)
    JOIN[join](optimizer, new)
    if order == "after":
        optimizer.state[new] = dict(ENTRY)
    elif order == "by-reading":
        optimizer.state[new]["step"] = 5
        optimizer.state[new]["square_avg"] = np.array(ENTRY["square_avg"])
    backward(new, 2.0)
    optimizer.step()
    times = 2 if join == "twice" else 1
    assert copied(optimizer.state[new]) == dict(ENTRY, step=5 + times)
    assert new.numpy() == pytest.approx(np.array([1.0, 2.0, 3.0]) - 0.01 * times, abs=1e-6)
    assert [each is first for each in optimizer.state] == [True, False]
    assert len(optimizer.state_dict()["state"]) == 2


@pytest.mark.parametrize("entry", [{"square_avg": np.ones(2)}, {"step": -1}, 5])
def test_wrong_state_of_a_parameter_that_joins_changes_nothing(entry):
    optimizer, first = trained()
    new = parameter([1.0, 2.0, 3.0])
    optimizer.state[new] = entry
    before = snapshot(optimizer, first)
    backward(first, 3.0, new, 3.0)
    before.update({key: value for key, value in snapshot(optimizer, first).items() if key.startswith("grad")})
    optimizer.param_groups[0]["params"].append(new)
    for call in (optimizer.step, optimizer.sum_grad, optimizer.zero_grad):
        with pytest.raises((TypeError, ValueError)):
            call()
        assert snapshot(optimizer, first) == before
    del optimizer.state[new]
    optimizer.step()
    assert optimizer.state[new]["step"] == 1
    assert optimizer.state[first]["step"] == 2


def test_an_entry_of_a_parameter_that_has_left_is_not_anothers():
    optimizer, _ = trained()
    leaves = parameter([1.0])
    optimizer.add_param_group({"params": [leaves]})
    entry = optimizer.state[leaves]
    optimizer.param_groups.pop()
    optimizer.step()
    comes = parameter([1.0])
    optimizer.add_param_group({"params": [comes]})
    backward(comes, 1.0)
    optimizer.step()
    assert dict(entry) == {}
    entry["step"] = 77
    assert optimizer.state[comes]["step"] == 1
