# SPDX-License-Identifier: BSD-2-Clause
"""`optimizer.state` behaves like PyTorch's mapping, over memory that the operators update."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from tests.optim.states import copied, trained
from tests.optim.support import backward, feed_gradient, parameter, values

IN_USE = [
    (dict(), ["square_avg"]),
    (dict(momentum=0.9), ["square_avg", "momentum_buffer"]),
    (dict(centered=True), ["square_avg", "grad_avg"]),
    (dict(momentum=0.9, centered=True), ["square_avg", "momentum_buffer", "grad_avg"]),
]


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(("options", "names"), IN_USE, ids=lambda each: "+".join(each) or "plain")
def test_only_what_is_in_use(options, names, dtype):
    param = parameter([1.0, 2.0], dtype)
    optimizer = dragon_optim.RMSprop([param], **options)
    assert len(optimizer.state) == 0
    feed_gradient(param, np.ones(2, dtype))
    optimizer.step()
    half = dtype == "float16"
    assert list(optimizer.state[param]) == ["step", *names, *["master_param"] * half]
    assert {optimizer.state[param][name].dtype for name in names} == {"float32" if half else dtype}
    assert {tuple(optimizer.state[param][name].shape) for name in names} == {(2,)}


def test_a_parameter_without_a_gradient_has_no_state():
    param, idle = parameter([1.0]), parameter([1.0])
    optimizer = dragon_optim.RMSprop([param, idle], momentum=0.9)
    backward(param, 1.0)
    optimizer.step()
    assert [each is param for each in optimizer.state] == [True]
    assert param in optimizer.state
    assert idle not in optimizer.state
    assert len(optimizer.state[idle]) == 0
    assert idle not in optimizer.state  # reading does not make an entry that counts


def test_it_is_a_mapping():
    optimizer, param = trained()
    assert isinstance(optimizer.state, Mapping)
    assert isinstance(optimizer.state[param], Mapping)
    assert [key is param for key in optimizer.state] == [True]
    assert [dict(entry) for entry in optimizer.state.values()] == [dict(optimizer.state[param])]
    assert "square_avg" in repr(optimizer.state)


def test_get_of_what_is_not_there_is_the_default():
    param = parameter([1.0])
    optimizer = dragon_optim.RMSprop([param])
    assert optimizer.state.get(param) is None
    assert optimizer.state.get("unknown", 5) == 5
    assert list(optimizer.state) == []


def test_step_is_live_and_an_int():
    optimizer, param = trained()
    entry = optimizer.state[param]
    assert (type(entry["step"]), entry["step"]) == (int, 1)
    optimizer.step()
    assert entry["step"] == 2


def test_tensors_are_the_ones_that_a_step_updates():
    optimizer, param = trained(alpha=0.75)
    square_avg = optimizer.state[param]["square_avg"]
    assert optimizer.state[param]["square_avg"] is square_avg
    assert values(square_avg).tolist() == [0.25] * 3
    optimizer.step()
    assert values(square_avg).tolist() == [0.4375] * 3
    square_avg.zero_()
    optimizer.step()
    assert values(square_avg).tolist() == [0.25] * 3


def test_two_parameters_over_one_tensor_have_one_state():
    param = parameter([1.0])
    twin = torch.nn.Parameter(param)
    optimizer = dragon_optim.RMSprop([param])
    backward(param, 1.0)
    optimizer.step()
    assert optimizer.state[twin]["square_avg"] is optimizer.state[param]["square_avg"]


# --- assigning ------------------------------------------------------------------------------------

SOURCES = {
    "array": lambda array: array,
    "array-of-float64": lambda array: array.astype("float64"),
    "list": lambda array: array.tolist(),
    "tensor": lambda array: torch.tensor(array),
}


@pytest.mark.parametrize("source", SOURCES)
def test_assigned_values_are_copied_and_used(source):
    optimizer, param = trained(alpha=0.5)
    array = np.full(3, 8.0, "float32")
    given = SOURCES[source](array)
    optimizer.state[param]["square_avg"] = given
    array[:] = 0
    if source == "tensor":
        given.zero_()
    optimizer.step()
    assert values(optimizer.state[param]["square_avg"]).tolist() == [4.5] * 3


def test_a_scalar_parameter_takes_numbers():
    param = parameter(1.0)
    optimizer = dragon_optim.RMSprop([param], alpha=0.5)
    optimizer.state[param]["square_avg"] = 8.0
    optimizer.state[param]["square_avg"] = np.float32(8.0)
    backward(param, 1.0)
    optimizer.step()
    assert optimizer.state[param]["square_avg"].numpy() == 4.5


@pytest.mark.parametrize(
    "value",
    [7, 7.0, True + 6, np.int64(7), np.float32(7), np.array(7.0, "float32"), "tensor"],
    ids=lambda value: type(value).__name__,
)
def test_step_may_be_anything_that_is_a_whole_number(value):
    """PyTorch's own checkpoints hold it as a float32 tensor."""
    optimizer, param = trained()
    optimizer.state[param]["step"] = torch.tensor(7.0) if isinstance(value, str) else value
    optimizer.step()
    assert optimizer.state[param]["step"] == 8


