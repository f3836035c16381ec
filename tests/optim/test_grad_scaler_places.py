# SPDX-License-Identifier: BSD-2-Clause
"""A `GradScaler` over lives and places: dead optimizers, memory, threads, workspaces, cleared ones too."""

from __future__ import annotations

import gc
import math
import weakref

import numpy as np
import pytest
from dragon.core.framework import workspace
from dragon.vm import torch

import dragon_optim
from tests.optim.elsewhere import in_thread, run_script
from tests.optim.scalers import SHOW, make, scaler_of, settings, used
from tests.optim.support import backward, feed_gradient, fresh_workspace, parameter, snapshot, values

# --- lives --------------------------------------------------------------------------------------------------


def test_a_dead_optimizers_id():
    """What it found counts; that it has stepped does not hold for the next one of its id."""
    scaler = scaler_of()
    gc.collect()
    for _ in range(200):
        first, p = make()
        backward(p, math.inf)
        scaler.step(first)
        assert scaler.step_was_skipped(first)
        number = id(first)
        params = [parameter([0.0], "float64")]
        del first
        second = dragon_optim.RMSprop(params, **SHOW)
        if id(second) == number:
            break
        scaler.update(8.0)
    assert id(second) == number
    backward(params[0], 24.0)
    assert used(scaler, second, params[0]) == 3.0
    scaler.update()
    assert scaler.get_scale() == 4


def test_nothing_is_kept_of_old_scales():
    """Dragon keeps half a kilobyte of every number that a tensor was multiplied by."""
    with fresh_workspace():
        home = workspace.get_workspace()
        scaler, loss = scaler_of(), torch.ones(1)

        def kept(first):
            for number in range(first, first + 20):
                scaler.update(float(number))
                assert float(scaler.scale(loss)) == number
            return home.memory_allocated()

        assert kept(100) == kept(200)


def test_optimizers_are_not_kept_alive():
    scaler = scaler_of()
    optimizer, p = make()
    backward(p, 24.0)
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    watched = weakref.ref(optimizer), weakref.ref(p)
    del optimizer, p
    gc.collect()
    assert [each() for each in watched] == [None, None]
    assert scaler.get_scale() == 8


def test_no_graph_and_no_tensor_per_iteration():
    with fresh_workspace():
        home = workspace.get_workspace()
        scaler = scaler_of(growth_interval=2)
        optimizer, p = make(dtype="float32")

        def iterations():
            for grad in (1.0, math.inf, 2.0, 3.0):
                feed_gradient(p, np.float32([grad] * 2))
                scaler.scale(torch.ones(1))
                if grad == 2:
                    scaler.unscale_(optimizer)
                scaler.step(optimizer)
                scaler.update()

        def kept():
            return len(home._impl.graphs), home.memory_allocated()

        for _ in range(3):
            iterations()
        before = kept()
        for _ in range(10):
            iterations()
        assert kept() == before


# --- threads and workspaces ---------------------------------------------------------------------------------


def training(scaler, optimizer, p):
    found = []
    for step in range(30):
        backward(p, math.inf if step % 7 == 3 else 24.0 + step)
        found.append(used(scaler, optimizer, p))
        scaler.update()
        found.append(scaler.get_scale())
    return found


def test_a_thread_of_its_own():
    def alone():
        scaler = scaler_of(growth_interval=3)
        return training(scaler, *make())

    assert in_thread(alone) == alone()


def test_another_thread_goes_on_with_a_scaler():
    """In the optimizer's workspace, or not at all."""
    home = workspace.get_workspace()
    scaler = scaler_of(growth_interval=3)
    optimizer, p = make()

    def elsewhere():
        with home.as_default():
            return training(scaler, optimizer, p)

    backward(p, 24.0)
    before = snapshot(optimizer, p)
    for call in (scaler.unscale_, scaler.step):
        with pytest.raises(RuntimeError, match="workspace"):
            in_thread(lambda call=call: call(optimizer))
        assert snapshot(optimizer, p) == before
    assert in_thread(elsewhere) == training(scaler_of(growth_interval=3), *make())


def test_an_optimizer_of_another_workspace():
    scaler = scaler_of()
    optimizer, p = make()
    backward(p, 24.0)
    before = snapshot(optimizer, p), settings(scaler)
    with fresh_workspace():
        for call in (scaler.unscale_, scaler.step):
            with pytest.raises(RuntimeError, match="workspace"):
                call(optimizer)
    assert (snapshot(optimizer, p), settings(scaler)) == before
    assert used(scaler, optimizer, p) == 3.0


def test_a_stock_optimizer_of_another_workspace():
    scaler = scaler_of()
    p = parameter([1.0])
    optimizer = torch.optim.SGD([p], lr=1.0)
    backward(p, 24.0)
    with fresh_workspace():
        for call in (scaler.unscale_, scaler.step):
            with pytest.raises(RuntimeError, match="workspace"):
                call(optimizer)
    assert values(p.grad).tolist() == [24]
    scaler.step(optimizer)
    assert float(p) == -2


def test_outputs_of_another_workspace():
    given = torch.ones(1)
    scaler = scaler_of()
    with fresh_workspace():
        with pytest.raises(RuntimeError, match="workspace"):
            scaler.scale(given)
        with pytest.raises(RuntimeError, match="workspace"):
            scaler.scale([given])
    assert float(scaler.scale(given)) == 8


WORKSPACES = """
import dragon, math
import dragon_optim
from dragon.core.framework import workspace
from dragon.vm import torch

def iteration(scaler, grad):
    p = torch.nn.Parameter(torch.zeros(2))
    optimizer = dragon_optim.RMSprop([p], lr=1.0, alpha=0.0, eps=1.0)
    grads = torch.tensor([grad, grad], dtype="float32")  # a plain number would end the process after clear()
    scaler.scale((p * grads).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    return p.numpy().tolist(), scaler.get_scale(), scaler._get_growth_tracker()

scaler = dragon_optim.GradScaler("cpu", init_scale=8.0, growth_interval=3)
print(iteration(scaler, 3.0))
with dragon.Workspace().as_default():
    print(iteration(scaler, 3.0))
    workspace.get_workspace().clear()
    print(iteration(scaler, 3.0))
print(iteration(scaler, math.inf))
workspace.get_workspace().clear()
print(scaler.get_scale(), sorted(scaler.state_dict().values()))
dragon.reset_workspace()
print(iteration(scaler, 3.0))
"""


def test_a_scaler_outlives_workspaces():
    """It belongs to none: its numbers are its own."""
    result = run_script(WORKSPACES)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.splitlines() == [
        "([-0.75, -0.75], 8.0, 1)",
        "([-0.75, -0.75], 8.0, 2)",
        "([-0.75, -0.75], 16.0, 0)",
        "([0.0, 0.0], 8.0, 0)",
        "8.0 [0, 0.5, 2.0, 3, 8.0]",
        "([-0.75, -0.75], 8.0, 1)",
    ]
