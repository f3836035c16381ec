# SPDX-License-Identifier: BSD-2-Clause
"""Parameters, exact gradients, and snapshots of what an optimizer holds."""

from __future__ import annotations

import numpy as np
from dragon.core.framework import workspace
from dragon.vm import torch


def parameter(numbers, dtype="float32"):
    """A leaf that holds these numbers."""
    array = np.array(numbers, dtype)
    return torch.nn.Parameter(torch.tensor(array, dtype=str(array.dtype)))


def feed_gradient(param, grad: np.ndarray):
    """Put a gradient where a backward pass would put it: for what Dragon's backward cannot do.

    On the CPU it ends the process for float16 and for shapes such as (2, 0).
    """
    tensor = workspace.get_workspace().create_tensor(param.id + "_grad")
    tensor.FromNumpy(np.array(grad), True)  # a numpy scalar would end the process, too


def values(tensor):
    """A copy: Dragon's own numpy views change under the reader."""
    return np.array(tensor.numpy())


def backward(param, grad, *others):
    """Leave exactly `grad` in `param.grad`, by a backward pass; further pairs follow in the same pass."""
    loss = None
    for each, number in [(param, grad), *zip(others[::2], others[1::2])]:
        array = np.broadcast_to(np.array(number, each.dtype), tuple(each.shape)).copy()
        term = (each * torch.tensor(array, dtype=each.dtype)).sum()
        loss = term if loss is None else loss + term
    loss.backward()


def snapshot(optimizer, *params) -> dict:
    """The bytes of parameters, gradients and states, and step counts: equal where nothing has changed."""
    found = {}

    def take(name, tensor):
        if tensor is None or tensor._impl.size == 0:  # reading such a tensor would end the process
            found[name] = "no data"
        else:
            found[name] = (tensor.dtype, tuple(tensor.shape), values(tensor).tobytes())

    for i, param in enumerate(params):
        take(f"param {i}", param)
        if param._impl.size == 0:
            continue  # its workspace was cleared, and the states with it
        take(f"grad {i}", param.grad)
        for key, value in optimizer.state[param].items():
            if key == "step":
                found[f"{key} {i}"] = value
            else:
                take(f"{key} {i}", value)
    return found


def shown(optimizer, param):
    """The gradient that one step() uses for a float64 `param`; None if it does not use any.

    For options alpha=0, eps=1 and lr=1, with which gradient g moves a parameter by g / (abs(g) + 1).
    """
    steps = optimizer.state[param].get("step", 0)
    before = values(param).reshape(-1)[0]
    optimizer.step()
    move = before - values(param).reshape(-1)[0]
    if optimizer.state[param].get("step", 0) == steps:
        assert move == 0
        return None
    return round(move / (1 - abs(move)), 3)


def moves(optimizer, *params):
    """How far one step from gradients of 1 takes each parameter."""
    before = [values(param) for param in params]
    for param in params:
        backward(param, 1.0)
    optimizer.step()
    return [round(float((old - values(param)).reshape(-1)[0]), 6) for old, param in zip(before, params)]


def fresh_workspace():
    """A workspace without a past, to enter: names that are used again have an empty gradient already."""
    return workspace.Workspace().as_default()
