# SPDX-License-Identifier: BSD-2-Clause
"""What lies around a `GradScaler`: copies, files, schedulers, captured functions and traces."""

from __future__ import annotations

import copy
import math
import pickle
import warnings

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim import lr_scheduler
from tests.optim.scalers import make, scaler_of, settings, used
from tests.optim.support import backward, feed_gradient, snapshot, values

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


def test_a_captured_step_knows_nothing_of_the_scaler():
    """A replay, and the exported update, have the optimizer's own grad_scale, also after a scaled step."""
    scaler = scaler_of()
    optimizer, p = make(dtype="float32", grad_scale=0.5)

    @dragon_optim.graph.capture
    def train(x):
        (p * x).sum().backward()
        optimizer.step()

    def moves(call):
        start = values(p)
        call()
        return [round(float(each), 5) for each in start - values(p)]

    for _ in range(3):
        assert moves(lambda: train(torch.ones(2) * 6.0)) == [0.75, 0.75]
    for _ in range(2):
        feed_gradient(p, np.float32([48.0, 48.0]))
        assert moves(lambda: scaler.step(optimizer)) == [0.75, 0.75]
        scaler.update()
        (hyper,) = (array for name, array in optimizer.update_graph()[1].items() if name.endswith("/hyper"))
        assert 0.5 in hyper
        assert 0.5 / 8 not in hyper
        assert moves(lambda: train(torch.ones(2) * 6.0)) == [0.75, 0.75]
    assert train.replays >= 4


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
