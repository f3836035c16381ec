# SPDX-License-Identifier: BSD-2-Clause
"""Gradients under several optimizers, of dead parameters, and in the examples of Dragon's documentation."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from tests import oracle
from tests.optim.support import backward, feed_gradient, parameter, shown, values

# See `shown`.
SHOW = dict(lr=1.0, alpha=0.0, eps=1.0)


# --- several optimizers, several lives ------------------------------------------------------------


def test_two_optimizers_on_one_parameter_have_their_own_sums():
    """In stock Dragon the second one overwrites the sum of the first."""
    p = parameter([0.0, 0.0], "float64")
    first, second = dragon_optim.RMSprop([p], **SHOW), dragon_optim.RMSprop([p], **SHOW)
    backward(p, 1.0)
    first.sum_grad()
    backward(p, 2.0)
    first.sum_grad()
    second.sum_grad()
    assert shown(first, p) == 3.0
    assert shown(second, p) == 2.0


def recycled(number, *, make_optimizer=None):
    """Names of parameters that lived, had a gradient of 7, perhaps an optimizer, and died."""
    names = []
    for _ in range(number):
        p = parameter([0.0, 0.0], "float64")
        backward(p, 7.0)
        if make_optimizer:
            make_optimizer(p)
        names.append(p.id)
        del p
    gc.collect()
    return names


def _train(p):
    optimizer = dragon_optim.RMSprop([p], momentum=0.9, centered=True, **SHOW)
    optimizer.sum_grad()
    optimizer.step()
    backward(p, 7.0)
    optimizer.step()


def _train_and_clear(p):
    optimizer = dragon_optim.RMSprop([p], **SHOW)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


LIVES = {
    "no-optimizer": None,
    "ours": _train,
    "ours-cleared": _train_and_clear,
    "stock": lambda p: torch.optim.RMSprop([p]).step(),
    "left-in-a-round": lambda p: dragon_optim.RMSprop([p]).sum_grad(),
}


@pytest.mark.parametrize("life", LIVES)
def test_nothing_of_a_dead_parameter_shows_in_a_new_one(life):
    recycled(3, make_optimizer=LIVES[life])
    params = [parameter([0.0, 0.0], "float64") for _ in range(10)]
    optimizer = dragon_optim.RMSprop(params, momentum=0.9, **SHOW)
    assert all(p.grad is None for p in params)
    optimizer.sum_grad()
    optimizer.step()
    assert len(optimizer.state) == 0
    assert all(values(p).tolist() == [0.0, 0.0] for p in params)
    torch.optim.SGD(params, lr=1.0).zero_grad()  # ends the process where an empty gradient lies about


def test_a_dead_parameter_of_another_shape_does_not_stop_the_new_one():
    recycled(3)
    p = parameter([[0.0]], "float64")
    optimizer = dragon_optim.RMSprop([p], **SHOW)
    assert shown(optimizer, p) is None
    backward(p, 3.0)
    assert shown(optimizer, p) == 3.0


def test_a_dead_half_precision_parameter_leaves_no_master_weights():
    for _ in range(3):
        p = parameter([100.0], "float16")
        optimizer = dragon_optim.RMSprop([p])
        feed_gradient(p, np.ones(1, "float16"))
        optimizer.step()
        del p, optimizer
    p = parameter([50.0], "float16")
    optimizer = dragon_optim.RMSprop([p], lr=1.0, alpha=0.0, eps=0.0)
    feed_gradient(p, np.ones(1, "float16"))
    optimizer.step()
    assert values(p).tolist() == [49.0]


# --- the examples in Dragon's own documentation ---------------------------------------------------


def _follow(gradients, **options):
    """The weight after these gradients, by the textbook."""
    trajectory = oracle.Trajectory([1.0])
    for gradient in gradients:
        trajectory.advance([gradient], **options)
    return pytest.approx(trajectory.parameter, rel=1e-6)


def test_dragons_example_of_step():
    x = torch.ones(1, 3, requires_grad=True)
    optimizer = dragon_optim.RMSprop([x], lr=0.05)
    y = x + 1
    y.sum().backward()
    optimizer.step()
    assert values(x)[0, :1] == _follow([1.0], lr=0.05)


def test_dragons_example_of_sum_grad():
    x = torch.ones(1, requires_grad=True)
    optimizer = dragon_optim.RMSprop([x], lr=0.1)
    for _epoch in range(2):
        for _step in range(3):
            y = x + 1
            y.backward()
            optimizer.sum_grad()
        optimizer.step()
    assert values(x) == _follow([3.0, 3.0], lr=0.1)


def test_dragons_example_of_zero_grad():
    """The loop that stock's docstring recommends; with a sum_grad() in it, stock ends the process."""
    m1, m2 = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    optimizer = dragon_optim.RMSprop([*m1.parameters(), *m2.parameters()], lr=0.1)
    for i in range(10):
        x = m1(torch.ones(1, 3))
        if i in (2, 4, 6):
            x = x + m2(x)
        optimizer.zero_grad(set_to_none=True)
        x.sum().backward()
        optimizer.sum_grad()
        optimizer.step()
        optimizer.zero_grad()
    assert [optimizer.state[p]["step"] for p in (m1.weight, m1.bias, m2.weight, m2.bias)] == [10, 10, 3, 3]