def test_state_assigned_before_the_first_step_is_where_it_starts():
    source, source_param = trained(momentum=0.9, alpha=0.5)
    param = parameter(values(source_param))
    optimizer = dragon_optim.RMSprop([param], momentum=0.9, alpha=0.5)
    optimizer.state[param] = source.state[source_param]
    for each, weight in ((source, source_param), (optimizer, param)):
        backward(weight, 0.5)
        each.step()
    assert copied(optimizer.state[param]) == copied(source.state[source_param])
    assert values(param).tolist() == values(source_param).tolist()


def test_an_entry_assigned_replaces_the_old_one():
    optimizer, param = trained(momentum=0.9)
    optimizer.state[param]["mine"] = 5
    optimizer.state[param] = {"step": 3, "square_avg": np.zeros(3)}
    assert copied(optimizer.state[param]) == {"step": 3, "square_avg": [0.0] * 3}


def test_an_entry_can_be_assigned_to_itself():
    optimizer, param = trained(momentum=0.9)
    before = copied(optimizer.state[param])
    optimizer.state[param] = optimizer.state[param]
    assert copied(optimizer.state[param]) == before


def test_the_whole_state_can_be_assigned_to_itself():
    optimizer, param = trained(momentum=0.9)
    before = copied(optimizer.state[param])
    optimizer.state = optimizer.state
    assert copied(optimizer.state[param]) == before
    optimizer.state = dict(optimizer.state)
    assert copied(optimizer.state[param]) == before


def test_the_whole_state_is_replaced():
    optimizer, param, other = trained(2)
    optimizer.state["key"] = "old"
    optimizer.state = {other: {"step": 5, "square_avg": np.ones(3)}, 3: "new"}
    assert param not in optimizer.state
    assert "key" not in optimizer.state
    assert optimizer.state[3] == "new"
    assert copied(optimizer.state[other]) == {"step": 5, "square_avg": [1.0] * 3}


def test_two_entries_never_share_memory():
    optimizer, param, other = trained(2, alpha=0.5)
    optimizer.state[other] = optimizer.state[param]
    optimizer.state[param]["square_avg"].zero_()
    assert values(optimizer.state[other]["square_avg"]).tolist() == [0.5] * 3


# --- what is not ours -----------------------------------------------------------------------------


def test_unknown_keys_are_kept():
    optimizer, param = trained()
    optimizer.state["seen"] = {"epochs": 3}
    optimizer.state[param]["ema"] = kept = torch.ones(2)
    optimizer.step()
    assert optimizer.state["seen"] == {"epochs": 3}
    assert optimizer.state[param]["ema"] is kept
    assert list(optimizer.state[param]) == ["step", "square_avg", "ema"]
    first, second = optimizer.state
    assert first is param  # `==` is element-wise, and its result always true
    assert second == "seen"
    del optimizer.state["seen"], optimizer.state[param]["ema"]
    assert list(optimizer.state[param]) == ["step", "square_avg"]
    assert "seen" not in optimizer.state


def test_reading_an_unknown_key_makes_an_entry_as_in_pytorch():
    optimizer, _ = trained()
    optimizer.state["history"]["loss"] = 1.0
    assert optimizer.state["history"] == {"loss": 1.0}
