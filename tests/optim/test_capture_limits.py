# SPDX-License-Identifier: BSD-2-Clause
"""Where a captured function stays eager, and what it leaves behind."""

from __future__ import annotations

import gc
import warnings

import numpy as np
import pytest
from dragon.core.framework import workspace
from dragon.vm import torch
from dragon.vm.torch.core.autograd.function import Function
from dragon.vm.torch.core.nn.modules.module import Module
from dragon.vm.torch.core.optim import optimizer as stock

import dragon_optim
from dragon_optim.graph import NotCapturableError, capture
from tests.optim.captured_steps import batches, mlp, mse, same, two_sides
from tests.optim.memory import MEGABYTE, growth
from tests.optim.support import values

pytestmark = pytest.mark.usefixtures("ws")


def stays_eager(function, reason, arguments=(), calls=4):
    """Call a function: it runs each time, and one warning says why."""
    captured = capture(function)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = [captured(*arguments) for _ in range(calls)]
    assert captured.replays == 0
    assert [str(each.message) for each in caught if reason in str(each.message)] != []
    assert len(caught) == 1, [str(each.message) for each in caught]
    assert caught[0].filename == __file__
    return results


@pytest.fixture
def weight():
    return torch.nn.Parameter(torch.ones(3))


def test_a_tensor_that_is_kept_for_the_next_call():
    state = [torch.zeros(3)]

    def recurrent(x):
        state[0] = state[0] * 0.5 + x
        return state[0]

    results = stays_eager(recurrent, "it keeps a tensor", [torch.ones(3)])
    assert [values(each)[0] for each in results] == [1.0, 1.5, 1.75, 1.875]


def test_a_list_of_losses(weight):
    losses = []
    stays_eager(lambda x: losses.append((weight * x).sum()), "it keeps a tensor", [torch.ones(3)])
    gc.collect()
    assert [float(each) for each in losses] == [3.0] * 4


def test_a_learning_rate_that_changes_inside(weight):
    optimizer = dragon_optim.RMSprop([weight], lr=1.0, alpha=0.0, eps=1.0)

    def step(x):
        (weight * x).sum().backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= 0.5

    stays_eager(step, "it changes hyper-parameters", [torch.ones(3)])
    np.testing.assert_allclose(values(weight), 1 - 0.5 * (1 + 0.5 + 0.25 + 0.125))


@pytest.mark.parametrize("register", ["local", "global"])
def test_step_hooks(weight, register):
    optimizer, calls = dragon_optim.RMSprop([weight], lr=1.0), []

    def step(x):
        (weight * x).sum().backward()
        optimizer.step()

    if register == "local":
        handle = optimizer.register_step_post_hook(lambda *_: calls.append(1))
    else:
        handle = dragon_optim.register_optimizer_step_pre_hook(lambda *_: calls.append(1))
    with handle:
        stays_eager(step, "step hooks", [torch.ones(3)])
    assert len(calls) == 4
    captured = capture(step)
    for _ in range(3):
        captured(torch.ones(3))
    assert captured.replays == 2
    handle = dragon_optim.register_optimizer_step_pre_hook(lambda *_: calls.append(1))
    with handle, pytest.warns(UserWarning, match="step hooks"):
        captured(torch.ones(3))
    captured(torch.ones(3))
    assert captured.replays == 3
    assert len(calls) == 5
    assert optimizer.state[weight]["step"] == 9


def test_stock_adam(weight):
    optimizer = torch.optim.Adam([weight], lr=0.1)
    other = torch.nn.Parameter(torch.ones(3))
    eager = torch.optim.Adam([other], lr=0.1)

    def step(x, weight=weight, optimizer=optimizer):
        (weight * weight * x).sum().backward()
        optimizer.step()

    stays_eager(step, "Adam may keep something", [torch.ones(3)])
    for _ in range(4):
        step(torch.ones(3), other, eager)
    same(values(weight), values(other), exact=False)


