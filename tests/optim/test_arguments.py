# SPDX-License-Identifier: BSD-2-Clause
"""No argument is accepted and ignored, and the documentation says what the signatures say."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest

import dragon_optim
from tests import oracle
from tests.optim.support import backward, parameter, values

# What PyTorch and Dragon agree on; the rest must be given by name.
POSITIONAL = ["params", "lr", "alpha", "eps", "weight_decay", "momentum", "centered"]

# A value other than the default, and what must be on for it to matter.
CHANGES = {
    "lr": (0.02, {}),
    "alpha": (0.5, {}),
    "eps": (0.5, {}),
    "weight_decay": (0.1, {}),
    "momentum": (0.5, {}),
    "centered": (True, {}),
    "maximize": (True, {}),
    "grad_scale": (0.1, dict(eps=0.1)),
    "clip_norm": (0.5, dict(eps=0.1)),
    "clip_value": (0.25, dict(eps=0.1)),
    "lr_in_momentum": (True, dict(momentum=0.5)),
    "eps_inside_sqrt": (True, dict(eps=0.1)),
    "decoupled_weight_decay": (True, dict(weight_decay=0.1)),
    "initial_square_avg": (1.0, {}),
}
# These change how, not what, and have tests of their own below.
OTHERS = {"params", "foreach", "differentiable", "scale"}

GRADIENTS = [[0.5, -2.0, 1.0], [1.0, 0.75, -0.5], [-3.0, 0.125, 2.0]]
START = [1.0, -2.0, 0.5]


def signature(function):
    return {name: each for name, each in inspect.signature(function).parameters.items() if name != "self"}


def train(group=(), change_later=(), **options):
    """Three steps, the learning rate halved on the way. Return the parameter and its optimizer."""
    param = parameter(START, "float64")
    optimizer = dragon_optim.RMSprop([dict(group, params=[param])], **options)
    optimizer.param_groups[0].update(change_later)
    for step, gradient in enumerate(GRADIENTS):
        backward(param, gradient)
        optimizer.step()
        if step == 0:
            optimizer.param_groups[0]["lr"] *= 0.5
    return param, optimizer


def textbook(**options):
    trajectory = oracle.Trajectory(START)
    lr = options.pop("lr", 0.01)
    for step, gradient in enumerate(GRADIENTS):
        trajectory.advance(gradient, lr=lr if step == 0 else lr / 2, **options)
    return trajectory.parameter


def test_every_argument_is_in_the_tables():
    assert set(signature(dragon_optim.RMSprop)) == set(CHANGES) | OTHERS


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("way", ["argument", "group", "later"])
def test_changes_the_result_to_what_the_textbook_says(name, way):
    value, others = CHANGES[name]
    place = {
        "argument": {name: value},
        "group": dict(group={name: value}),
        "later": dict(change_later={name: value}),
    }
    param, _ = train(**others, **place[way])
    expected = textbook(**others, **{name: value})
    assert values(param) == pytest.approx(expected, rel=1e-12)
    assert np.all(np.abs(expected - textbook(**others)) > 1e-6)


@pytest.mark.parametrize("name", CHANGES)
def test_the_default_of_the_textbook_is_ours(name):
    """So that the test above compares with the right thing."""
    default = signature(oracle.Trajectory.advance)[name].default
    assert float(train()[1].defaults[name]) == default


def test_scale_is_the_older_name_of_grad_scale():
    param, optimizer = train(scale=0.1, eps=0.1)
    assert values(param) == pytest.approx(textbook(grad_scale=0.1, eps=0.1), rel=1e-12)
    assert optimizer.param_groups[0]["grad_scale"] == 0.1
    assert "scale" not in optimizer.param_groups[0]


@pytest.mark.parametrize("way", ["constructor", "add_param_group"])
def test_scale_in_a_group_is_grad_scale(way):
    param = parameter([0.0], "float64")
    group = {"params": [param], "scale": 0.1}
    if way == "constructor":
        optimizer = dragon_optim.RMSprop([group], alpha=0.5, eps=1.0)
    else:
        optimizer = dragon_optim.RMSprop([parameter(START)], alpha=0.5, eps=1.0)
        optimizer.add_param_group(group)
    backward(param, 10.0)
    optimizer.step()
    assert values(optimizer.state[param]["square_avg"]) == pytest.approx([0.5])
    assert optimizer.param_groups[-1]["grad_scale"] == 0.1


@pytest.mark.parametrize("values_given", [(1, 1), (2, 0.5), (1, None)], ids=str)
def test_both_names_of_grad_scale_are_refused(values_given):
    scale, grad_scale = values_given
    with pytest.raises(TypeError, match="scale.*grad_scale"):
        dragon_optim.RMSprop([parameter(START)], scale=scale, grad_scale=grad_scale)


@pytest.mark.parametrize(("foreach", "operators"), [(None, 1), (True, 1), (False, 3)])
def test_foreach_decides_how_many_operators_run(foreach, operators, monkeypatch):
    from dragon_optim._dragon import graphs

    made = []
    make = graphs.operator
    monkeypatch.setattr(
        graphs, "operator", lambda kind, *args, **kwargs: made.append(kind) or make(kind, *args, **kwargs)
    )
    params = [parameter(START) for _ in range(3)]
    optimizer = dragon_optim.RMSprop(params, foreach=foreach)
    for param in params:
        backward(param, 1.0)
    optimizer.step()
    assert made.count("DragonOptimRMSprop") == operators


def test_differentiable_puts_the_step_on_the_tape():
    for differentiable in (False, True):
        param = parameter(START)
        optimizer = dragon_optim.RMSprop([param], differentiable=differentiable)
        backward(param, 1.0)
        optimizer.step()
        assert param.is_leaf == (not differentiable)


def test_infinities_that_pass_the_range_checks():
    for name in ("lr", "alpha", "eps", "weight_decay", "momentum", "clip_norm", "clip_value", "grad_scale"):
        dragon_optim.RMSprop([parameter(START)], **{name: float("inf")})
    dragon_optim.RMSprop([parameter(START)], lr=0, alpha=2.0, grad_scale=-1)


# --- signatures and their documentation -----------------------------------------------------------


def test_what_is_positional():
    found = signature(dragon_optim.RMSprop)
    kinds = {name: each.kind for name, each in found.items()}
    assert list(found)[: len(POSITIONAL)] == POSITIONAL
    assert {kinds[name] for name in POSITIONAL} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    assert {kinds[name] for name in set(found) - set(POSITIONAL)} == {inspect.Parameter.KEYWORD_ONLY}


def test_positional_arguments_land_where_pytorch_puts_them():
    optimizer = dragon_optim.RMSprop([parameter(START)], 0.5, 0.25, 0.125, 0.0625, 0.75, True)
    group = optimizer.param_groups[0]
    assert [group[name] for name in POSITIONAL[1:]] == [0.5, 0.25, 0.125, 0.0625, 0.75, True]


def documented_defaults(text):
    """Name -> default, of each "name : type, optional, default=..." in a docstring."""
    return dict(
        re.findall(r"^ *(\w+) : [^\n]*?, optional, default=(\S+)$", inspect.cleandoc(text), re.MULTILINE)
    )


DOCUMENTED = [
    dragon_optim.RMSprop,
    dragon_optim.RMSpropTF,
    dragon_optim.Optimizer,
    dragon_optim.RMSprop.zero_grad,
]


@pytest.mark.parametrize("function", DOCUMENTED, ids=lambda each: each.__qualname__)
def test_documented_defaults_are_those_of_the_signature(function):
    defaults = {
        name: each.default
        for name, each in signature(function).items()
        if each.default is not inspect.Parameter.empty
    }
    found = documented_defaults(function.__doc__)
    assert {name: eval(text, {}) for name, text in found.items()} == defaults


@pytest.mark.parametrize(
    "function", [*DOCUMENTED, dragon_optim.Optimizer.step, dragon_optim.Optimizer.add_param_group]
)
def test_every_argument_is_documented(function):
    text = inspect.cleandoc(function.__doc__)
    assert [name for name in signature(function) if not re.search(rf"^{name} : ", text, re.MULTILINE)] == []


# --- arguments of the methods ---------------------------------------------------------------------


def test_zero_grad_by_position_and_by_name():
    param = parameter(START)
    optimizer = dragon_optim.RMSprop([param])
    for call, empty in [
        (lambda: optimizer.zero_grad(), False),
        (lambda: optimizer.zero_grad(True), True),
        (lambda: optimizer.zero_grad(set_to_none=True), True),
        (lambda: optimizer.zero_grad(False), False),
    ]:
        backward(param, 1.0)
        call()
        assert (param.grad is None) == empty


def test_drop_sums_changes_the_step():
    kept, dropped = parameter(START), parameter(START)
    optimizers = {param: dragon_optim.RMSprop([param]) for param in (kept, dropped)}
    for param, optimizer in optimizers.items():
        backward(param, 1.0)
        optimizer.sum_grad()
        optimizer.zero_grad(set_to_none=True, drop_sums=param is dropped)
        optimizer.step()
    assert values(kept).tolist() != START
    assert values(dropped).tolist() == START


def test_arguments_of_the_base_class():
    """A subclass passes them through: they are checked and become defaults."""
    options = dict(grad_scale=2, clip_norm=3, clip_value=0)
    optimizer = dragon_optim.Optimizer([parameter(START)], {"lr": 0.5}, **options)
    assert {key: optimizer.param_groups[0][key] for key in ("lr", *options)} == dict(options, lr=0.5)
    assert optimizer.defaults["clip_norm"] == 3
    with pytest.raises(ValueError, match="^Invalid clip_norm value: -1"):
        dragon_optim.Optimizer([parameter(START)], {}, clip_norm=-1)
    assert dragon_optim.Optimizer([parameter(START)], {}).defaults == dict(
        grad_scale=1, clip_norm=0, clip_value=0
    )
