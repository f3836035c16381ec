# SPDX-License-Identifier: BSD-2-Clause
"""A loss scale beside captured functions."""

from __future__ import annotations

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim import graph
from tests.optim.support import parameter, values

STEPS = 7
OVERFLOW = 3


def train(how):
    """The function multiplies the loss by the scale that it is given; the rest comes after it."""
    weight = parameter(np.ones((3, 2)))
    optimizer = dragon_optim.RMSprop([weight], lr=0.1, momentum=0.9)
    scaler = dragon_optim.GradScaler("cpu", growth_interval=2)

    def compute(inputs, scale):
        product = torch.mm(inputs, weight)
        ((product * product).mean() * scale).backward()

    function = how(compute)
    random, skipped = np.random.RandomState(0), []
    for step in range(STEPS):
        inputs = random.standard_normal((4, 3)).astype("float32")
        if step == OVERFLOW:
            inputs[0, 0] = np.inf
        function(torch.tensor(inputs), scaler.scale(torch.ones([])))
        scaler.step(optimizer)
        skipped.append(scaler.step_was_skipped(optimizer))
        scaler.update()
    assert skipped == [step == OVERFLOW for step in range(STEPS)]
    return values(weight).tobytes(), scaler.get_scale(), optimizer.state[weight]["step"], function


def test_the_scale_as_an_argument():
    *captured, function = train(graph.capture)
    *eager, _ = train(lambda compute: compute)
    assert captured == eager
    assert captured[1:] == [2.0**17, STEPS - 1]
    assert function.replays == STEPS - 1


@pytest.mark.parametrize("method", ["scale", "unscale_", "step", "update"])
def test_a_captured_function_cannot_hold_it(method):
    weight = parameter([1.0, 2.0])
    optimizer = dragon_optim.RMSprop([weight])
    scaler = dragon_optim.GradScaler("cpu")
    loss = torch.ones(1)
    scaler.scale(loss)
    arguments = {"scale": [loss], "update": []}.get(method, [optimizer])

    @graph.capture
    def function(inputs):
        (weight * inputs).sum().backward()
        getattr(scaler, method)(*arguments)

    with pytest.raises(graph.NotCapturableError, match=rf"GradScaler.{method}\(\) inside a captured"):
        function(torch.ones(2))
    assert (values(weight).tolist(), scaler.get_scale()) == ([1.0, 2.0], 65536.0)


def test_one_that_is_disabled_may_be_in_it():
    weight = parameter([1.0, 2.0])
    optimizer = dragon_optim.RMSprop([weight])
    scaler = dragon_optim.GradScaler("cpu", enabled=False)

    @graph.capture
    def function(inputs):
        scaler.scale((weight * inputs).sum()).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()

    for _ in range(3):
        function(torch.ones(2))
    assert optimizer.state[weight]["step"] == 3
    assert function.replays == 2
