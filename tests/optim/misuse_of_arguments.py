# SPDX-License-Identifier: BSD-2-Clause
"""Misuses of what is handed over: parameters, hyper-parameters, and the groups that hold both.

To the constructor, to `add_param_group()`, and into `param_groups`, by hand.
"""

from __future__ import annotations

import numpy as np
from dragon.vm import torch

import dragon_optim
from tests.optim.forked_cases import Table
from tests.optim.support import parameter
from tests.refusals import WORDS

CASES = Table()
misuse = CASES.case


def make(*args, **options):
    """What a case yields to try a constructor."""
    return lambda: dragon_optim.RMSprop(*args, **options)


# --- parameters that the constructor must refuse --------------------------------------------------

WRONG_PARAMS = {
    "None": (lambda w: None, TypeError, "must be an iterable of Tensors, but got .*NoneType"),
    "number": (lambda w: 5, TypeError, "must be an iterable of Tensors, but got .*int"),
    "string": (lambda w: "abc", TypeError, "must be an iterable of Tensors, but got .*str"),
    "module": (
        lambda w: torch.nn.Linear(2, 2),
        TypeError,
        "must be an iterable of Tensors, but got .*Linear",
    ),
    "tensor": (lambda w: w.p, TypeError, "should be an iterable of Tensors or dicts, but got .*Parameter"),
    "set": (lambda w: {w.p}, TypeError, "organized in ordered collections"),
    "frozenset": (lambda w: frozenset([w.p]), TypeError, "organized in ordered collections"),
    "dict": (lambda w: {"weight": w.p}, TypeError, "must be an iterable of Tensors, but got .*dict"),
    "empty-list": (lambda w: [], ValueError, "^optimizer got an empty parameter list$"),
    "empty-generator": (lambda w: (p for p in ()), ValueError, "^optimizer got an empty parameter list$"),
    "raising-generator": (lambda w: (1 / p for p in (1, 0)), ZeroDivisionError, "division"),
    "list-of-lists": (
        lambda w: [[w.p]],
        TypeError,
        "can only optimize Tensors, but one of the params is .*list",
    ),
    "list-of-None": (lambda w: [w.p, None], TypeError, "one of the params is .*NoneType"),
    "array": (lambda w: np.ones(3), TypeError, "one of the params is numpy.float64"),
    "dict-behind-tensor": (lambda w: [w.p, {"params": [w.q]}], TypeError, "one of the params is .*dict"),
    "tensor-behind-dict": (lambda w: [{"params": [w.p]}, w.q], TypeError, "param_group must be a dict"),
    "group-without-params": (lambda w: [{"lr": 0.1}], KeyError, "params"),
    "group-with-a-set": (lambda w: [{"params": {w.p}}], TypeError, "organized in ordered collections"),
    "duplicate-in-two-groups": (
        lambda w: [{"params": [w.p]}, {"params": [w.q, w.p]}],
        ValueError,
        "^some parameters appear in more than one parameter group",
    ),
    "same-tensor-in-two-groups": (
        lambda w: [{"params": [w.p]}, {"params": [torch.nn.Parameter(w.p)]}],
        ValueError,
        "^some parameters appear in more than one parameter group",
    ),
    "non-leaf": (lambda w: [w.p * 2], ValueError, "^can't optimize a non-leaf Tensor"),
    "int64": (lambda w: [torch.ones(3, dtype="int64")], TypeError, "parameter 0 is int64"),
    "bool": (lambda w: [torch.ones(3, dtype="bool")], TypeError, "parameter 0 is bool"),
    "no-tensor-yet": (lambda w: [torch.Tensor()], RuntimeError, "no data"),
    "name-without-tensor": (lambda w: [("weight", 1.0)], TypeError, "one of the params is .*float"),
    "pair-without-name": (lambda w: [(1, w.p)], TypeError, r"pair \(str, Tensor\)"),
    "some-names": (lambda w: [("a", w.p), w.q], ValueError, "with/without names"),
}

for _what, (_params, _exception, _match) in WRONG_PARAMS.items():

    @misuse(_exception, _match, name=f"constructor-with-{_what}")
    def _(w, params=_params):
        yield lambda: dragon_optim.RMSprop(params(w))


