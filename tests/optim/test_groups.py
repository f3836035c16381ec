# SPDX-License-Identifier: BSD-2-Clause
"""Parameter groups: how they are given, added and printed, with PyTorch's words for what is wrong."""

from __future__ import annotations

import warnings
from collections import OrderedDict

import pytest
from dragon.vm import torch
from dragon.vm.torch.core.optim.optimizer import required

import dragon_optim
from tests.optim.support import moves, parameter, snapshot, values

# With alpha=0, eps=0 each step moves a parameter by lr * sign(gradient).
SIGN = dict(alpha=0.0, eps=0.0)
DUPLICATES = "contains a parameter group with duplicate parameters; in future, this will cause an error"


def two(**options):
    p, q = parameter([1.0]), parameter([2.0])
    return (
        p,
        q,
        dragon_optim.RMSprop([{"params": [p]}, {"params": [q], "lr": 0.25}], lr=0.5, **SIGN, **options),
    )


# --- how parameters are given ---------------------------------------------------------------------

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
    assert (
        optimizer.param_groups[0] is group
    )  # PyTorch's behaviour: scripts keep their groups and change them
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
    assert [optimizer.state[param]["square_avg"].dtype for param in params] == [
        "float32",
        "float64",
        "float32",
    ]


# --- unknown keys ---------------------------------------------------------------------------------


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


# --- add_param_group ------------------------------------------------------------------------------


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
    "type": (
        lambda p, q: {"params": [q, 5]},
        TypeError,
        "^optimizer can only optimize Tensors, but one of the params is",
    ),
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
    with pytest.raises(
        ValueError, match="^parameter group didn't specify a value of required optimization parameter lr"
    ):
        dragon_optim.Optimizer([p], {"lr": required})
    optimizer = dragon_optim.Optimizer([{"params": [p], "lr": 0.5}], {"lr": required})
    assert optimizer.param_groups[0]["lr"] == 0.5


# --- duplicates -----------------------------------------------------------------------------------


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


# --- repr -----------------------------------------------------------------------------------------


def test_repr_has_pytorchs_layout():
    optimizer = dragon_optim.RMSprop(
        [{"params": [parameter([1.0])], "name": "a"}, {"params": [parameter([1.0])]}]
    )
    for group in optimizer.param_groups:
        for key in set(group) - {"params", "lr", "alpha", "name"}:
            del group[key]
    assert repr(optimizer) == (
        "RMSprop (\n"
        "Parameter Group 0\n    alpha: 0.99\n    lr: 0.01\n    name: a\n"
        "\n"
        "Parameter Group 1\n    alpha: 0.99\n    lr: 0.01\n)"
    )


def test_repr_with_keys_of_every_kind():
    optimizer = dragon_optim.RMSprop([{"params": [parameter([1.0])], 5: "five", None: "none", "name": "a"}])
    assert "\n    5: five\n    None: none\n    alpha: 0.99\n" in repr(optimizer)
    assert "\n    name: a\n" in repr(optimizer)


def test_repr_names_the_subclass():
    class Mine(dragon_optim.RMSprop):
        pass

    assert repr(Mine([parameter([1.0])])).startswith("Mine (\nParameter Group 0\n")
