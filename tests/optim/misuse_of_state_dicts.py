# SPDX-License-Identifier: BSD-2-Clause
"""Misuses of `load_state_dict()`: state dicts that hold what Dragon ends the process for.

Tensors without data, or of a workspace that is gone; dtypes that Dragon cannot take; tensors where numbers
should be. What is merely wrong stands in `bad_state_dicts.py` and `bad_entries.py`.
"""

from __future__ import annotations

import copy
import gc

import numpy as np
from dragon.core.framework import workspace
from dragon.vm import torch

import dragon_optim
from tests.optim.forked_cases import Table
from tests.optim.support import parameter, values
from tests.optim.unreadable import dead_tensor, never_filled, reset_tensor

CASES = Table()
misuse = CASES.case

NO_DATA = "has no data"
GONE = "workspace that is gone"


TENSORS = {
    "reset": (reset_tensor, NO_DATA),
    "dead": (dead_tensor, GONE),
    "never-filled": (never_filled, NO_DATA),
}


def _saved(w):
    return copy.deepcopy(w.optimizer.state_dict())


# --- tensors that cannot be read ------------------------------------------------------------------

PLACES = {
    "square_avg": lambda saved, value: saved["state"][0].update(square_avg=value),
    "step": lambda saved, value: saved["state"][0].update(step=value),
    "entry-of-the-user": lambda saved, value: saved["state"][0].update(mine=value),
    "list-of-the-user": lambda saved, value: saved["state"][0].update(mine=[{"a": value}]),
    "state-of-the-user": lambda saved, value: saved["state"].update(mine={"a": value}),
    "lr": lambda saved, value: saved["param_groups"][0].update(lr=value),
    "list-as-lr": lambda saved, value: saved["param_groups"][0].update(lr=[value]),
    "centered": lambda saved, value: saved["param_groups"][0].update(centered=value),
    "foreach": lambda saved, value: saved["param_groups"][0].update(foreach=value),
    "differentiable": lambda saved, value: saved["param_groups"][0].update(differentiable=value),
    "key-of-the-user": lambda saved, value: saved["param_groups"][0].update(mine=(1, value)),
}

for _place, _put in PLACES.items():
    for _what, (_make, _match) in TENSORS.items():

        @misuse(RuntimeError, _match, name=f"load-{_what}-tensor-as-{_place}")
        def _(w, put=_put, make=_make):
            saved = _saved(w)
            put(saved, make())
            yield lambda: w.optimizer.load_state_dict(saved)


# Where only a message could be made of it.
UNREADABLE_PARTS = {
    "entry": (lambda saved, value: saved["state"].update({0: value}), TypeError, "must be a mapping"),
    "list-as-step": (lambda saved, value: saved["state"][0].update(step=[value]), TypeError, "whole number"),
    "state": (lambda saved, value: saved.update(state=value), TypeError, "'state'.* must be a dict"),
    "param_groups": (lambda saved, value: saved.update(param_groups=value), TypeError, "must be a list"),
    "group": (lambda saved, value: saved.update(param_groups=[value]), TypeError, "must be a dict"),
    "params": (
        lambda saved, value: saved["param_groups"][0].update(params=value),
        TypeError,
        "must be a list",
    ),
    "ids": (lambda saved, value: saved["param_groups"][0].update(params=[value, value]), TypeError, ""),
    "one-id": (lambda saved, value: saved["param_groups"][0].update(params=[value, 1]), TypeError, ""),
    "name": (
        lambda saved, value: saved["param_groups"][0].update(param_names=[value, value]),
        TypeError,
        "list of str",
    ),
    "key-of-a-strange-dict": (
        lambda saved, value: (saved.clear(), saved.update({value: 1})),
        KeyError,
        "lacks 'param_groups'",
    ),
    "key-of-a-strange-group": (
        lambda saved, value: (
            saved["param_groups"][0].pop("lr"),
            saved["param_groups"][0].update({value: 1}),
        ),
        KeyError,
        "lacks 'lr'",
    ),
    "key-of-a-strange-entry": (
        lambda saved, value: (saved["state"][0].pop("square_avg"), saved["state"][0].update({value: 1})),
        KeyError,
        "lacks 'square_avg'",
    ),
    "key-of-state": (lambda saved, value: saved["state"].update({value: {"step": 1}}), TypeError, ""),
}

for _place, (_put, _exception, _match) in UNREADABLE_PARTS.items():
    for _what, (_make, _) in TENSORS.items():

        @misuse(_exception, _match, name=f"load-{_what}-tensor-as-{_place}")
        def _(w, put=_put, make=_make):
            saved = _saved(w)
            put(saved, make())
            yield lambda: w.optimizer.load_state_dict(saved)


for _what, (_make, _) in TENSORS.items():

    @misuse(TypeError, "state_dict must be a dict", name=f"load-{_what}-tensor-as-state-dict")
    def _(w, make=_make):
        tensor = make()
        yield lambda: w.optimizer.load_state_dict(tensor)

    @misuse(
        TypeError, "square_avg must hold real numbers", name=f"load-list-of-{_what}-tensors-as-square_avg"
    )
    def _(w, make=_make):
        saved = _saved(w)
        array = np.empty(3, object)
        array[:] = [make() for _ in range(3)]
        saved["state"][0]["square_avg"] = array
        yield lambda: w.optimizer.load_state_dict(saved)

    @misuse(ValueError, "Invalid keep value", name=f"load-keep-{_what}-tensor")
    def _(w, make=_make):
        tensor = make()
        yield lambda: w.optimizer.load_state_dict(_saved(w), keep=(tensor,))


