# SPDX-License-Identifier: BSD-2-Clause
"""State dicts that must be refused, and in which words: what is no state dict, and groups that do not fit.

`bad_entries.py` has the states that do not fit.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, Callable, NamedTuple

import numpy as np

from tests.golden import state_dicts
from tests.golden.state_dicts import Array, Foreign, StateDicts
from tests.refusals import WORDS

RECORDED = {version: StateDicts(version) for version in state_dicts.VERSIONS}


class Bad(NamedTuple):
    """`change` makes it of what PyTorch 2.13 wrote for the optimizer of this training."""

    name: str
    change: Callable[[Any], Any]
    exception: type
    match: str
    training: str = "two-groups"
    keep: Any = ()

    def __str__(self):
        return self.name

    def given(self):
        return self.change(recorded(self.training))


def recorded(training):
    return RECORDED["2.13"].get(training)["state_dict"]


def _keys(path):
    return [int(key) if key.isdigit() else key for key in path.split()]


def put(path, value):
    """Another value in one place. `path` is keys, divided by spaces."""

    def change(saved):
        place = saved
        *way, last = _keys(path)
        for key in way:
            place = place[key]
        place[last] = value
        return saved

    return change


def drop(path):
    """One place left out."""

    def change(saved):
        place = saved
        *way, last = _keys(path)
        for key in way:
            place = place[key]
        del place[last]
        return saved

    return change


def instead(value):
    return lambda saved: value


# --- what is no state dict ------------------------------------------------------------------------


def _model(saved):
    return OrderedDict(weight=np.ones((2, 3)), bias=np.ones(4))


def _whole_checkpoint(saved):
    return {"model": _model(saved), "optimizer": saved, "epoch": 3}


NO_STATE_DICTS = [
    *[
        Bad(f"{value!r}", instead(value), TypeError, "^state_dict must be a dict, but got builtins")
        for value in (None, 5, "checkpoint.pt", b"", [], ())
    ],
    Bad("array", instead(np.ones(3)), TypeError, "^state_dict must be a dict, but got numpy.ndarray"),
    Bad("empty", instead({}), KeyError, "state_dict lacks 'param_groups'"),
    Bad("model", _model, KeyError, r"lacks 'param_groups'; it has \['bias', 'weight'\]"),
    Bad(
        "whole-checkpoint",
        _whole_checkpoint,
        KeyError,
        r"lacks 'param_groups'; it has \['epoch', 'model', 'optimizer'\].*such as checkpoint\['optimizer'\]",
    ),
    Bad("a-group", lambda saved: saved["param_groups"][0], KeyError, "lacks 'param_groups'"),
    Bad("groups", lambda saved: saved["param_groups"], TypeError, "must be a dict, but got builtins.list"),
    Bad("state", lambda saved: saved["state"], KeyError, "lacks 'param_groups'"),
    Bad("no-state", drop("state"), KeyError, "state_dict lacks 'state'; it has"),
    *[
        Bad(f"state-{value!r}", put("state", value), TypeError, r"state_dict\['state'\] must be a dict, but")
        for value in (None, [], 5, "x")
    ],
    *[
        Bad(f"param_groups-{value!r}", put("param_groups", value), TypeError, r"must be a list of dicts, but")
        for value in (None, {}, 5, "x")
    ],
    *[
        Bad(
            f"group-{value!r}",
            put("param_groups 1", value),
            TypeError,
            r"^state_dict\['param_groups'\]\[1\] must be a dict, but got",
        )
        for value in (None, [], 5, "x")
    ],
    *[
        Bad(
            f"params-{value!r}",
            put("param_groups 1 params", value),
            TypeError,
            r"^state_dict\['param_groups'\]\[1\]\['params'\] must be a list of numbers, but got",
        )
        for value in (None, 2, "23", {2: 3}, np.arange(2, 4))
    ],
    Bad("params-missing", drop("param_groups 1 params"), TypeError, r"\[1\]\['params'\] must be a list"),
]

# --- groups that do not match ---------------------------------------------------------------------

NUMBER = "^loaded state dict has a different number of parameter groups"
SIZE = "^loaded state dict contains a parameter group that doesn't match the size of optimizer's group"


def _third_group(saved):
    saved["param_groups"].append(dict(saved["param_groups"][0], params=[]))
    return saved


def _fewer_named(saved):
    saved["param_groups"][0].update(params=[0, 1], param_names=["first.weight", "mine"])
    return saved


def _all_the_same(saved):
    for group in saved["param_groups"]:
        group["params"] = [0, 0]
    return saved


SIZES = [
    Bad("fewer-groups", drop("param_groups 1"), ValueError, NUMBER + r": it has 1, and the optimizer 2\."),
    Bad("more-groups", _third_group, ValueError, NUMBER + r": it has 3, and the optimizer 2\."),
    Bad("no-groups", put("param_groups", []), ValueError, NUMBER + ": it has 0"),
    Bad(
        "fewer-parameters",
        put("param_groups 1 params", [2]),
        ValueError,
        SIZE + r": group 1 has 1 parameters there, and 2 here\. Make the optimizer over the same parameters",
    ),
    Bad("more-parameters", put("param_groups 0 params", [0, 1, 4]), ValueError, SIZE + ": group 0 has 3"),
    Bad("no-parameters", put("param_groups 0 params", []), ValueError, SIZE),
    Bad(
        "fewer-parameters-with-names",
        _fewer_named,
        ValueError,
        SIZE + r".*\(only there: mine; only here: first.bias, last.bias, scale\)",
        "named",
    ),
]

IDS = [
    Bad(
        "id-twice-in-a-group",
        put("param_groups 0 params", [0, 0]),
        ValueError,
        "^loaded state dict does not have the optimizer's order of parameters: id 0 is parameter 1 of group",
    ),
    Bad(
        "id-in-two-groups", put("param_groups 1 params", [0, 3]), ValueError, "id 0 is parameter 0 of group 1"
    ),
    Bad("all-the-same", _all_the_same, ValueError, "must be shared on both sides"),
    Bad(
        "shared-only-here",
        put("param_groups 0 params", [0, 1, 2]),
        ValueError,
        r"A parameter that is shared must be shared on both sides",
        "shared",
    ),
    Bad(
        "shared-with-another",
        put("param_groups 0 params", [1, 2, 2]),
        ValueError,
        r"A parameter that is shared must be shared on both sides",
        "shared",
    ),
    Bad("unhashable-ids", put("param_groups 0 params", [[0], [1]]), TypeError, "must be a list of numbers"),
    Bad("ids-of-dicts", put("param_groups 0 params", [{}, {}]), TypeError, "must be a list of numbers"),
    Bad("ids-of-arrays", put("param_groups 0 params", 2 * [np.arange(2)]), TypeError, "must be a list of n"),
]

NAMES = [
    Bad(f"names-{name}", put("param_groups 0 param_names", value), exception, match, "named")
    for name, value, exception, match in [
        ("too-few", ["a"], ValueError, r"\[0\] has 1 param_names for 4 params"),
        ("too-many", list("abcde"), ValueError, r"\[0\] has 5 param_names for 4 params"),
        ("empty", [], ValueError, r"\[0\] has 0 param_names for 4 params"),
        ("a-string", "abcd", TypeError, r"\['param_names'\] must be a list of str"),
        ("numbers", [0, 1, 2, 3], TypeError, r"\['param_names'\] must be a list of str"),
        ("one-None", ["a", "b", None, "d"], TypeError, r"\['param_names'\] must be a list of str"),
        ("a-number", 5, TypeError, r"\['param_names'\] must be a list of str"),
    ]
]

# --- hyper-parameters -----------------------------------------------------------------------------

THERE = r".*in parameter group 1 of the loaded state dict"

HYPER = [
    *[
        Bad(
            f"{key}={value}",
            put(f"param_groups 1 {key}", value),
            ValueError,
            f"^Invalid {words}: {value}" + THERE,
        )
        for key, words in WORDS.items()
        for value in (-1, float("nan"))
    ],
    *[
        Bad(
            f"{key}={value!r}",
            put(f"param_groups 1 {key}", value),
            TypeError,
            f"^{key} must be a number" + THERE,
        )
        for key in ("lr", "momentum", "centered", "maximize", "grad_scale")
        for value in ("x", None, [1.0], {}, 1j)
    ],
    Bad("grad_scale=nan", put("param_groups 1 grad_scale", float("nan")), ValueError, "grad_scale" + THERE),
    Bad("centered=nan", put("param_groups 1 centered", float("nan")), ValueError, "Invalid centered" + THERE),
    Bad(
        "lr-of-two", put("param_groups 1 lr", np.ones(2)), ValueError, "^Tensor lr must be 1-element" + THERE
    ),
    Bad(
        "lr-of-none", put("param_groups 1 lr", np.ones(0)), ValueError, "^Tensor lr must be 1-element" + THERE
    ),
    Bad(
        "pytorchs-lr-of-two",
        put("param_groups 1 lr", Foreign(Array(np.ones(2, "float32"), "float32"))),
        ValueError,
        "^Tensor lr must be 1-element, but has shape.*in parameter group 1 of the loaded state dict",
    ),
    Bad(
        "pytorchs-lr-negative",
        put("param_groups 1 lr", Foreign(Array(np.float32(-1).reshape(()), "float32"))),
        ValueError,
        "^Invalid learning rate: -1.0" + THERE,
    ),
    Bad("lr-too-large", put("param_groups 1 lr", 10**400), OverflowError, "^lr is too large" + THERE),
    Bad("foreach=2", put("param_groups 1 foreach", 2), ValueError, "^Invalid foreach value: 2" + THERE),
    Bad("foreach=x", put("param_groups 1 foreach", "x"), ValueError, "^Invalid foreach value: x" + THERE),
    Bad(
        "differentiable",
        put("param_groups 1 differentiable", True),
        ValueError,
        "^differentiable must be the same in all groups",
    ),
    *[
        Bad(
            f"without-{key}",
            drop(f"param_groups 1 {key}"),
            KeyError,
            f"parameter group 1 of the loaded state dict lacks '{key}'; it has .* Is it of another optimizer",
        )
        for key in ("lr", "alpha", "eps", "weight_decay")
    ],
    Bad("lock", put("param_groups 1 mine", threading.Lock()), TypeError, "cannot pickle"),
]

KEEP = [
    Bad(f"keep={keep!r}", lambda saved: saved, exception, match, keep=keep)
    for keep, exception, match in [
        (
            ("learning_rate",),
            ValueError,
            r"^Invalid keep value: 'learning_rate' \(need keys of a group: \[.*'lr'",
        ),
        (("lr", "x"), ValueError, "^Invalid keep value: 'x'"),
        ("learning_rate", ValueError, "^Invalid keep value: 'learning_rate'"),
        (("params",), ValueError, "^Invalid keep value: 'params'"),
        (("",), ValueError, "^Invalid keep value: ''"),
        ((None,), ValueError, "^Invalid keep value: None"),
        (5, TypeError, "^keep must be a collection of str"),
        (None, TypeError, "^keep must be a collection of str"),
    ]
]

TABLE = [*NO_STATE_DICTS, *SIZES, *IDS, *NAMES, *HYPER, *KEEP]
