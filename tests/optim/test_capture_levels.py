# SPDX-License-Identifier: BSD-2-Clause
"""Dragon's optimization of graphs: each level computes what the eager function computes.

From level 2 on Dragon computes in place, also where an operator reads elements after it has written them.
"""

from __future__ import annotations

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim.graph import capture
from tests.optim.support import parameter, values

F = torch.nn.functional
RNG = np.random.default_rng(0)
WEIGHT, OTHER, BIAS = RNG.normal(size=(4, 4)), RNG.normal(size=(4, 4)), RNG.normal(size=4)

OPERATIONS = {
    "transpose": lambda h, w, b: h.transpose(0, 1) @ w,
    "permute": lambda h, w, b: h.permute(1, 0) + w,
    "weight transposed": lambda h, w, b: h @ w @ w.transpose(0, 1),
    "weight twice": lambda h, w, b: (w @ w.transpose(0, 1)) * h,
    "minus its mean": lambda h, w, b: h - h.mean(0, keepdim=True),
    "layer norm by hand": lambda h, w, b: (
        (h - h.mean(1, keepdim=True)) / ((h * h).mean(1, keepdim=True) + 1.0).sqrt()
    ),
    "mean before": lambda h, w, b: h.mean(0, keepdim=True) + h * w,
    "scalar before": lambda h, w, b: h.sum() + w * h,
    "broadcast product": lambda h, w, b: h * w.mean(0, keepdim=True) * b,
    "broadcast difference": lambda h, w, b: b - h * b,
    "broadcast maximum": lambda h, w, b: torch.maximum(h * w, h.mean(0, keepdim=True)),
    "element-wise": lambda h, w, b: F.tanh((F.relu(h * w) + 1.0).log()).abs().sqrt() * b,
    "views": lambda h, w, b: (h * w).reshape((2, 8)).reshape((4, 4)).unsqueeze(0).squeeze(0) + b,
    "slices": lambda h, w, b: torch.cat([(h * w)[2:4], (h + b)[0:2]], 0),
    "softmax": lambda h, w, b: F.softmax(h * w, 1) * b,
    "linear twice": lambda h, w, b: F.linear(F.relu(F.linear(h, w, b)), w, b),
}


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_operation(name, level):
    def make():
        weight, other, bias = (parameter(each, "float64") for each in (WEIGHT, OTHER, BIAS))
        optimizer = dragon_optim.RMSprop([weight, other, bias], lr=1e-3, momentum=0.9)

        def step(x):
            result = OPERATIONS[name](x * other, weight, bias)
            loss = (result * result).mean() + (weight * weight).mean() + (bias * bias).mean()
            loss.backward()
            optimizer.step()
            return result, loss

        return step, [weight, other, bias]

    (eager, left), (step, right) = make(), make()
    captured = capture(step, optimization=level)
    for number in range(5):
        x = torch.tensor(np.random.default_rng(number).normal(size=(4, 4)))
        # Dragon's exponential and reductions depend on where in memory their operands lie.
        for one, other in zip([*eager(x), *left], [*captured(x), *right]):
            np.testing.assert_allclose(values(other), values(one), rtol=1e-12, atol=1e-12)
        for one, other in zip(left, right):
            np.testing.assert_allclose(values(other.grad), values(one.grad), rtol=1e-11, atol=1e-12)
    assert captured.replays == 4
