# SPDX-License-Identifier: BSD-2-Clause
"""Tensors without data, of Dragon's native interface and of its PyTorch-like one, where a value belongs."""

from __future__ import annotations

import copy

import dragon
import numpy as np
from dragon.vm import torch

import dragon_optim
from tests.optim import natives
from tests.optim.forked_cases import Table

CASES = Table()
misuse = CASES.case


def _reset(tensor):
    tensor._impl.Reset()
    return tensor


EMPTY = {
    "symbolic": lambda: dragon.Tensor(symbolic=True),
    "reset-native": lambda: _reset(dragon.constant([1.0])),
    "reset": lambda: _reset(torch.ones(1)),
}


def _in_array(value):
    array = np.empty(1, object)
    array[0] = value
    return array


def _loaded(w, value):
    saved = w.optimizer.state_dict()
    saved["param_groups"][0]["lr"] = value
    w.optimizer.load_state_dict(saved)


def _updated(value):
    variable = natives.variable([1.0])
    variable._weight_decay = value
    dragon_optim.native_optimizers.RMSprop().apply_gradients([(natives.variable([1.0]), variable)])


def _set(optimizer, value):
    optimizer.lr = value


RMSprop, Native = dragon_optim.RMSprop, dragon_optim.native_optimizers.RMSprop
# What is done with the tensor, and what the error says.
USES = {
    "lr": (lambda w, t: RMSprop([w.p], lr=t), RuntimeError, "given as lr has no data"),
    "lr-in-a-list": (lambda w, t: RMSprop([w.p], lr=[t]), TypeError, "lr must be a number.*has no data"),
    "lr-in-a-set": (lambda w, t: RMSprop([w.p], lr={t}), TypeError, "lr must be a number.*has no data"),
    "lr-in-an-array": (lambda w, t: RMSprop([w.p], lr=_in_array(t)), RuntimeError, "as lr has no data"),
    "lr-to-load": (_loaded, RuntimeError, "given as lr in parameter group 0 has no data"),
    "flag": (lambda w, t: RMSprop([w.p], centered=t), RuntimeError, "given as centered has no data"),
    "foreach": (lambda w, t: RMSprop([w.p], foreach=t), ValueError, "Invalid foreach value.*has no data"),
    "differentiable": (lambda w, t: RMSprop([w.p], differentiable=t), ValueError, "Invalid differentiable"),
    "state": (
        lambda w, t: w.optimizer.state[w.p].__setitem__("square_avg", t),
        RuntimeError,
        "given as square_avg has no data",
    ),
    "step": (
        lambda w, t: w.optimizer.state[w.p].__setitem__("step", t),
        RuntimeError,
        "given as step has no data",
    ),
    "native-lr": (lambda w, t: Native(lr=t), RuntimeError, "given as lr has no data"),
    "native-lr-later": (lambda w, t: _set(Native(), t), RuntimeError, "given as lr has no data"),
    "native-weight-decay": (
        lambda w, t: _updated(t),
        RuntimeError,
        "given as the weight_decay of variable 0 has no data",
    ),
}

for _kind, _make in EMPTY.items():
    for _name, (_use, _exception, _match) in USES.items():

        @misuse(_exception, _match, name=f"{_kind}-tensor-as-{_name}")
        def _(w, use=_use, make=_make):
            value = make()
            yield lambda: use(w, value)

    @misuse(RuntimeError, "given as lr has no data", name=f"{_kind}-tensor-as-lr-of-a-group")
    def _(w, make=_make):
        w.group["lr"] = make()
        yield w.optimizer.step

    @misuse(None, name=f"{_kind}-tensor-is-printed")
    def _(w, make=_make):
        w.group["mine"] = [make()]
        w.optimizer.state[w.p]["mine"] = make()
        w.optimizer.state[make()] = 1

        def act():
            assert "has no data" in repr(w.optimizer)
            for printed in (w.optimizer.state, w.optimizer.state[w.p]):
                assert "has no data" in repr(printed)

        yield act


@misuse(None)
def native_tensors_with_data(w):
    def act():
        w.group["lr"] = dragon.constant([0.25])
        w.optimizer.state[w.p]["square_avg"] = dragon.constant([4.0, 5.0, 6.0])
        twin = copy.deepcopy(w.optimizer)
        w.optimizer.load_state_dict(w.optimizer.state_dict())
        for each in (w.optimizer, twin):
            group = each.param_groups[0]
            assert isinstance(group["lr"], dragon.Tensor)
            assert float(group["lr"]) == 0.25
            state = each.state[group["params"][0]]
            assert state["square_avg"].numpy().tolist() == [4.0, 5.0, 6.0]
            each.state[group["params"][0]]["step"] = dragon.constant([7.0])
            assert state["step"] == 7
        assert twin.param_groups[0]["lr"].id != w.group["lr"].id

    yield act
    w.optimizer.state[w.p]["step"] = 1
