# SPDX-License-Identifier: BSD-2-Clause
"""Ctrl-C in the middle of a call: what it leaves is the whole of the call's work, or none of it.

Python raises it between two of its instructions, so most likely right behind the long call into Dragon in
which it came.
"""

from __future__ import annotations

import collections
import contextlib
import signal
import time

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim import hyper, plan
from dragon_optim._dragon.graphs import HostArray
from dragon_optim.groups import WatchedGroups
from dragon_optim.slots import SlotTable
from tests.optim import natives
from tests.optim.support import backward, moves, parameter, values

ELEMENTS = 200_000
DELAYS = 40


def interrupted(call, delay):
    """Make a call in which KeyboardInterrupt is raised after some seconds. Return whether it was."""
    armed = True

    def handle(*_):
        nonlocal armed
        if armed:
            armed = False
            raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, handle)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, max(delay, 1e-6))
            call()
            return False
        finally:
            armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
    except KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        return True


def interrupts(call, prepare):
    """Yields after each of many calls that were interrupted, sooner or later in their course."""
    durations = []
    for _ in range(3):
        prepare()
        begin = time.perf_counter()
        call()
        durations.append(time.perf_counter() - begin)
    count = 0
    for delay in np.linspace(0, 1.2 * sorted(durations)[1], DELAYS):
        prepare()
        if interrupted(call, delay):
            count += 1
            yield
    assert count > 0


def large(number):
    return [torch.nn.Parameter(torch.ones(ELEMENTS)) for _ in range(number)]


def steps(optimizer, params):
    return [optimizer.state[param].get("step", 0) for param in params]


def test_parameters_in_graphs_of_their_own_are_updated_together():
    """Those that join later: see the batches of engine.py."""
    params = large(3)
    optimizer = dragon_optim.RMSprop(params)
    backward(params[0], 1.0, params[1], 1.0)
    optimizer.step()
    backward(params[0], 1.0, params[1], 1.0, params[2], 1.0)
    optimizer.step()
    for _ in interrupts(optimizer.step, lambda: None):
        first, second, third = steps(optimizer, params)
        assert first == second == third + 1


def test_sums_are_used_once():
    (param,) = params = large(1)
    optimizer = dragon_optim.RMSprop(params)

    def summed():
        optimizer.zero_grad(set_to_none=True, drop_sums=True)
        backward(param, 1.0)
        optimizer.sum_grad()
        optimizer.zero_grad(set_to_none=True)
        done.append(optimizer.state[param].get("step", 0))

    done = []
    for _ in interrupts(optimizer.step, summed):
        optimizer.step()  # which does what is left to do
        assert optimizer.state[param]["step"] == done[-1] + 1
        optimizer.step()
        assert optimizer.state[param]["step"] == done[-1] + 1


def test_a_gradient_is_summed_once():
    (param,) = params = large(1)
    optimizer = dragon_optim.RMSprop(params, lr=1.0, alpha=0.0, eps=1.0)
    backward(param, 1.0)
    optimizer.sum_grad()

    def computed():
        optimizer.zero_grad(drop_sums=True)
        backward(param, 1.0)

    for _ in interrupts(optimizer.sum_grad, computed):
        optimizer.sum_grad()  # of what was not summed yet
        before = values(param)[0]
        optimizer.step()
        assert before - values(param)[0] == pytest.approx(0.5, abs=1e-4)  # 2 would be 0.667


# In a workspace of its own: between two instructions an interrupt may leave a lock of the workspace with this
# thread, which can take it again, as others cannot.
@pytest.mark.usefixtures("ws")
def test_gradients_are_divided_by_the_scale_once():
    params = [*large(2), torch.nn.Parameter(torch.ones(ELEMENTS).double())]
    optimizer = dragon_optim.RMSprop(params)
    scaler = dragon_optim.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.ones(1))

    def scaled():
        scaler.update(4.0)  # a new iteration
        backward(params[0], 8.0, params[1], 8.0)
        backward(params[2], 8.0)

    for _ in interrupts(lambda: scaler.unscale_(optimizer), scaled):
        with contextlib.suppress(RuntimeError):  # where it was done already
            scaler.unscale_(optimizer)
        assert [values(param.grad)[[0, -1]].tolist() for param in params] == [[2.0, 2.0]] * 3
        scaler.step(optimizer)
        assert not scaler.step_was_skipped(optimizer)


def test_pairs_of_several_dtypes_are_updated_together():
    """By gradients that were not met before, so that there is no graph: operator by operator."""
    variables = [natives.variable(np.ones(ELEMENTS), dtype) for dtype in ("float32", "float64")]
    optimizer = dragon_optim.native_optimizers.RMSprop(0.5)
    recent = collections.deque(maxlen=20)  # held: no name comes again

    def gradients():
        recent.append([natives.variable(np.ones(ELEMENTS), dtype) for dtype in ("float32", "float64")])

    for _ in interrupts(lambda: optimizer.apply_gradients(zip(recent[-1], variables)), gradients):
        assert len({optimizer.state_of(each)["step"] for each in variables}) == 1


# --- while the groups are looked at ---------------------------------------------------------------


def raise_once(patched, owner, name):
    method = getattr(owner, name)
    calls = []

    def wrapper(*args):
        calls.append(args)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return method(*args)

    patched.setattr(owner, name, wrapper)


MOMENTS = {
    "slots": (SlotTable, "add"),
    "slots-kept": (SlotTable, "keep"),
    "rows": (HostArray, "resize"),
    "values": (WatchedGroups, "_take_rows"),
    "plans": (plan, "GroupPlan"),
    "settled": (hyper, "are_immutable"),
    "trainable": (WatchedGroups, "_write_trainable"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_change_of_the_groups_is_not_lost(moment, monkeypatch):
    first, second, third = (parameter([1.0]) for _ in range(3))
    optimizer = dragon_optim.RMSprop([first, second], lr=1.0, alpha=0.0, eps=1.0)
    expected = moves(optimizer, first, second)
    optimizer.param_groups[0]["params"] = [second]
    optimizer.param_groups.append(dict(optimizer.param_groups[0], params=[third], momentum=0.5))
    with monkeypatch.context() as patched:
        raise_once(patched, *MOMENTS[moment])
        with pytest.raises(KeyboardInterrupt):
            optimizer.step()
    assert moves(optimizer, first, second, third) == [0.0, *expected]
    assert list(optimizer.state[third]) == ["step", "square_avg", "momentum_buffer"]


@pytest.mark.parametrize("moment", ["values", "plans", "settled"])
def test_a_change_of_values_is_not_lost(moment, monkeypatch):
    first, second = parameter([1.0]), parameter([1.0])
    options = {"lr": 1.0, "alpha": 0.0, "eps": 1.0}
    optimizer = dragon_optim.RMSprop([{"params": [first]}, {"params": [second]}], **options)
    assert moves(optimizer, first, second) == [0.5, 0.5]
    optimizer.param_groups[1].update(lr=2.0, centered=True)
    with monkeypatch.context() as patched:
        raise_once(patched, *MOMENTS[moment])
        with pytest.raises(KeyboardInterrupt):
            optimizer.step()
    assert moves(optimizer, first, second) == [0.5, 2.0]
    assert "grad_avg" in optimizer.state[second]