_OF_A_GROUP = (
    "None",
    "number",
    "string",
    "set",
    "dict",
    "raising-generator",
    "list-of-lists",
    "non-leaf",
    "int64",
    "bool",
)

for _what in _OF_A_GROUP:
    _params, _exception, _match = WRONG_PARAMS[_what]

    @misuse(_exception, _match, name=f"add_param_group-with-{_what}")
    def _(w, params=_params):
        group = {"params": params(w), "lr": 0.5}
        yield lambda: w.optimizer.add_param_group(group)
        assert set(group) == {"params", "lr"}
        assert len(w.optimizer.param_groups) == 1


@misuse(RuntimeError, "parameter 1 is on cuda:0, for which this dragon_optim was not built")
def parameter_on_cuda(w):
    w.q._device = torch.device("cuda", 0)
    yield make([w.p, w.q])
    w.q._device = torch.device("cpu")


for _method in ("step", "sum_grad", "zero_grad"):

    @misuse(RuntimeError, "parameter 0.* on cuda:0", name=f"{_method}-after-a-move-to-cuda")
    def _(w, method=_method):
        """The first call of each makes a graph, for the device that the parameter has then."""
        optimizer = dragon_optim.RMSprop([w.p])
        w.p._device = torch.device("cuda", 0)
        yield getattr(optimizer, method)
        w.p._device = torch.device("cpu")


@misuse(TypeError, r"pair \(str, Tensor\)", goes_on=False)
def names_with_a_cleared_tensor(w):
    """The message must not print the tensor: Dragon ends the process at an empty one."""
    cleared = parameter([1.0])
    cleared._impl.Reset()
    yield make([(cleared,)])


# --- hyper-parameters -----------------------------------------------------------------------------

WRONG_VALUES = {"negative": -0.5, "nan": float("nan")}
NO_NUMBERS = {
    "string": "0.1",
    "bytes-to-write-to": bytearray(b"0.1"),
    "None": None,
    "complex": 1j,
    "complex64": np.complex64(0.1),
    "complex-array": np.array(0.1, "complex64"),
    "list": [0.1],
}
FLAGS = ("centered", "maximize", "lr_in_momentum", "eps_inside_sqrt", "decoupled_weight_decay")

_OPTIONS = [
    *[
        (key, what, value, ValueError, f"^Invalid {WORDS[key]}: ")
        for key in WORDS
        for what, value in WRONG_VALUES.items()
    ],
    *[
        (key, what, value, TypeError, f"^{key} must be a number")
        for key in WORDS
        for what, value in NO_NUMBERS.items()
    ],
    ("lr", "huge", 10**400, OverflowError, "lr"),
    ("lr", "two", lambda: torch.tensor([0.1, 0.2]), ValueError, "lr must be 1-element"),
    ("momentum", "two-in-numpy", np.ones(2), ValueError, "momentum must be 1-element"),
    ("grad_scale", "nan", float("nan"), ValueError, "^Invalid grad_scale value: nan"),
    ("grad_scale", "string", "1", TypeError, "^grad_scale must be a number"),
    *[(key, "string", "yes", TypeError, key) for key in FLAGS],
    ("centered", "complex64", np.complex64(1), TypeError, "^centered must be a number"),
    ("foreach", "two", 2, ValueError, "^Invalid foreach value: 2 "),
    ("foreach", "nan", float("nan"), ValueError, "^Invalid foreach value: nan "),
    ("foreach", "tensor-of-two", lambda: torch.tensor([1, 0]), ValueError, "^Invalid foreach value"),
    ("differentiable", "half", 0.5, ValueError, "^Invalid differentiable value: 0.5 "),
    ("foreach", "string", "no", ValueError, "^Invalid foreach value"),
    ("foreach", "array", np.array([1, 0]), ValueError, "^Invalid foreach value"),
    ("differentiable", "string", "yes", ValueError, "^Invalid differentiable value"),
]

