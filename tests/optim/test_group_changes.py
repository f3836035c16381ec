# SPDX-License-Identifier: BSD-2-Clause
"""What a user changes in `param_groups` between steps is noticed at the next one."""

from __future__ import annotations

import decimal
import fractions

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from tests.optim.support import backward, moves, parameter, snapshot, values

# With these each step moves a parameter by lr * sign(gradient).
SIGN = dict(alpha=0.0, eps=0.0)


def two(**options):
    p, q = parameter([1.0]), parameter([2.0])
    return (
        p,
        q,
        dragon_optim.RMSprop([{"params": [p]}, {"params": [q], "lr": 0.25}], lr=0.5, **SIGN, **options),
    )


# --- options that change --------------------------------------------------------------------------

NUMBERS = {
    "float": lambda: 0.125,
    "int": lambda: 2,
    "bool": lambda: True,
    "zero": lambda: 0,
    "float32": lambda: np.float32(0.125),
    "int64": lambda: np.int64(2),
    "float16": lambda: np.float16(0.125),
    "array": lambda: np.array(0.125),
    "array-of-one": lambda: np.array([0.125]),
    "fraction": lambda: fractions.Fraction(1, 8),
    "decimal": lambda: decimal.Decimal("0.125"),
    "tensor": lambda: torch.tensor(0.125),
    "tensor-of-one": lambda: torch.tensor([0.125]),
    "tensor-of-float64": lambda: torch.tensor(0.125, dtype="float64"),
    "tensor-of-int64": lambda: torch.tensor(2, dtype="int64"),
    "parameter": lambda: parameter(0.125),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_of_every_kind(kind):
    p = parameter([1.0])
    made = dragon_optim.RMSprop([p], lr=NUMBERS[kind](), **SIGN)
    expected = float(
        np.array(NUMBERS[kind]().numpy() if hasattr(NUMBERS[kind](), "numpy") else NUMBERS[kind]())
    )
    assert moves(made, p) == [expected]
    changed = dragon_optim.RMSprop([p], lr=9.0, **SIGN)
    assert moves(changed, p) == [9.0]
    changed.param_groups[0]["lr"] = NUMBERS[kind]()
    assert moves(changed, p) == [expected]


TRUE = {
    "bool": lambda: True,
    "int": lambda: 1,
    "bool_": lambda: np.bool_(True),
    "int64": lambda: np.int64(1),
    "array": lambda: np.array(True),
    "tensor": lambda: torch.tensor(True),
    "tensor-of-one": lambda: torch.tensor([1]),
}
FALSE = {
    "bool": lambda: False,
    "int": lambda: 0,
    "bool_": lambda: np.bool_(False),
    "int64": lambda: np.int64(0),
    "array": lambda: np.array(False),
    "tensor": lambda: torch.tensor(False),
    "tensor-of-one": lambda: torch.tensor([0]),
}


@pytest.mark.parametrize("kind", TRUE)
@pytest.mark.parametrize("way", ["given", "set"])
def test_modes_of_every_kind(way, kind):
    def make(**modes):
        optimizer = dragon_optim.RMSprop([parameter([1.0])], **(modes if way == "given" else {}))
        optimizer.param_groups[0].update(modes)
        (param,) = optimizer.param_groups[0]["params"]
        moves(optimizer, param)
        return optimizer, param

    assert make(foreach=FALSE[kind](), differentiable=FALSE[kind]())[1].is_leaf
    assert not make(foreach=FALSE[kind](), differentiable=TRUE[kind]())[1].is_leaf
    with pytest.raises(AssertionError, match="^_foreach ops don't support autograd"):
        make(foreach=TRUE[kind](), differentiable=TRUE[kind]())
    operators = []
    for value in (FALSE[kind](), TRUE[kind]()):
        optimizer, _ = make(foreach=value)
        optimizer.add_param_group({"params": [parameter([1.0]), parameter([2.0])], "foreach": value})
        definition, _ = optimizer.update_graph()
        operators.append([each.type for each in definition.op].count("DragonOptimRMSprop"))
    assert operators == [3, 2]


def test_a_tensor_or_an_array_may_change_in_place():
    p, q = parameter([1.0]), parameter([1.0])
    tensor, array = torch.tensor(0.5), np.array(0.5)
    optimizer = dragon_optim.RMSprop([{"params": [p], "lr": tensor}, {"params": [q], "lr": array}], **SIGN)
    assert moves(optimizer, p, q) == [0.5, 0.5]
    tensor.fill_(0.25)
    array[...] = 0.125
    assert moves(optimizer, p, q) == [0.25, 0.125]


def test_a_number_equal_to_a_tensor_is_noticed():
    """In Dragon `(0.5,) == (tensor,)` is true whatever the tensor holds."""
    p = parameter([1.0])
    optimizer = dragon_optim.RMSprop([p], lr=torch.tensor(0.5), **SIGN)
    moves(optimizer, p)
    optimizer.param_groups[0]["lr"] = 0.25
    assert moves(optimizer, p) == [0.25]
    optimizer.param_groups[0]["lr"] = torch.tensor(0.125)
    assert moves(optimizer, p) == [0.125]


@pytest.mark.parametrize("foreach", [None, False])
def test_every_option_can_change_between_steps(foreach):
    """A run whose options are set before each step equals a run that was made with them."""
    plan = [
        dict(lr=0.5),
        dict(maximize=True),
        dict(weight_decay=0.5),
        dict(clip_value=0.25),
        dict(grad_scale=2.0),
    ]
    p = parameter([1.0, -2.0])
    optimizer = dragon_optim.RMSprop([p], foreach=foreach)
    options = {}
    for change in plan:
        options.update(change)
        optimizer.param_groups[0].update(change)
        q = parameter(values(p))
        other = dragon_optim.RMSprop([q], **options)
        if p in optimizer.state:
            other.state[q] = optimizer.state[p]
        backward(p, 0.5, q, 0.5)
        optimizer.step()
        other.step()
        assert values(p).tobytes() == values(q).tobytes()


def test_a_bad_value_in_one_group_keeps_all_groups_as_they_are():
    p, q, optimizer = two(momentum=0.9)
    moves(optimizer, p, q)
    before = snapshot(optimizer, p, q)
    optimizer.param_groups[0]["lr"] = 9.0
    optimizer.param_groups[1]["alpha"] = -1
    with pytest.raises(ValueError, match="^Invalid alpha value: -1"):
        optimizer.step()
    assert snapshot(optimizer, p, q) == before
    optimizer.param_groups[0]["lr"] = 0.5
    optimizer.param_groups[1]["alpha"] = 0.0
    optimizer.step()
    assert snapshot(optimizer, p, q) != before


# --- the list of parameters, changed by hand ------------------------------------------------------


def test_replaced():
    p, q = parameter([1.0]), parameter([2.0])
    optimizer = dragon_optim.RMSprop([p], lr=0.5, **SIGN)
    assert moves(optimizer, p, q) == [0.5, 0.0]
    optimizer.param_groups[0]["params"] = [q]
    assert moves(optimizer, p, q) == [0.0, 0.5]
    optimizer.param_groups[0]["params"][0] = p  # the same list, one element replaced
    assert moves(optimizer, p, q) == [0.5, 0.0]
    assert [optimizer.state[each]["step"] for each in (p, q)] == [2, 1]


def test_grown_and_shrunk():
    p, q, r = (parameter([float(i)]) for i in range(3))
    optimizer = dragon_optim.RMSprop([p], lr=0.5, **SIGN)
    moves(optimizer, p)
    params = optimizer.param_groups[0]["params"]
    params.extend([q, r])
    assert moves(optimizer, p, q, r) == [0.5] * 3
    del params[0]
    assert moves(optimizer, p, q, r) == [0.0, 0.5, 0.5]
    params.clear()
    assert moves(optimizer, p, q, r) == [0.0] * 3
    params.append(p)
    assert moves(optimizer, p, q, r) == [0.5, 0.0, 0.0]
    assert [optimizer.state[each]["step"] for each in (p, q, r)] == [3, 2, 2]


def test_reordered():
    p, q, optimizer = two()
    moves(optimizer, p, q)
    optimizer.param_groups.reverse()
    assert moves(optimizer, p, q) == [0.5, 0.25]
    first, second = optimizer.param_groups
    first["params"], second["params"] = second["params"], first["params"]
    assert moves(optimizer, p, q) == [0.25, 0.5]


def test_a_tuple_becomes_a_list():
    p = parameter([1.0])
    optimizer = dragon_optim.RMSprop([p], lr=0.5, **SIGN)
    optimizer.param_groups[0]["params"] = (p,)
    assert moves(optimizer, p) == [0.5]
    assert type(optimizer.param_groups[0]["params"]) is list


def test_a_group_added_to_a_tuple_of_groups():
    first, second = parameter([1.0]), parameter([1.0])
    optimizer = dragon_optim.RMSprop([first], lr=0.5, **SIGN)
    optimizer.param_groups = tuple(optimizer.param_groups)
    assert moves(optimizer, first) == [0.5]
    optimizer.add_param_group({"params": second, "lr": 0.25})
    assert isinstance(optimizer.param_groups, list)
    assert moves(optimizer, first, second) == [0.5, 0.25]


def test_groups_taken_away_and_given_back():
    p, q, optimizer = two()
    moves(optimizer, p, q)
    groups = list(optimizer.param_groups)
    optimizer.param_groups.clear()
    assert moves(optimizer, p, q) == [0.0, 0.0]
    optimizer.param_groups = groups
    assert moves(optimizer, p, q) == [0.5, 0.25]
    del optimizer.param_groups[0]
    assert moves(optimizer, p, q) == [0.0, 0.25]
