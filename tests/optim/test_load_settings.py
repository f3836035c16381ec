# SPDX-License-Identifier: BSD-2-Clause
"""What `load_state_dict()` makes of the groups: keys, what may be kept, names, buffers that are missing."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from tests import exact
from tests.golden import state_dicts
from tests.golden.state_dicts import Foreign, StateDicts
from tests.optim import trainings
from tests.optim.support import parameter, values
from tests.optim.trainings import plain, trained

RECORDED = StateDicts("2.13")


def fresh(model, **options):
    """An optimizer over copies of these parameters."""
    params = [parameter(values(param), param.dtype) for param in model]
    return dragon_optim.RMSprop(params, **options), params


# --- buffers that come and go ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [dict(momentum=0.9), dict(centered=True), dict(momentum=0.9, centered=True)]
)
@pytest.mark.parametrize("how", ["load", "hand", "keep"])
def test_momentum_and_centered_switched_on(options, how):
    """Their buffers start at zero; PyTorch raises KeyError in the next step."""
    plainly, params = trained("for-loop")
    saved = copy.deepcopy(plainly.state_dict())
    state = {"square_avg": values(saved["state"][0]["square_avg"])}
    if how == "load":
        saved["param_groups"][0].update(options)
    optimizer, params = fresh(params, **options if how == "keep" else {})
    optimizer.load_state_dict(saved, keep=tuple(options) if how == "keep" else ())
    if how == "hand":
        optimizer.param_groups[0].update(options)
    assert list(optimizer.state[params[0]]) == ["step", "square_avg"]
    start = values(params[0])
    trainings.advance(optimizer, params, trainings.GOES_ON[:1])
    settings = dict(lr=0.01, alpha=0.9, maximize=True, **options)
    expected, expected_state = exact.step(settings, start, values(params[0].grad), state)
    assert plain(params[0]) == plain(expected)
    entry = dict(optimizer.state[params[0]])
    assert entry.pop("step") == state_dicts.STEPS + 1
    assert plain(entry) == plain(expected_state)


def test_buffers_that_are_not_needed_wait():
    """As in PyTorch: they stay as they are, and momentum that is switched on again goes on from there."""
    optimizer, params = trained("scheduled")
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["momentum"] = 0.0
    optimizer.load_state_dict(saved)
    buffer = plain(optimizer.state[params[0]]["momentum_buffer"])
    trainings.advance(optimizer, params, trainings.GOES_ON)
    assert plain(optimizer.state[params[0]]["momentum_buffer"]) == buffer
    optimizer.param_groups[0]["momentum"] = 0.9
    trainings.advance(optimizer, params, trainings.GOES_ON)
    assert plain(optimizer.state[params[0]]["momentum_buffer"]) != buffer


def test_an_empty_state_starts_anew():
    optimizer, params = trained("two-groups")
    saved = optimizer.state_dict()
    saved["state"] = {}
    optimizer.load_state_dict(saved)
    assert len(optimizer.state) == 0
    starts = [values(param) for param in params]
    trainings.advance(optimizer, params, range(1))
    weights = [parameter(each) for each in starts]
    other = trainings.MAKE["two-groups"](weights)
    trainings.advance(other, weights, range(1))
    assert plain(weights) == plain(params)
    assert optimizer.state[params[0]]["step"] == 1


def test_what_the_state_dict_lacks_is_forgotten():
    optimizer, params = trained("two-groups")
    optimizer.state["mine"] = 1
    optimizer.state[params[0]]["ema"] = 2
    saved = copy.deepcopy(optimizer.state_dict())
    del saved["state"]["mine"], saved["state"][0]["ema"], saved["state"][1]["grad_avg"], saved["state"][3]
    optimizer.load_state_dict(saved)
    assert list(optimizer.state[params[0]]) == ["step", "square_avg", "momentum_buffer", "grad_avg"]
    assert list(optimizer.state[params[1]]) == ["step", "square_avg", "momentum_buffer"]
    assert list(optimizer.state_dict()["state"]) == [0, 1, 2]


# --- keys of the groups, and keep= ----------------------------------------------------------------


def test_everything_comes_from_the_dict():
    saved = RECORDED.get("two-groups")["state_dict"]
    params = trainings.parameters()
    others = dict(lr=0.5, momentum=0.25, maximize=True, centered=False, eps=1.0, foreach=False)
    optimizer = dragon_optim.RMSprop([{"params": params[:2]}, {"params": params[2:]}], **others)
    assert optimizer.load_state_dict(saved) is None
    for group, expected in zip(optimizer.param_groups, saved["param_groups"]):
        expected = {key: value for key, value in expected.items() if key != "params"}
        assert {key: group[key] for key in expected} == expected


def test_keys_that_only_one_side_has_are_kept():
    optimizer, _ = trained("two-groups")
    optimizer.param_groups[0].update(lr_scale=0.5, name="backbone")
    optimizer.param_groups[1].update(grad_scale=0.25)
    saved = RECORDED.get("two-groups")["state_dict"]
    saved["param_groups"][1].update(initial_lr=0.1, name="head")
    optimizer.load_state_dict(saved)
    first, second = optimizer.param_groups
    assert (first["lr_scale"], first["name"], first["capturable"]) == (0.5, "backbone", False)
    assert (second["grad_scale"], second["initial_lr"], second["name"]) == (0.25, 0.1, "head")
    again = optimizer.state_dict()["param_groups"]
    assert (again[1]["initial_lr"], again[0]["lr_scale"], again[1]["capturable"]) == (0.1, 0.5, False)


@pytest.mark.parametrize(
    "keep", [("lr",), ["lr"], {"lr"}, "lr", {"lr": 1}.keys()], ids=lambda each: type(each).__name__
)
def test_keep(keep):
    optimizer, params = trained("for-loop")
    other, weights = fresh(params, lr=0.5, momentum=0.5)
    other.load_state_dict(optimizer.state_dict(), keep=keep)
    assert (other.param_groups[0]["lr"], other.param_groups[0]["momentum"]) == (0.5, 0)
    optimizer.param_groups[0]["lr"] = 0.5
    for each, model in ((optimizer, params), (other, weights)):
        trainings.advance(each, model, trainings.GOES_ON)
    assert plain(weights) == plain(params)


def test_keep_several_and_unknown_to_pytorch():
    optimizer, params = trained("scheduled")
    other, _ = fresh(params, lr=0.5, momentum=0.5, clip_value=3.0)
    other.param_groups[0]["lr_scale"] = 0.5
    saved = optimizer.state_dict()
    saved["param_groups"][0].update(lr_scale=7, clip_value=5.0)
    other.load_state_dict(saved, keep=("clip_value", "lr_scale", "momentum"))
    (group,) = other.param_groups
    assert (group["clip_value"], group["lr_scale"], group["momentum"]) == (3.0, 0.5, 0.5)
    assert (group["lr"], group["initial_lr"]) == (0.01, 0.01)


def test_wrong_keep_where_keys_are_of_every_kind():
    optimizer, _ = trained("two-groups")
    optimizer.param_groups[0].update({5: 1, None: 2})
    with pytest.raises(ValueError, match=r"Invalid keep value: 'x' \(need keys of a group"):
        optimizer.load_state_dict(optimizer.state_dict(), keep=("x",))


def test_keep_what_the_dict_lacks():
    optimizer, _ = trained("scheduled")
    saved = optimizer.state_dict()
    del saved["param_groups"][0]["eps"], saved["param_groups"][0]["momentum"]
    optimizer.param_groups[0].update(eps=0.5, momentum=0.25)
    optimizer.load_state_dict(saved, keep=("eps", "momentum"))
    assert (optimizer.param_groups[0]["eps"], optimizer.param_groups[0]["momentum"]) == (0.5, 0.25)


def test_a_kept_key_of_one_group():
    optimizer, _ = trained("two-groups")
    optimizer.param_groups[1]["lr_scale"] = 0.5
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        group["lr_scale"] = 7
    optimizer.load_state_dict(saved, keep=("lr_scale",))
    assert [group["lr_scale"] for group in optimizer.param_groups] == [7, 0.5]


def test_a_key_that_is_kept_may_be_wrong_in_the_dict():
    optimizer, _ = trained("two-groups")
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        group["lr"] = "x"
    optimizer.load_state_dict(saved, keep=("lr",))
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.02]


def test_hyper_parameters_of_every_kind():
    optimizer, params = trained("scheduled")
    saved = optimizer.state_dict()
    saved["param_groups"][0].update(
        lr=torch.tensor(0.5, dtype="float64"),
        alpha=np.float32(0.5),
        eps=np.array([0.25]),
        momentum=Foreign(state_dicts.Array(np.array(0.5, "float32"), "float32")),
        centered=Foreign(state_dicts.Array(np.array(True), "bool")),
        weight_decay=np.array(1, "int16"),
    )
    optimizer.load_state_dict(saved)
    start, entry = values(params[0]), dict(optimizer.state[params[0]])
    state = {key: values(entry[key]) for key in ("square_avg", "momentum_buffer")}
    trainings.advance(optimizer, params, range(1))
    options = dict(lr=0.5, alpha=0.5, eps=0.25, momentum=0.5, centered=True, weight_decay=1)
    expected, _ = exact.step(options, start, values(params[0].grad), state)
    assert plain(params[0]) == plain(expected)


# --- names ----------------------------------------------------------------------------------------


def _by_name(order):
    """An optimizer over parameters of equal shapes, named in this order; and the parameters by name."""
    params = {name: parameter([0.0]) for name in "abc"}
    optimizer = dragon_optim.RMSprop([(name, params[name]) for name in order])
    return optimizer, params


def _trained_by_name():
    optimizer, params = _by_name("abc")
    for number, name in enumerate("abc"):
        optimizer.state[params[name]] = {"step": number + 1, "square_avg": np.full(1, number + 1.0)}
    return optimizer


def _steps(optimizer, params):
    return {name: optimizer.state[param].get("step") for name, param in params.items()}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("order", ["abc", "cab", "bca"])
def test_the_same_names_in_another_order(order):
    """PyTorch goes by the order, and gives each layer the state of another."""
    optimizer, params = _by_name(order)
    optimizer.load_state_dict(_trained_by_name().state_dict())
    assert _steps(optimizer, params) == {"a": 1, "b": 2, "c": 3}
    assert optimizer.param_groups[0]["param_names"] == list(order)
    assert [values(optimizer.state[params[name]]["square_avg"]).tolist() for name in "abc"] == [
        [1.0],
        [2.0],
        [3.0],
    ]


@pytest.mark.filterwarnings("error")
def test_the_same_names_in_other_groups():
    params = {name: parameter([0.0]) for name in "abc"}
    groups = [[("c", params["c"])], [("a", params["a"]), ("b", params["b"])]]
    optimizer = dragon_optim.RMSprop([{"params": each} for each in groups])
    saved = _trained_by_name().state_dict()
    (group,) = saved["param_groups"]
    first = dict(group, lr=0.5, params=[0], param_names=["a"])
    second = dict(group, lr=0.25, params=[1, 2], param_names=["b", "c"])
    saved["param_groups"] = [first, second]
    optimizer.load_state_dict(saved)
    assert _steps(optimizer, params) == {"a": 1, "b": 2, "c": 3}
    assert [each["lr"] for each in optimizer.param_groups] == [0.5, 0.25]
    assert [each["param_names"] for each in optimizer.param_groups] == [["c"], ["a", "b"]]


def test_other_names_are_matched_by_order_with_a_warning():
    optimizer, params = _by_name("cab")
    saved = _trained_by_name().state_dict()
    saved["param_groups"][0]["param_names"] = ["a", "x", "c"]
    with pytest.warns(UserWarning, match=r"other names than the optimizer \(the first: 'a' for 'c'\)"):
        optimizer.load_state_dict(saved)
    assert _steps(optimizer, params) == {"c": 1, "a": 2, "b": 3}
    assert optimizer.param_groups[0]["param_names"] == ["a", "x", "c"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("names", ["missing", "None"])
def test_names_only_here(names):
    optimizer, params = _by_name("cab")
    saved = _trained_by_name().state_dict()
    del saved["param_groups"][0]["param_names"]
    if names == "None":
        saved["param_groups"][0]["param_names"] = None
    optimizer.load_state_dict(saved)
    assert _steps(optimizer, params) == {"c": 1, "a": 2, "b": 3}
    assert optimizer.param_groups[0]["param_names"] == ["c", "a", "b"]


@pytest.mark.filterwarnings("error")
def test_names_only_there():
    params = [parameter([0.0]) for _ in range(3)]
    optimizer = dragon_optim.RMSprop(params)
    optimizer.load_state_dict(_trained_by_name().state_dict())
    assert [optimizer.state[param]["step"] for param in params] == [1, 2, 3]
    assert optimizer.param_groups[0]["param_names"] == ["a", "b", "c"]
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["a", "b", "c"]


def test_names_that_repeat_are_no_names():
    """Which of the two is meant cannot be told: the order decides."""
    params = [parameter([0.0]) for _ in range(3)]
    optimizer = dragon_optim.RMSprop([{"params": [(name, param)]} for name, param in zip("aab", params)])
    saved = optimizer.state_dict()
    saved["state"] = {number: {"step": number + 1, "square_avg": np.ones(1)} for number in range(3)}
    for group, name in zip(saved["param_groups"], "aba"):
        group["param_names"] = [name]
    with pytest.warns(UserWarning, match=r"other names than the optimizer \(the first: 'b' for 'a'\)"):
        optimizer.load_state_dict(saved)
    assert [optimizer.state[param]["step"] for param in params] == [1, 2, 3]