for _key, _what, _value, _exception, _match in _OPTIONS:

    @misuse(_exception, _match, name=f"constructor-with-{_key}-{_what}")
    def _(w, key=_key, value=_value):
        yield make([w.p, w.q], **{key: value() if callable(value) else value})

    @misuse(_exception, _match, name=f"step-after-{_key}-{_what}")
    def _(w, key=_key, value=_value):
        w.group[key] = value() if callable(value) else value
        yield w.optimizer.step


@misuse(TypeError, "nesterov")
def unknown_keyword(w):
    yield make([w.p], nesterov=True)


@misuse(TypeError, "scale.*grad_scale")
def scale_and_grad_scale(w):
    yield make([w.p], scale=2.0, grad_scale=2.0)


@misuse(TypeError, "positional")
def eighth_positional_argument(w):
    yield make([w.p], 0.1, 0.9, 1e-8, 0, 0, False, True)


@misuse(TypeError, "params")
def no_arguments(w):
    yield dragon_optim.RMSprop


# --- groups that were damaged by hand -------------------------------------------------------------

_DAMAGE = {
    "missing-lr": (lambda w: w.group.pop("lr"), KeyError, "'lr'"),
    "missing-centered": (lambda w: w.group.pop("centered"), KeyError, "'centered'"),
    "missing-params": (lambda w: w.group.pop("params"), KeyError, "params"),
    "group-a-list": (
        lambda w: w.optimizer.param_groups.__setitem__(0, [w.p]),
        TypeError,
        r"param_groups\[0\].*dict",
    ),
    "group-None": (lambda w: w.optimizer.param_groups.append(None), TypeError, r"param_groups\[1\].*dict"),
    "groups-None": (lambda w: setattr(w.optimizer, "param_groups", None), TypeError, "param_groups"),
    "params-None": (
        lambda w: w.group.update(params=None),
        TypeError,
        r"param_groups\[0\]\['params'\].*NoneType",
    ),
    "params-tensor": (
        lambda w: w.group.update(params=w.p),
        TypeError,
        r"param_groups\[0\]\['params'\].*Parameter",
    ),
    "params-set": (lambda w: w.group.update(params={w.p}), TypeError, r"param_groups\[0\]\['params'\].*set"),
    "params-string": (
        lambda w: w.group.update(params="ab"),
        TypeError,
        r"param_groups\[0\]\['params'\].*str",
    ),
    "params-generator": (lambda w: w.group.update(params=iter([w.p])), TypeError, r"\['params'\].*iterator"),
    "params-of-None": (
        lambda w: w.group["params"].append(None),
        TypeError,
        "one of the params is .*NoneType",
    ),
    "params-nested": (lambda w: w.group["params"].append([w.p]), TypeError, "one of the params is .*list"),
    "params-non-leaf": (lambda w: w.group["params"].append(w.p * 2), ValueError, "non-leaf"),
    "params-int": (
        lambda w: w.group["params"].append(torch.ones(2, dtype="int64")),
        TypeError,
        "parameter 2 is int64",
    ),
    "group-twice": (
        lambda w: w.optimizer.param_groups.append(w.group),
        ValueError,
        "more than one parameter group",
    ),
    "no-params": (lambda w: w.group.update(params=[]), None, ""),
    "no-groups": (lambda w: w.optimizer.param_groups.clear(), None, ""),
}

for _what, (_damage, _exception, _match) in _DAMAGE.items():
    for _method in ("step", "sum_grad", "zero_grad"):

        @misuse(_exception, _match, name=f"{_method}-after-{_what}")
        def _(w, damage=_damage, method=_method):
            damage(w)
            yield getattr(w.optimizer, method)

    @misuse(_exception, _match, name=f"add_param_group-after-{_what}")
    def _(w, damage=_damage, exception=_exception):
        damage(w)
        group = {"params": parameter([1.0])}
        yield lambda: w.optimizer.add_param_group(group)
        assert set(group) == {"params"} or exception is None


for _what, _group, _exception, _match in [
    ("None", None, TypeError, "param_group must be a dict"),
    ("list", [], TypeError, "param_group must be a dict"),
    ("empty-dict", {}, KeyError, "params"),
]:

    @misuse(_exception, _match, name=f"add_param_group-{_what}")
    def _(w, group=_group):
        yield lambda: w.optimizer.add_param_group(group)
