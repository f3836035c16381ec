# SPDX-License-Identifier: BSD-2-Clause
"""A few recorded steps of one parameter, and the same steps in numpy, as functions of all that goes in.

What goes in is a dict: `param`, `grad`, the states in use, and hyper-parameters. What comes out is one
number, to which every result of the last step contributes. The steps in numpy are those of `tests/oracle.py`.
"""

from __future__ import annotations

import numpy as np
from dragon.vm import torch

import dragon_optim
from tests import oracle
from tests.optim.support import parameter

SIZE = 5
STATES = {
    "square_avg": "mean_square",
    "momentum_buffer": "velocity",
    "grad_avg": "mean",
}  # names in the oracle
NUMBERS = ("lr", "alpha", "eps", "weight_decay", "momentum", "grad_scale", "clip_norm", "clip_value")
_random = np.random.RandomState(7)
# How much each result counts in the number that comes out.
WEIGHTS = {name: _random.uniform(0.5, 1.5, SIZE) for name in ("param", *STATES)}
TINY = np.longdouble(1e-40)  # an imaginary part of which no square counts
FLOOR = 1e-4  # a derivative less than that is a difference of larger numbers
OFF_AT_ZERO = ("momentum", "clip_norm", "clip_value")


def tensor(numbers, requires_grad=True, dtype="float64"):
    made = torch.tensor(np.array(numbers, dtype), dtype=dtype)
    made.requires_grad = requires_grad
    return made


def leaf_of(numbers, dtype="float64"):
    return parameter(numbers, dtype)


def used_states(options):
    used = ["square_avg"]
    if options.get("momentum", 0):
        used.append("momentum_buffer")
    if options.get("centered"):
        used.append("grad_avg")
    return used


def inputs(options, seed=0):
    """All that a gradient can flow to, with numbers that no clip has its border near."""
    rng = np.random.RandomState(seed)
    found = {
        "param": rng.uniform(-2, 2, SIZE),
        "grad": np.array([0.4, -1.1, 0.9, -0.35, 1.6]),
        "square_avg": rng.uniform(0.5, 2, SIZE),
        "momentum_buffer": rng.uniform(-1, 1, SIZE),
        "grad_avg": rng.uniform(-0.4, 0.4, SIZE),
    }
    found = {
        name: value for name, value in found.items() if name not in STATES or name in used_states(options)
    }
    full = dict(lr=0.05, alpha=0.9, eps=0.02, weight_decay=0.0, momentum=0.0, grad_scale=1.0)
    full.update(clip_norm=0.0, clip_value=0.0)
    for name in NUMBERS:
        value = options.get(name, full[name])
        if value or name not in OFF_AT_ZERO:
            found[name] = np.float64(value)
    return found


def flags(options):
    return {name: value for name, value in options.items() if name not in NUMBERS}


def in_numpy(options, values, steps):
    """What each element adds to the number that comes out, with nothing of Dragon on the way to it."""
    track = oracle.Trajectory(values["param"])
    for name, attribute in STATES.items():
        if name in values:
            setattr(track, attribute, values[name])
    numbers = {name: values[name] for name in NUMBERS if name in values}
    for step in range(steps):
        grad = (step + 1) * values["grad"] + 0.02 * step * track.parameter * track.parameter
        track.advance(grad, **numbers, **flags(options))
    results = {"param": track.parameter}
    results.update({name: getattr(track, STATES[name]) for name in used_states(options)})
    return sum(WEIGHTS[name] * value for name, value in results.items())


def recorded(options, given, steps, **more):
    """The same as a tensor on the tape, from a dict of tensors; and the optimizer."""
    param = given["param"] * 1.0  # not a leaf
    numbers = {name: given[name] for name in NUMBERS if name in given}
    optimizer = dragon_optim.RMSprop([param], **numbers, **flags(options), differentiable=True, **more)
    for name in STATES:
        if name in given:
            optimizer.state[param][name] = given[name]
    for step in range(steps):
        grad = given["grad"] * float(step + 1) + param * param * (0.02 * step)
        optimizer.step(gradients={param: grad})
    results = {"param": param}
    results.update({name: optimizer.state[param][name] for name in used_states(options)})
    total = None
    for name, result in results.items():
        term = (result * tensor(WEIGHTS[name], False)).sum()
        total = term if total is None else total + term
    return total, optimizer


def gradients(options, values, steps, **more):
    """The derivative of what comes out by all that goes in, by Dragon's tape."""
    given = {name: tensor(value) for name, value in values.items()}
    total, _ = recorded(options, given, steps, **more)
    total.backward()
    return {name: np.array(each.grad.numpy()) for name, each in given.items()}


def derivatives(options, values, steps):
    """The same in numpy, by complex steps in the longest floats there are: exact to their last digits."""
    values = {name: np.asarray(value, np.clongdouble)[()] for name, value in values.items()}
    found = {}
    for name, value in values.items():
        # The elements of an array are moved all at once where none of them has a part in the others.
        together = np.ndim(value) == 1 and not options.get("clip_norm")
        directions = [np.ones(SIZE)] if together else np.eye(np.size(value)).reshape(-1, *np.shape(value))
        slopes = []
        for direction in directions:
            moved = dict(values, **{name: value + TINY * np.clongdouble(1j) * direction})
            slope = np.imag(in_numpy(options, moved, steps)) / TINY
            slopes.append(slope if together else slope.sum())
        found[name] = np.reshape(np.array(slopes, "float64"), np.shape(value))
    return found


def relative_error(actual, expected):
    """The largest difference of an element, in units of that element (or of `FLOOR`, where it is less)."""
    return (np.abs(actual - expected) / np.maximum(np.abs(expected), FLOOR)).max()
