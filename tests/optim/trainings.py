# SPDX-License-Identifier: BSD-2-Clause
"""The trainings of `golden/record_state_dicts.py`, on Dragon; and what a state dict holds, to be compared."""

from __future__ import annotations

import numpy as np
from dragon.vm import torch

import dragon_optim
from tests import inputs
from tests.golden.state_dicts import SHAPES, STEPS
from tests.optim.support import feed_gradient, parameter, values

NAMES = ("first.weight", "first.bias", "scale", "last.bias")


def parameters(dtype="float32") -> list:
    return [parameter(inputs.uniform(place, shape), dtype) for place, shape in enumerate(SHAPES)]


def rmsprop(params, **options):
    return dragon_optim.RMSprop(params, **dict(dict(lr=0.01, alpha=0.9), **options))


def _two_groups(params):
    groups = [{"params": params[:2], "momentum": 0.9}, {"params": params[2:], "lr": 0.02}]
    return rmsprop(groups, centered=True, weight_decay=0.1)


def _shared(params):
    groups = [{"params": [params[0], params[0], params[1]]}, {"params": params[2:]}]
    return rmsprop(groups, momentum=0.5)


def _scheduled(params):
    return rmsprop([{"params": params, "initial_lr": 0.01}], momentum=0.9)


MAKE = {
    "two-groups": _two_groups,
    "shared": _shared,
    "scheduled": _scheduled,
    "for-loop": lambda params: rmsprop(params, foreach=False, maximize=True),
    "named": lambda params: rmsprop(list(zip(NAMES, params)), momentum=0.9),
    "tensor-lr": lambda params: rmsprop(params, lr=torch.tensor(0.01, dtype="float32"), momentum=0.9),
}


def advance(optimizer, params, steps=range(STEPS)):
    """Train on; the gradients depend on the number of the step alone."""
    for step in steps:
        for place, param in enumerate(params):
            grad = inputs.gradient("gentle", step, place, SHAPES[place], np.dtype("float32"))
            feed_gradient(param, grad.astype(param.dtype))
        optimizer.step()


def trained(name, dtype="float32"):
    """An optimizer in the middle of the training, and its parameters."""
    params = parameters(dtype)
    optimizer = MAKE[name](params)
    advance(optimizer, params)
    return optimizer, params


GOES_ON = range(STEPS, 2 * STEPS)


def plain(value):
    """A tree of dicts, lists and tensors of any kind in a form that `==` compares by bits, dtypes, shapes."""
    if hasattr(value, "items"):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, torch.Tensor):
        value = values(value)
    if isinstance(value, np.ndarray):
        return value.dtype.name, value.shape, value.tobytes()
    return value


def with_int_steps(state_dict) -> dict:
    """PyTorch's `step` is a float32 tensor since 2.2; ours is an int, as before."""
    state = {
        key: dict(entry, step=int(entry["step"])) if "step" in entry else entry
        for key, entry in state_dict["state"].items()
    }
    return dict(state_dict, state=state)