# --- tensors where numbers should be --------------------------------------------------------------


def _state_by_parameter(w):
    return dict(_saved(w), state=dict(w.optimizer.state))


def _state_by_parameter_of_dicts(w):
    entries = {param: dict(entry) for param, entry in w.optimizer.state.items()}
    return dict(_saved(w), state=entries)


def _state_itself(w):
    return dict(_saved(w), state=w.optimizer.state)


def _groups_themselves(w):
    return dict(_saved(w), param_groups=w.optimizer.param_groups)


def _all_of_it(w):
    return {"state": w.optimizer.state, "param_groups": w.optimizer.param_groups}


def _nonsense_by_parameter(value):
    return lambda w: dict(_saved(w), state={w.p: value})


BY_PARAMETER = {
    "state": _state_itself,
    "dict-of-state": _state_by_parameter,
    "dict-of-dicts": _state_by_parameter_of_dicts,
    "groups": _groups_themselves,
    "state-and-groups": _all_of_it,
    "wrong-shape": _nonsense_by_parameter({"square_avg": np.ones(7, "float32")}),
    "int16": _nonsense_by_parameter({"square_avg": np.ones(3, "int16")}),
    "text": _nonsense_by_parameter({"square_avg": "text"}),
    "negative-step": _nonsense_by_parameter({"step": -3}),
    "no-mapping": _nonsense_by_parameter(5),
}

for _what, _make in BY_PARAMETER.items():

    @misuse(TypeError, "numbers", name=f"load-by-parameter-{_what}")
    def _(w, make=_make):
        """`optimizer.state` and `optimizer.param_groups` in the place of what `state_dict()` returns."""
        saved = make(w)
        yield lambda: w.optimizer.load_state_dict(saved)


@misuse(KeyError, "lacks 'param_groups'")
def load_of_the_state(w):
    yield lambda: w.optimizer.load_state_dict(w.optimizer.state)


@misuse(KeyError, "lacks 'param_groups'")
def load_of_the_model(w):
    yield lambda: w.optimizer.load_state_dict(torch.nn.Linear(2, 2).state_dict())


@misuse(TypeError, "state_dict must be a dict, but got dragon_optim")
def load_of_an_optimizer(w):
    yield lambda: w.optimizer.load_state_dict(w.optimizer)


@misuse(TypeError, "state_dict must be a dict")
def load_of_a_module(w):
    yield lambda: w.optimizer.load_state_dict(torch.nn.Linear(2, 2))


# --- what Dragon has no dtype for, and which is taken all the same --------------------------------

for _dtype in ("int8", "int16", "uint16", "uint32", "uint64", "float16", "longdouble", ">f4"):

    @misuse(None, name=f"load-array-of-{_dtype}")
    def _(w, dtype=_dtype):
        saved = _saved(w)
        saved["state"][0]["square_avg"] = np.ones(3, dtype)
        saved["state"][1]["step"] = np.ones((), "float64" if dtype == "longdouble" else dtype)
        saved["param_groups"][0]["lr"] = np.ones((), dtype)
        yield lambda: w.optimizer.load_state_dict(saved)
        assert values(w.optimizer.state[w.p]["square_avg"]).tolist() == [1.0] * 3
        w.optimizer.step()

    @misuse(None, name=f"load-array-of-{_dtype}-of-the-user")
    def _(w, dtype=_dtype):
        saved = _saved(w)
        saved["state"][0]["mine"] = saved["state"]["mine"] = np.ones(3, dtype)
        saved["param_groups"][0]["mine"] = np.ones(3, dtype)
        yield lambda: w.optimizer.load_state_dict(saved)
        assert w.optimizer.state[w.p]["mine"].dtype == dtype
        assert w.optimizer.state_dict()["state"]["mine"].dtype == dtype


@misuse(None)
def load_numpy_scalars(w):
    scalar = parameter(1.0)
    optimizer = dragon_optim.RMSprop([scalar])
    saved = optimizer.state_dict()
    saved["state"] = {0: {"step": np.float32(3), "square_avg": np.float64(0.5)}}
    yield lambda: optimizer.load_state_dict(saved)
    assert values(optimizer.state[scalar]["square_avg"]).tolist() == 0.5


@misuse(None)
def load_tensors_of_another_living_workspace(w):
    other = workspace.Workspace()
    saved = _saved(w)
    with other.as_default():
        saved["state"][0]["square_avg"] = torch.ones(3)
        saved["param_groups"][0].update(lr=torch.tensor(0.5), mine=torch.ones(2))
    yield lambda: w.optimizer.load_state_dict(saved)
    saved.clear()
    del other
    gc.collect()
    assert values(w.optimizer.state[w.p]["square_avg"]).tolist() == [1.0] * 3
    assert values(w.group["mine"]).tolist() == [1.0] * 2
    w.optimizer.step()


@misuse(None)
def load_the_state_dict_of_a_dead_optimizer(w):
    other = type(w)()
    saved = other.optimizer.state_dict()
    del other
    gc.collect()
    yield lambda: w.optimizer.load_state_dict(saved)
