# SPDX-License-Identifier: BSD-2-Clause
"""`optimizer.state` when it is forgotten, when somebody holds its tensors, and when it goes out of use."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import dragon_optim
from dragon_optim.slots import SlotTable
from tests.optim.states import copied, trained
from tests.optim.support import feed_gradient, parameter, values

# --- forgetting -----------------------------------------------------------------------------------


def test_a_deleted_entry_starts_anew():
    optimizer, param, other = trained(2, momentum=0.9, alpha=0.75)
    kept = copied(optimizer.state[other])
    del optimizer.state[param]
    assert param not in optimizer.state
    assert copied(optimizer.state[other]) == kept
    with pytest.raises(KeyError):
        del optimizer.state[param]
    optimizer.step()
    assert optimizer.state[param]["step"] == 1
    assert values(optimizer.state[param]["square_avg"]).tolist() == [0.25] * 3
    assert optimizer.state[other]["step"] == 2


def test_a_deleted_tensor_starts_anew_and_the_count_goes_on():
    optimizer, param = trained(alpha=0.75)
    del optimizer.state[param]["square_avg"]
    assert "square_avg" not in optimizer.state[param]
    optimizer.step()
    assert copied(optimizer.state[param]) == {"step": 2, "square_avg": [0.25] * 3}


def test_clear_forgets_everything():
    optimizer, param, other = trained(2, momentum=0.9)
    optimizer.state["key"] = 1
    optimizer.state[param]["ema"] = 2
    optimizer.state.clear()
    assert len(optimizer.state) == 0
    optimizer.step()
    assert [optimizer.state[each]["step"] for each in (param, other)] == [1, 1]
    assert "ema" not in optimizer.state[param]


def test_clear_looks_at_each_parameter_once(monkeypatch):
    """A look at all of them for each took seven seconds for a thousand parameters."""
    params = [parameter([1.0]) for _ in range(50)]
    optimizer = dragon_optim.RMSprop(params)
    for param in params:
        feed_gradient(param, np.ones(1, "float32"))
    optimizer.step()
    looks = []
    is_bare = SlotTable.is_bare
    monkeypatch.setattr(SlotTable, "is_bare", lambda table, slot: looks.append(slot) or is_bare(table, slot))
    assert len(optimizer.state) == len(params)
    assert looks, "the count does not count"
    del looks[:]
    optimizer.state.clear()
    assert len(looks) <= len(params)
    assert len(optimizer.state) == 0


def test_pop_hands_out_what_it_takes_away():
    optimizer, param = trained()
    expected = copied(optimizer.state[param])
    popped = optimizer.state.pop(param)
    assert copied(popped) == expected
    assert param not in optimizer.state
    optimizer.step()
    assert copied(popped) == expected


def test_setdefault_sets_where_there_is_nothing():
    param = parameter([1.0])
    optimizer = dragon_optim.RMSprop([param])
    optimizer.state.setdefault(param, {"step": 3, "square_avg": np.ones(1)})
    assert copied(optimizer.state[param]) == {"step": 3, "square_avg": [1.0]}


# --- tensors that somebody holds ------------------------------------------------------------------


@pytest.mark.parametrize("forget", ["del", "clear", "drop-optimizer"])
def test_a_held_tensor_survives(forget):
    optimizer, param = trained(alpha=0.75)
    held = optimizer.state[param]["square_avg"]
    if forget == "del":
        del optimizer.state[param]
    elif forget == "clear":
        optimizer.state.clear()
    else:
        del optimizer
        gc.collect()
        optimizer = dragon_optim.RMSprop([param], alpha=0.75, momentum=0.9, centered=True)
    optimizer.step()
    optimizer.step()
    assert values(held).tolist() == [0.25] * 3
    assert optimizer.state[param]["square_avg"] is not held
    assert values(optimizer.state[param]["square_avg"]).tolist() == [0.4375] * 3


def test_a_held_tensor_survives_even_several_optimizers():
    optimizer, param = trained(alpha=0.75)
    held = optimizer.state[param]["square_avg"]
    for _ in range(5):
        del optimizer
        optimizer = dragon_optim.RMSprop([param], alpha=0.5, momentum=0.9, centered=True)
        optimizer.step()
    assert values(held).tolist() == [0.25] * 3


# --- options that change what is in use -----------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "name"), [("momentum", 0.5, "momentum_buffer"), ("centered", True, "grad_avg")]
)
def test_switched_on_in_the_middle_the_buffer_starts_at_zero(key, value, name):
    """PyTorch raises a KeyError there; schedulers that cycle the momentum need it."""
    optimizer, param = trained(alpha=0.75, eps=1.0)
    optimizer.param_groups[0][key] = value
    optimizer.step()
    fresh = {"momentum_buffer": 1 / (np.sqrt(0.4375) + 1), "grad_avg": 0.25}
    assert values(optimizer.state[param][name]) == pytest.approx([fresh[name]] * 3, rel=1e-6)
    assert optimizer.state[param]["step"] == 2


def test_switched_off_the_buffer_rests_and_goes_on_later():
    optimizer, param = trained(momentum=0.5)
    before = copied(optimizer.state[param])["momentum_buffer"]
    optimizer.param_groups[0]["momentum"] = 0
    optimizer.step()
    assert copied(optimizer.state[param])["momentum_buffer"] == before
    optimizer.param_groups[0]["momentum"] = 0.5
    optimizer.step()
    assert copied(optimizer.state[param])["momentum_buffer"] != before
