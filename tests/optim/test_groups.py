# SPDX-License-Identifier: BSD-2-Clause
"""Parameter groups: how they are given, changed, added and printed, with PyTorch's words for what is wrong."""

from __future__ import annotations

import decimal
import fractions
import warnings
from collections import OrderedDict

import numpy as np
import pytest
from dragon.vm import torch
from dragon.vm.torch.core.optim.optimizer import required

import dragon_optim
from tests.optim.support import backward, parameter, snapshot, values

# With alpha=0, eps=0 each step moves a parameter by lr * sign(gradient).
SIGN = dict(alpha=0.0, eps=0.0)
DUPLICATES = "contains a parameter group with duplicate parameters; in future, this will cause an error"


def moves(optimizer, *params):
    """How far one step from gradients of 1 takes each parameter."""
    before = [values(param) for param in params]
    for param in params:
        backward(param, 1.0)
    optimizer.step()
    return [round(float((old - values(param)).reshape(-1)[0]), 6) for old, param in zip(before, params)]


def two(**options):
    p, q = parameter([1.0]), parameter([2.0])
    return p, q, dragon_optim.RMSprop([{"params": [p]}, {"params": [q], "lr": 0.25}], lr=0.5, **SIGN, **options)


# --- how parameters are given -------------------------------------------------------------------------------------