def test_more_graphs_than_allowed():
    def flat(x):
        return x.reshape((x.shape[0] * x.shape[1],)) * 1.0

    captured = capture(flat, max_graphs=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            for rows in range(1, 9):
                assert values(captured(torch.ones(rows, 2))).shape == (rows * 2,)
    assert captured.graphs == 3
    assert captured.replays == 6
    assert ["max_graphs=3" in str(each.message) for each in caught] == [True]


def test_nothing_is_patched_afterwards():
    ws = workspace.get_workspace()
    owners = [torch.Tensor, Function, Module, stock.Optimizer, dragon_optim.Optimizer]
    before = [dict(vars(each)) for each in owners], set(vars(ws)), ws._handle_pool

    def broken(x):
        (x * 2.0).sum()
        raise KeyError

    with pytest.raises(KeyError):
        capture(broken)(torch.ones(1))
    with pytest.raises(NotCapturableError):
        capture(float)(torch.ones(1))
    capture(lambda x: x * 2.0)(torch.ones(1))
    after = [dict(vars(each)) for each in owners], set(vars(ws)), ws._handle_pool
    assert before[0] == after[0]
    assert after[1] - before[1] <= {"_dragon_optim_tape", "_dragon_optim_tensor_pool", "_dragon_optim_graphs",
                                    "_dragon_optim_definitions"}  # fmt: skip
    assert before[2] is after[2]


def test_gradients_of_others_are_not_touched(weight):
    """Dragon's graphs compute the gradient of all that is read; an eager backward that of leaves only."""
    frozen = torch.nn.Parameter(torch.ones(3))
    frozen.requires_grad = False
    constant = torch.ones(3)

    @capture
    def step(x):
        (weight * x * frozen * constant).sum().backward()

    for _ in range(3):
        step(torch.ones(3))
    ws = workspace.get_workspace()
    for each in (frozen, constant):
        assert ws.get_tensor(each.id + "_grad") is None
    assert weight.grad is not None


def test_tensors_kept_by_force_outlive_the_capture(weight):
    """What the function hands out by a back door stays readable, though its graph is gone."""
    kept = []

    def step(x):
        kept.append(weight * x)
        raise KeyError

    with pytest.raises(KeyError):
        capture(step)(torch.ones(3))
    gc.collect()
    for _ in range(5):
        capture(lambda x: x * 3.0)(torch.ones(3))
    assert values(kept[0])[0] == 1.0


def test_10000_replays_keep_nothing():
    sides = two_sides(lambda: mlp(dtype="float32"), mse)
    ((x, y),) = batches(1, dtype="float32")
    ws = workspace.get_workspace()
    found = growth(ws, lambda _: sides[0].run(x, y), 500, 10_000)
    assert found.before == found.after
    assert found.resident < MEGABYTE // 2
    assert sides[0].run.replays == 10_499


def test_50_shapes_keep_one_graph_and_their_memory_is_given_back():
    sides = two_sides(lambda: mlp(dtype="float32"), mse)
    ws = workspace.get_workspace()
    data = [next(batches(1, rows, dtype="float32")) for rows in range(1, 51)]
    found = growth(ws, lambda i: sides[0].run(*data[i % 50]), 50, 500)
    assert sides[0].run.graphs == 1
    assert sides[0].run.replays == 500
    assert found.before["graphs"] == found.after["graphs"]
    assert abs(found.after["allocated"] - found.before["allocated"]) < 200_000
    assert found.resident < 2 * MEGABYTE


def test_captures_that_die_give_their_memory_back():
    ws = workspace.get_workspace()
    big = torch.ones(1 << 18)

    def work(_):
        captured = capture(lambda x: (x * 2.0, x + big))
        captured(big)
        captured(big)

    found = growth(ws, work, 5, 20, collect=True)
    assert found.before["allocated"] == found.after["allocated"]
    assert found.before["names"] == found.after["names"]
