# SPDX-License-Identifier: BSD-2-Clause
"""What PyTorch's own tests of its optimizers run over: their loss, their option sets."""

from __future__ import annotations

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from tests.optim.support import parameter, values

# optim_inputs_func_rmsprop, without the three for CUDA.
INPUTS = {
    "default": {},
    "non-default-lr": dict(lr=1e-3),
    "nonzero-weight_decay": dict(weight_decay=0.1),
    "maximize": dict(maximize=True),
    "centered": dict(weight_decay=0.1, centered=True),
    "maximize-weight_decay": dict(maximize=True, weight_decay=0.1),
    "momentum": dict(weight_decay=0.1, centered=True, momentum=0.1),
    "maximize-centered-weight_decay-momentum": dict(
        weight_decay=0.1, centered=True, momentum=0.1, maximize=True
    ),
}
# optim_base_constructors_rmsprop of 2.1: "decay" is `weight_decay`.
CONSTRUCTORS = [
    dict(),
    dict(weight_decay=0.9),
    dict(weight_decay=0.9, centered=True),
    dict(weight_decay=0.9, centered=True, momentum=0.1),
    dict(weight_decay=0.9, centered=True, momentum=0.1, maximize=True),
]

over_inputs = pytest.mark.parametrize("options", INPUTS.values(), ids=INPUTS)
over_foreach = pytest.mark.parametrize("foreach", [False, True], ids=["forloop", "foreach"])


class Problem:
    """The loss of PyTorch's tests, sum((W x + b)^2), over a weight and a bias."""

    def __init__(self, dtype="float32", seed=1):
        random = np.random.RandomState(seed)
        self.weight = parameter(random.standard_normal((10, 5)), dtype)
        self.bias = parameter(random.standard_normal(10), dtype)
        self.params = [self.weight, self.bias]
        self.input = torch.tensor(random.standard_normal((1, 5)).astype(dtype), dtype=dtype)

    def named(self):
        return [("weight", self.weight), ("bias", self.bias)]

    def closure(self):
        out = (self.weight * self.input).sum(1) + self.bias
        loss = (out * out).sum()
        loss.backward()
        return float(loss.numpy())

    def steps(self, optimizer, count):
        for _ in range(count):
            optimizer.step(self.closure)

    def bits(self):
        return [values(param).tobytes() for param in self.params]


def bits(saved):
    """A state dict, with the bits of its tensors."""
    state = {
        key: {name: each if name == "step" else values(each).tobytes() for name, each in entry.items()}
        for key, entry in saved["state"].items()
    }
    return state, saved["param_groups"]


def made(options, problem=None, **more):
    problem = problem or Problem()
    return problem, dragon_optim.RMSprop(problem.params, **options, **more)
