# SPDX-License-Identifier: BSD-2-Clause
"""`RMSpropTF`: timm's arguments and keys, what is refused, and all that it shares with `RMSprop`."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from tests import oracle
from tests.golden.recording import Recording
from tests.optim.captured_steps import batches, mlp
from tests.optim.copied import Training, bits, step
from tests.optim.support import backward, parameter, snapshot, values

TIMM = Recording("float32", "rmsprop_tf").meta

GRADIENTS = [[0.5, -2.0, 1.0], [1.0, 0.75, -0.5], [-3.0, 0.125, 2.0]]
START = [1.0, -2.0, 0.5]

# What the class stands for, in the words of the textbook.
FORM = dict(alpha=0.9, eps=1e-10, eps_inside_sqrt=True, initial_square_avg=1.0, lr_in_momentum=True)
TEXTBOOK_NAMES = {"decoupled_decay": "decoupled_weight_decay", "scale": "grad_scale"}

# A value other than the default, and what must be on for it to matter.
CHANGES = {
    "lr": (0.02, {}),
    "alpha": (0.5, {}),
    "eps": (0.5, {}),
    "weight_decay": (0.1, {}),
    "momentum": (0.5, {}),
    "centered": (True, {}),
    "decoupled_decay": (True, dict(weight_decay=0.1)),
    "lr_in_momentum": (False, dict(momentum=0.5)),
    "maximize": (True, {}),
    "grad_scale": (0.1, {}),
    "clip_norm": (0.5, {}),
    "clip_value": (0.25, {}),
    "scale": (0.1, {}),
}
REFUSED = ("corrected_weight_decay", "caution")
OTHERS = {"params", "foreach", "differentiable", *REFUSED}


def signature() -> dict:
    parameters = inspect.signature(dragon_optim.RMSpropTF).parameters
    return {name: each for name, each in parameters.items() if name != "self"}


def train(group=(), cls=dragon_optim.RMSpropTF, **options):
    """Three steps, the learning rate halved on the way. Return the parameter and its optimizer."""
    param = parameter(START, "float64")
    optimizer = cls([dict(group, params=[param])], **options)
    go_on(param, optimizer)
    return param, optimizer


def go_on(param, optimizer):
    for number, gradient in enumerate(GRADIENTS):
        backward(param, gradient)
        optimizer.step()
        if number == 0:
            optimizer.param_groups[0]["lr"] *= 0.5


def textbook(**options):
    trajectory = oracle.Trajectory(START)
    options = dict(FORM, **{TEXTBOOK_NAMES.get(name, name): value for name, value in options.items()})
    lr = options.pop("lr", 0.01)
    for number, gradient in enumerate(GRADIENTS):
        trajectory.advance(gradient, lr=lr if number == 0 else lr / 2, **options)
    return trajectory.parameter


# --- arguments ------------------------------------------------------------------------------------


def test_has_timms_arguments_and_defaults():
    ours = signature()
    for name, default in TIMM["arguments"]:
        assert ours[name].default == default, name


def test_by_position_as_far_as_all_versions_of_timm_agree():
    positional = [name for name, each in signature().items() if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert positional == ["params", *(name for name, _ in TIMM["arguments"])][: len(positional)]
    assert positional[-1] == "decoupled_decay"
    param = parameter(START)
    arguments = (0.2, 0.8, 0.1, 0.3, 0.5, True, True)
    group = dragon_optim.RMSpropTF([param], *arguments).param_groups[0]
    assert tuple(group[name] for name in positional[1:]) == arguments
    with pytest.raises(TypeError, match="positional"):
        dragon_optim.RMSpropTF([param], *arguments, True)


def test_every_argument_is_in_the_tables():
    assert set(signature()) == set(CHANGES) | OTHERS


def test_the_defaults_are_the_textbooks():
    param, _ = train()
    assert values(param) == pytest.approx(textbook(), rel=1e-12)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("way", ["argument", "group"])
def test_changes_the_result_to_what_the_textbook_says(name, way):
    value, others = CHANGES[name]
    param, _ = train(**others, **({name: value} if way == "argument" else {"group": {name: value}}))
    expected = textbook(**others, **{name: value})
    assert values(param) == pytest.approx(expected, rel=1e-12)
    assert np.all(np.abs(expected - textbook(**others)) > 1e-6)


@pytest.mark.parametrize(("foreach", "operators"), [(None, 1), (True, 1), (False, 3)])
def test_foreach_decides_how_many_operators_run(foreach, operators):
    params = [parameter(START) for _ in range(3)]
    optimizer = dragon_optim.RMSpropTF(params, foreach=foreach)
    for param in params:
        backward(param, 1.0)
    graph, _ = optimizer.update_graph()
    assert [each.type for each in graph.op].count("DragonOptimRMSprop") == operators


def test_differentiable_puts_the_step_on_the_tape():
    param = parameter([1.0], "float64")
    rate = torch.tensor(0.1, dtype="float64", requires_grad=True)
    optimizer = dragon_optim.RMSpropTF([param], lr=rate, eps=0.25, differentiable=True)
    backward(param, 2.0)
    optimizer.step()
    param.sum().backward()
    # v = .9 + .1 * 4; the derivative by the rate is -g / sqrt(v + eps).
    assert values(rate.grad) == pytest.approx(-2 / np.sqrt(1.3 + 0.25), rel=1e-12)


def test_one_step_by_hand():
    param, other = parameter([1.0], "float64"), parameter([1.0], "float64")
    optimizer = dragon_optim.RMSpropTF([param], lr=0.5, eps=3.0, momentum=0.9)
    backward(param, 1.0)
    optimizer.step()
    assert values(optimizer.state[param]["square_avg"]) == pytest.approx([1.0], rel=1e-15)
    assert values(optimizer.state[param]["momentum_buffer"]) == pytest.approx([0.25], rel=1e-15)
    assert values(param) == pytest.approx([0.75], rel=1e-15)
    assert other not in optimizer.state


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("way", ["argument", "group"])
@pytest.mark.parametrize("on", [True, 1, np.True_], ids=repr)
def test_what_there_is_not_is_refused_at_construction(name, way, on):
    with pytest.raises(ValueError, match=f"^Invalid {name} value: {on} \\(need False: "):
        train(**({name: on} if way == "argument" else {"group": {name: on}}))


@pytest.mark.parametrize("name", REFUSED)
def test_switched_off_it_changes_nothing(name):
    param, optimizer = train(**{name: False})
    expected, _ = train(group={name: 0})
    assert values(param).tolist() == values(expected).tolist() == values(train()[0]).tolist()
    assert name not in optimizer.param_groups[0]


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_the_middle_with_nothing_changed(name):
    param, optimizer = train(momentum=0.5)
    other = parameter(START, "float64")
    before = snapshot(optimizer, param)
    saved = optimizer.state_dict()
    saved["param_groups"][0][name] = True
    optimizer.param_groups[0]["kept"] = 1
    with pytest.raises(ValueError, match=f"Invalid {name} value: True .*parameter group 0 of the loaded"):
        optimizer.load_state_dict(saved)
    with pytest.raises(ValueError, match=f"Invalid {name} value"):
        optimizer.add_param_group({"params": [other], name: True})
    assert len(optimizer.param_groups) == 1
    assert "kept" in optimizer.param_groups[0]
    optimizer.param_groups[0][name] = True
    backward(param, 1.0)
    with pytest.raises(ValueError, match=f"Invalid {name} value"):
        optimizer.step()
    optimizer.param_groups[0][name] = False
    assert {key: each for key, each in snapshot(optimizer, param).items() if "grad " not in key} == {
        key: each for key, each in before.items() if "grad " not in key
    }
    optimizer.step()
    assert snapshot(optimizer, param) != before


def test_the_remedy_for_corrected_weight_decay():
    """timm: p * (1 - lr**2 / max_lr * decay)."""
    param = parameter([1.0], "float64")
    optimizer = dragon_optim.RMSpropTF([param], lr=0.4, weight_decay=0.5, decoupled_decay=True)
    expected = 1.0
    for rate in (0.4, 0.2, 0.1):
        group = optimizer.param_groups[0]
        group["lr"] = rate
        group["weight_decay"] = 0.5 * group["lr"] / 0.4
        backward(param, 0.0)
        optimizer.step()
        expected *= 1 - rate**2 / 0.4 * 0.5
    assert values(param) == pytest.approx([expected], rel=1e-15)


# --- names of keys --------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["constructor", "add_param_group"])
@pytest.mark.parametrize(
    ("cls", "own", "other"),
    [
        (dragon_optim.RMSpropTF, "decoupled_decay", "decoupled_weight_decay"),
        (dragon_optim.RMSprop, "decoupled_weight_decay", "decoupled_decay"),
    ],
)
def test_either_name_of_the_decoupled_decay_in_a_group(cls, own, other, way):
    param = parameter([1.0], "float64")
    group = {"params": [param], other: True, "weight_decay": 0.5}
    if way == "constructor":
        optimizer = cls([group], lr=0.5)
    else:
        optimizer = cls([parameter(START)], lr=0.5)
        optimizer.add_param_group(group)
    assert optimizer.param_groups[-1] is group
    assert group[own] is True
    assert other not in group
    backward(param, 0.0)
    optimizer.step()
    assert values(param).tolist() == [0.75]


@pytest.mark.parametrize("cls", [dragon_optim.RMSpropTF, dragon_optim.RMSprop])
def test_both_names_are_refused(cls):
    optimizer = cls([parameter(START)])
    group = {"params": [parameter(START)], "decoupled_decay": True, "decoupled_weight_decay": True}
    before = dict(group)
    with pytest.raises(TypeError, match="decoupled.* is another name of decoupled.*: give one of them"):
        optimizer.add_param_group(group)
    assert group == before
    assert len(optimizer.param_groups) == 1


def test_the_keys_of_a_group():
    """Those of timm, and those of RMSprop; what a training began with stands in them."""
    _, optimizer = train()
    theirs = {name for name, _ in TIMM["arguments"]} - set(REFUSED)
    rmsprop = set(train(cls=dragon_optim.RMSprop)[1].param_groups[0])
    assert set(optimizer.param_groups[0]) == (rmsprop | theirs) - {"decoupled_weight_decay"}
    text = repr(optimizer)
    assert text.startswith("RMSpropTF (\nParameter Group 0\n    alpha: 0.9\n")
    assert "    decoupled_decay: False\n" in text
    assert "    eps: 1e-10\n" in text
    assert "    eps_inside_sqrt: True\n" in text
    assert "    initial_square_avg: 1.0\n" in text
    assert "    lr_in_momentum: True\n" in text


# --- state dicts ----------------------------------------------------------------------------------

SETTINGS = dict(lr=0.05, momentum=0.9, weight_decay=0.1, centered=True, eps=0.01)


def over(param, cls, **options):
    return cls([parameter(values(param), "float64")], **options)


@pytest.mark.parametrize("target", [dragon_optim.RMSprop, dragon_optim.RMSpropTF])
def test_the_training_goes_on_in_its_form_in_either_class(target):
    param, optimizer = train(**SETTINGS, decoupled_decay=True)
    resumed = over(param, target)
    resumed.load_state_dict(optimizer.state_dict())
    twin = resumed.param_groups[0]["params"][0]
    go_on(param, optimizer)
    go_on(twin, resumed)
    assert values(twin).tobytes() == values(param).tobytes()
    assert snapshot(resumed, twin) == snapshot(optimizer, param)
    assert {"decoupled_decay", "decoupled_weight_decay"} & set(resumed.param_groups[0]) == {
        "decoupled_decay" if target is dragon_optim.RMSpropTF else "decoupled_weight_decay"
    }


def test_goes_on_with_a_training_of_rmsprop_in_its_form():
    param, optimizer = train(cls=dragon_optim.RMSprop, **SETTINGS, decoupled_weight_decay=True)
    resumed = over(param, dragon_optim.RMSpropTF)
    resumed.load_state_dict(optimizer.state_dict())
    twin = resumed.param_groups[0]["params"][0]
    go_on(param, optimizer)
    go_on(twin, resumed)
    assert values(twin).tobytes() == values(param).tobytes()
    assert resumed.param_groups[0]["eps_inside_sqrt"] is False
    assert resumed.param_groups[0]["decoupled_decay"] is True


def test_keeps_its_form_where_a_state_dict_says_nothing_of_it():
    """As timm's and PyTorch's say nothing."""
    param, optimizer = train(cls=dragon_optim.RMSprop, **SETTINGS)
    saved = optimizer.state_dict()
    for key in ("eps_inside_sqrt", "initial_square_avg", "lr_in_momentum", "decoupled_weight_decay"):
        del saved["param_groups"][0][key]
    resumed = over(param, dragon_optim.RMSpropTF)
    resumed.load_state_dict(saved)
    group = resumed.param_groups[0]
    kept = {key: group[key] for key in FORM if key not in ("alpha", "eps")}
    assert kept == {"eps_inside_sqrt": True, "initial_square_avg": 1.0, "lr_in_momentum": True}
    assert group["decoupled_decay"] is False
    assert group["lr"] == optimizer.param_groups[0]["lr"]


def test_the_own_name_counts_where_a_state_dict_has_both():
    _, optimizer = train()
    saved = optimizer.state_dict()
    saved["param_groups"][0]["decoupled_weight_decay"] = True
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["decoupled_decay"] is False


# --- what it shares with RMSprop ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_copies_go_on_alike(way, dtype):
    options = dict(momentum=0.9, weight_decay=0.1, decoupled_decay=True)
    optimizer = Training(dtype, dragon_optim.RMSpropTF, **options).steps(0, 3).optimizer
    twin = way(optimizer)
    assert type(twin) is dragon_optim.RMSpropTF
    step(optimizer, 3, 2)
    step(twin, 3, 2)
    assert bits(twin) == bits(optimizer)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_bits_of_rmsprop_in_tensorflows_form(dtype):
    ours = Training(dtype, dragon_optim.RMSpropTF, momentum=0.9).steps(0, 5).optimizer
    names = dict(alpha=0.9, eps=1e-10, eps_inside_sqrt=True, lr_in_momentum=True, initial_square_avg=1.0)
    theirs = Training(dtype, dragon_optim.RMSprop, momentum=0.9, **names).steps(0, 5).optimizer
    params = [[param for group in each.param_groups for param in group["params"]] for each in (ours, theirs)]
    assert snapshot(ours, *params[0]) == snapshot(theirs, *params[1])


def test_captured_as_eager():
    losses = []
    for captured in (False, True):
        model = mlp()
        optimizer = dragon_optim.RMSpropTF(model.parameters(), momentum=0.9, eps=1e-3)

        def train_step(x, y, model=model, optimizer=optimizer):
            loss = torch.nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        function = dragon_optim.graph.capture(train_step) if captured else train_step
        for x, y in batches(8):
            function(x, y)
            optimizer.param_groups[0]["lr"] *= 0.9
        losses.append([values(param).tobytes() for param in model.parameters()])
    assert losses[0] == losses[1]


def test_is_an_rmsprop_and_an_optimizer_of_dragon():
    optimizer = dragon_optim.RMSpropTF([parameter(START)])
    assert isinstance(optimizer, dragon_optim.RMSprop)
    assert isinstance(optimizer, torch.optim.Optimizer)
