# SPDX-License-Identifier: BSD-2-Clause
"""Parameters that are taken out of their groups: their states stay until they are cleared, no longer."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import dragon_optim
from tests.optim.support import backward, feed_gradient, parameter, values


def trained(*params, **options):
    optimizer = dragon_optim.RMSprop(list(params), **options)
    for param in params:
        backward(param, 1.0)
    optimizer.step()
    return optimizer


def test_their_state_stays_as_in_pytorch():
    stays, leaves = parameter([1.0]), parameter([1.0])
    optimizer = trained(stays, leaves)
    optimizer.param_groups[0]["params"] = [stays]
    optimizer.step()
    assert optimizer.state[leaves]["step"] == 1
    optimizer.param_groups[0]["params"] = [stays, leaves]
    optimizer.step()
    assert [optimizer.state[each]["step"] for each in (stays, leaves)] == [3, 2]


def test_with_their_state_they_go(ws):
    """Parameter, gradient, sum and states, for whoever trains many models with one optimizer."""
    optimizer = trained(parameter(np.ones(1 << 16)))
    alive, counts = [], []
    for _ in range(6):
        param = parameter(np.ones(1 << 16))
        alive.append(weakref.ref(param))
        optimizer.param_groups[0]["params"] = [param]
        feed_gradient(param, np.ones(1 << 16, "float32"))
        optimizer.sum_grad()
        optimizer.step()
        assert optimizer.state[param]["step"] == 1
        optimizer.state.clear()
        del param
        gc.collect()
        counts.append(sum(each() is not None for each in alive))
    assert counts == [1] * 6
    assert len(optimizer.state) == 0


def test_one_without_state_goes_at_once():
    stays, leaves = parameter([1.0]), parameter([1.0])
    optimizer = dragon_optim.RMSprop([stays, leaves])
    gone = weakref.ref(leaves)
    optimizer.param_groups[0]["params"] = [stays]
    del leaves
    optimizer.step()
    gc.collect()
    assert gone() is None


def test_who_comes_in_its_place_inherits_nothing():
    stays, leaves, comes = (parameter([1.0, 2.0]) for _ in range(3))
    optimizer = trained(stays, leaves, momentum=0.9)
    optimizer.param_groups[0]["params"] = [stays]
    optimizer.step()
    del optimizer.state[leaves]
    optimizer.param_groups[0]["params"] = [stays, comes]
    optimizer.step()
    assert comes not in optimizer.state
    backward(comes, 1.0)
    optimizer.step()
    assert optimizer.state[comes]["step"] == 1
    fresh = parameter([1.0, 2.0])
    trained(fresh, momentum=0.9)
    assert values(comes).tolist() == values(fresh).tolist()


def test_a_sum_leaves_with_its_parameter():
    stays, leaves = parameter([1.0]), parameter([1.0])
    optimizer = dragon_optim.RMSprop([stays, leaves])
    for param in (stays, leaves):
        backward(param, 1.0)
    optimizer.sum_grad()
    optimizer.param_groups[0]["params"] = [stays]
    optimizer.step()
    optimizer.param_groups[0]["params"] = [stays, leaves]
    optimizer.zero_grad(set_to_none=True)
    optimizer.step()
    assert values(leaves).tolist() == [1.0]
    assert leaves not in optimizer.state


@pytest.mark.parametrize("entry", [{"square_avg": np.ones(1), "step": 4}, {"mine": 1}], ids=["state", "mine"])
def test_state_set_for_one_that_has_left(entry):
    """It is kept, and is the state again when the parameter comes back."""
    stays, leaves = parameter([1.0]), parameter([1.0])
    optimizer = trained(stays, leaves)
    optimizer.param_groups[0]["params"] = [stays]
    optimizer.step()
    optimizer.state[leaves] = entry
    assert dict(optimizer.state[leaves]) == entry
    optimizer.add_param_group({"params": [leaves]})
    assert {key: optimizer.state[leaves][key] for key in entry if key != "square_avg"} == {
        key: each for key, each in entry.items() if key != "square_avg"
    }
    assert ("square_avg" in optimizer.state[leaves]) == ("square_avg" in entry)