WAYS = {
    "list": lambda p: [p],
    "tuple": lambda p: (p,),
    "generator": lambda p: (each for each in [p]),
    "iterator": lambda p: iter([p]),
    "values-of-a-dict": lambda p: {"weight": p}.values(),
    "groups": lambda p: [{"params": [p]}],
    "group-of-one-tensor": lambda p: [{"params": p}],
    "group-of-a-generator": lambda p: ({"params": (each for each in [p])} for _ in range(1)),
    "ordered-dict": lambda p: [OrderedDict(params=[p])],
    "names": lambda p: [("weight", p)],
    "names-from-a-dict": lambda p: {"weight": p}.items(),
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_give_parameters(way):
    p = parameter([1.0])
    optimizer = dragon_optim.RMSprop(WAYS[way](p), lr=0.5, **SIGN)
    assert type(optimizer.param_groups[0]["params"]) is list
    assert optimizer.param_groups[0]["params"][0] is p
    assert moves(optimizer, p) == [0.5]


def test_a_model_and_its_named_parameters():
    model = torch.nn.Linear(2, 3)
    names = [name for name, _ in model.named_parameters()]
    optimizer = dragon_optim.RMSprop(model.named_parameters(), lr=0.5, **SIGN)
    assert optimizer.param_groups[0]["param_names"] == names
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert all(optimizer.state[param]["step"] == 1 for param in model.parameters())


def test_names_in_all_groups_or_in_none():
    p, q = parameter([1.0]), parameter([2.0])
    optimizer = dragon_optim.RMSprop([("p", p)])
    with pytest.raises(ValueError, match="^all optimizer param groups should be with/without names"):
        optimizer.add_param_group({"params": [q]})
    optimizer.add_param_group({"params": [("q", q)]})
    assert [group["param_names"] for group in optimizer.param_groups] == [["p"], ["q"]]


def test_the_options_of_a_group_win_over_the_arguments():
    p, q, optimizer = two()
    assert moves(optimizer, p, q) == [0.5, 0.25]


def test_a_group_is_filled_with_the_defaults():
    group = {"params": [parameter([1.0])], "lr": 0.25}
    optimizer = dragon_optim.RMSprop([group], momentum=0.5)
    assert optimizer.param_groups[0] is group  # PyTorch's behaviour: scripts keep their groups and change them
    assert set(group) == {"params", *optimizer.defaults}
    assert (group["lr"], group["momentum"]) == (0.25, 0.5)


def test_an_empty_group_is_legal():
    p = parameter([1.0])
    optimizer = dragon_optim.RMSprop([{"params": []}, {"params": [p]}, {"params": []}], lr=0.5, **SIGN)
    assert moves(optimizer, p) == [0.5]
    only = dragon_optim.RMSprop([{"params": []}])
    only.step(), only.sum_grad(), only.zero_grad()


def test_a_parameter_that_is_frozen_may_be_given():
    p, frozen = parameter([1.0]), torch.nn.Parameter(torch.ones(1), requires_grad=False)
    optimizer = dragon_optim.RMSprop([p, frozen], lr=0.5, **SIGN)
    assert moves(optimizer, p) == [0.5]
    assert values(frozen).tolist() == [1.0]


def test_dtypes_may_be_mixed():
    params = [parameter([1.0], dtype) for dtype in ("float32", "float64", "float32")]
    optimizer = dragon_optim.RMSprop(params, lr=0.5, **SIGN)
    assert moves(optimizer, *params) == [0.5] * 3
    assert [optimizer.state[param]["square_avg"].dtype for param in params] == ["float32", "float64", "float32"]


# --- unknown keys -------------------------------------------------------------------------------------------------


def test_unknown_keys_are_kept():
    p = parameter([1.0])
    mine = object()
    optimizer = dragon_optim.RMSprop([{"params": [p], "lr_scale": 0.1, "name": "head", "mine": mine}])
    optimizer.param_groups[0]["initial_lr"] = 0.5
    moves(optimizer, p)
    group = optimizer.param_groups[0]
    assert (group["lr_scale"], group["name"], group["initial_lr"]) == (0.1, "head", 0.5)
    assert group["mine"] is mine


def test_a_group_with_a_misspelt_key_is_no_option():
    """PyTorch keeps such a key, too: it cannot know what a scheduler will look for."""
    p = parameter([1.0])
    optimizer = dragon_optim.RMSprop([{"params": [p], "learning_rate": 9.0}], lr=0.5, **SIGN)
    assert moves(optimizer, p) == [0.5]


# --- options that change ------------------------------------------------------------------------------------------

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
    expected = float(np.array(NUMBERS[kind]().numpy() if hasattr(NUMBERS[kind](), "numpy") else NUMBERS[kind]()))
    assert moves(made, p) == [expected]
    changed = dragon_optim.RMSprop([p], lr=9.0, **SIGN)
    assert moves(changed, p) == [9.0]
    changed.param_groups[0]["lr"] = NUMBERS[kind]()
    assert moves(changed, p) == [expected]


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
    plan = [dict(lr=0.5), dict(maximize=True), dict(weight_decay=0.5), dict(clip_value=0.25), dict(grad_scale=2.0)]
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


# --- the list of parameters, changed by hand ----------------------------------------------------------------------


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


# --- add_param_group ----------------------------------------------------------------------------------------------


def test_added_in_the_middle_of_a_training():
    p, q = parameter([1.0]), parameter([2.0])
    optimizer = dragon_optim.RMSprop([p], lr=0.5, momentum=0.9)
    moves(optimizer, p)
    state = values(optimizer.state[p]["momentum_buffer"])
    optimizer.add_param_group({"params": [q], "lr": 0.25})
    assert optimizer.param_groups[1]["momentum"] == 0.9
    assert values(optimizer.state[p]["momentum_buffer"]).tolist() == state.tolist()
    moves(optimizer, p, q)
    assert [optimizer.state[each]["step"] for each in (p, q)] == [2, 1]


FAILING_GROUPS = {
    "value": (lambda p, q: {"params": [q], "lr": -1}, ValueError, "^Invalid learning rate: -1"),
    "duplicate": (lambda p, q: {"params": [q, p]}, ValueError, "^some parameters appear in more than one"),
    "non-leaf": (lambda p, q: {"params": [q, q * 2]}, ValueError, "^can't optimize a non-leaf Tensor"),
    "set": (lambda p, q: {"params": {q}}, TypeError, "^optimizer parameters need to be organized in ordered"),
    "type": (lambda p, q: {"params": [q, 5]}, TypeError, "^optimizer can only optimize Tensors, but one of the params is"),
}


@pytest.mark.parametrize("what", FAILING_GROUPS)
def test_nothing_of_a_failing_group_is_added(what):
    make, exception, match = FAILING_GROUPS[what]
    p, q = parameter([1.0]), parameter([2.0])
    optimizer = dragon_optim.RMSprop([p], lr=0.5, **SIGN)
    moves(optimizer, p)
    group = make(p, q)
    keys, before = set(group), snapshot(optimizer, p)
    with pytest.raises(exception, match=match):
        optimizer.add_param_group(group)
    assert (set(group), len(optimizer.param_groups), snapshot(optimizer, p)) == (keys, 1, before)
    optimizer.add_param_group({"params": [q]})
    assert moves(optimizer, p, q) == [0.5, 0.5]


def test_required_options():
    """Dragon's marker of an option that has no default."""
    p = parameter([1.0])
    with pytest.raises(ValueError, match="^parameter group didn't specify a value of required optimization parameter lr"):
        dragon_optim.Optimizer([p], {"lr": required})
    optimizer = dragon_optim.Optimizer([{"params": [p], "lr": 0.5}], {"lr": required})
    assert optimizer.param_groups[0]["lr"] == 0.5


# --- duplicates ---------------------------------------------------------------------------------------------------


def test_a_duplicate_warns_in_pytorchs_words():
    p = parameter([1.0])
    with pytest.warns(UserWarning, match=DUPLICATES):
        dragon_optim.RMSprop([p, p])


def test_different_parameters_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dragon_optim.RMSprop([parameter([1.0]), parameter([1.0])])


def test_both_clips_warn_and_the_group_is_not_added_where_that_is_an_error():
    p, q = parameter([1.0]), parameter([2.0])
    optimizer = dragon_optim.RMSprop([p], lr=0.5, **SIGN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="clip_norm"):
            optimizer.add_param_group({"params": [q], "clip_norm": 1.0, "clip_value": 1.0})
    assert moves(optimizer, p, q) == [0.5, 0.0]
    assert q not in optimizer.state


# --- repr ---------------------------------------------------------------------------------------------------------


def test_repr_has_pytorchs_layout():
    optimizer = dragon_optim.RMSprop([{"params": [parameter([1.0])], "name": "a"}, {"params": [parameter([1.0])]}])
    for group in optimizer.param_groups:
        for key in set(group) - {"params", "lr", "alpha", "name"}:
            del group[key]
    assert repr(optimizer) == (
        "RMSprop (\n"
        "Parameter Group 0\n    alpha: 0.99\n    lr: 0.01\n    name: a\n"
        "\n"
        "Parameter Group 1\n    alpha: 0.99\n    lr: 0.01\n)"
    )


def test_repr_names_the_subclass():
    class Mine(dragon_optim.RMSprop):
        pass

    assert repr(Mine([parameter([1.0])])).startswith("Mine (\nParameter Group 0\n")
