# SPDX-License-Identifier: BSD-2-Clause
"""What lies around a `GradScaler`: copies, files, schedulers, captures, threads, workspaces, deaths."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import warnings
import weakref

import numpy as np
import pytest
from dragon.core.framework import workspace
from dragon.vm import torch

import dragon_optim
from dragon_optim import lr_scheduler
from tests.optim.elsewhere import in_thread, run_script
from tests.optim.scalers import SHOW, make, scaler_of, settings, used
from tests.optim.support import backward, feed_gradient, fresh_workspace, parameter, snapshot, values

# --- copies and files ---------------------------------------------------------------------------------------

COPIES = {
    "pickle": lambda scaler: pickle.loads(pickle.dumps(scaler)),
    "oldest pickle": lambda scaler: pickle.loads(pickle.dumps(scaler, 0)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", COPIES)
def test_copies_go_on_by_themselves(way):
    scaler = scaler_of(12.5, growth_factor=3.0, backoff_factor=0.25, growth_interval=2)
    optimizer, p = make()
    backward(p, 1.0)
    scaler.step(optimizer)
    scaler.update()
    copied = COPIES[way](scaler)
    assert type(copied) is dragon_optim.GradScaler
    assert copied.state_dict() == scaler.state_dict()
    with pytest.raises(AssertionError, match="Attempted step but _scale is None"):
        copied.step(optimizer)
    copied.scale(torch.ones(1))
    copied.step(optimizer)
    copied.update()
    assert (copied.get_scale(), copied._get_growth_tracker()) == (37.5, 0)
    assert (scaler.get_scale(), scaler._get_growth_tracker()) == (12.5, 1)
    copied.set_backoff_factor(0.5)
    assert scaler.get_backoff_factor() == 0.25
    backward(p, math.inf)
    scaler.step(optimizer)
    scaler.update()
    assert (scaler.get_scale(), copied.get_scale()) == (3.125, 37.5)


@pytest.mark.parametrize("way", COPIES)
def test_copies_of_what_is_not_in_use(way):
    disabled = COPIES[way](dragon_optim.GradScaler("cpu", enabled=False))
    assert not disabled.is_enabled()
    assert COPIES[way](dragon_optim.GradScaler("cpu", init_scale=3.0)).get_scale() == 3


@pytest.mark.parametrize("way", ["pickle", "oldest pickle", "deepcopy"])
def test_no_copies_in_the_middle_of_an_iteration(way):
    scaler = scaler_of()
    optimizer, p = make()
    backward(p, 24.0)
    words = "may only be pickled at the beginning of an iteration, or at the end after scaler.update"
    for call in (scaler.unscale_, scaler.step):
        call(optimizer)
        with pytest.raises(AssertionError, match=words):
            COPIES[way](scaler)
    assert values(p).tolist() == [-0.75, -0.75]
    scaler.update()
    assert COPIES[way](scaler)._get_growth_tracker() == 1


def test_in_a_checkpoint(tmp_path):
    scaler = scaler_of(0.1, growth_factor=1.5, growth_interval=3)
    optimizer, p = make()
    backward(p, 1.0)
    scaler.step(optimizer)
    scaler.update()
    file = tmp_path / "training.pt"
    dragon_optim.checkpoint.save({"scaler": scaler.state_dict(), "off": {}}, file)
    loaded = dragon_optim.checkpoint.load(file)
    assert loaded["off"] == {}
    assert repr(loaded["scaler"]) == repr(scaler.state_dict())
    resumed = dragon_optim.GradScaler("cpu")
    resumed.load_state_dict(loaded["scaler"])
    for each in (scaler, resumed):
        each.scale(torch.ones(1))
        for _ in range(2):
            each.step(optimizer)
            each.update()
    assert resumed.state_dict() == scaler.state_dict()
    assert resumed.get_scale() == float(np.float32(np.float32(0.1) * 1.5))


# --- schedulers ---------------------------------------------------------------------------------------------


def test_schedulers_that_wait_for_a_step():
    """A schedule that does not count the steps left out: also before the first step there is no warning."""
    scaler = scaler_of()
    optimizer, p = make()
    scheduler = lr_scheduler.StepLR(optimizer, 1, 0.5)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for grad in (math.inf, 1.0, 1.0, math.nan, 1.0):
            backward(p, grad)
            scaler.step(optimizer)
            scaler.update()
            if not scaler.step_was_skipped(optimizer):
                scheduler.step()
            rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [1, 0.5, 0.25, 0.25, 0.125]


# --- captured functions and traces --------------------------------------------------------------------------


def test_not_inside_a_captured_function():
    scaler = scaler_of()
    optimizer, p = make()
    backward(p, 24.0)
    before = snapshot(optimizer, p), settings(scaler)
    for call in (
        lambda x: scaler.scale(x),
        lambda x: scaler.unscale_(optimizer),
        lambda x: scaler.step(optimizer),
        lambda x: scaler.update(4.0),
    ):
        captured = dragon_optim.graph.capture(call)
        for _ in range(3):
            with pytest.raises(RuntimeError, match=r"GradScaler\.\w+\(\) inside a captured function"):
                captured(torch.ones(1))
    assert (snapshot(optimizer, p), settings(scaler)) == before
    assert used(scaler, optimizer, p) == 3.0
    with pytest.raises(RuntimeError, match="captured"):
        dragon_optim.graph.capture(lambda: scaler.update())()
    scaler.update()
    assert scaler._get_growth_tracker() == 1


def test_beside_a_captured_function():
    """Forward and backward are replayed; the scale is an argument, and the step comes after."""
    scaler = scaler_of(growth_interval=1)
    optimizer, p = make(dtype="float32")

    @dragon_optim.graph.capture
    def backward_pass(x, scale):
        optimizer.zero_grad()
        ((p * x).sum() * scale).backward()

    for _ in range(4):
        backward_pass(torch.ones(2) * 3.0, torch.ones(1) * scaler.get_scale())
        assert values(p.grad).tolist() == [3 * scaler.get_scale()] * 2
        assert used(scaler, optimizer, p) == pytest.approx(3.0)
        scaler.update()
    assert backward_pass.replays > 0
    assert scaler.get_scale() == 128


def test_not_under_a_trace():
    scaler = scaler_of()
    optimizer, p = make()
    backward(p, 24.0)
    for traced in (
        torch.jit.trace(lambda x: scaler.unscale_(optimizer), example_inputs=[torch.ones(1)]),
        torch.jit.trace(lambda x: scaler.step(optimizer), example_inputs=[torch.ones(1)]),
    ):
        with pytest.raises(RuntimeError, match="cannot be traced"):
            traced(torch.ones(1))
    assert used(scaler, optimizer, p) == 3.0


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
