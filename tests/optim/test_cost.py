# SPDX-License-Identifier: BSD-2-Clause
"""What a step costs, counted: Python's instructions, Dragon's graphs, memory. Nothing here is timed."""

from __future__ import annotations

import ctypes
import gc
import sys
import tracemalloc

import numpy as np
import pytest
from dragon.core.framework import workspace
from dragon.vm import torch

import dragon_optim
from dragon_optim.graph import capture
from tests.optim.support import feed_gradient, parameter


def instructions(function) -> int:
    """How many instructions of Python's a call runs."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


class Steps:
    """An optimizer over many small parameters that have gradients."""

    def __init__(self, size, groups=1, **kwargs):
        params = [parameter(np.ones(3)) for _ in range(size)]
        for param in params:
            feed_gradient(param, np.ones(3, "float32"))
        each = size // groups
        self.optimizer = dragon_optim.RMSprop(
            [{"params": params[start : start + each]} for start in range(0, size, each)], **kwargs
        )
        total = params[0].sum()
        for param in params[1:]:
            total = total + param.sum()
        total.backward(retain_graph=True)
        self.total = total

    def sum_grad(self):
        self.total.backward(retain_graph=True)
        return self.optimizer.sum_grad

    def step_from_sums(self):
        self.sum_grad()()
        return self.optimizer.step


FORMS = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "centered, clipped": {"centered": True, "momentum": 0.9, "clip_norm": 1.0, "weight_decay": 0.1},
    "one operator each": {"foreach": False},
}
CALLS = {
    "step": lambda steps: steps.optimizer.step,
    "step from sums": Steps.step_from_sums,
    "sum_grad": Steps.sum_grad,
    "zero_grad": lambda steps: steps.optimizer.zero_grad,
    "zero_grad to none": lambda steps: lambda: steps.optimizer.zero_grad(set_to_none=True),
}


@pytest.mark.parametrize("call", sorted(CALLS))
@pytest.mark.parametrize("form", sorted(FORMS))
def test_python_does_not_grow_with_the_number_of_parameters(form, call):
    found = []
    for size in (2, 60):
        steps = Steps(size, **FORMS[form])
        for _ in range(2):  # the first call makes the graph
            CALLS[call](steps)()
        function = CALLS[call](steps)
        found.append(instructions(function))
    assert found[0] == found[1]
    assert 0 < found[0] < 1000


def test_python_grows_by_little_with_each_group():
    found = []
    for groups in (1, 5, 9):
        steps = Steps(45, groups=groups)
        steps.optimizer.step()
        found.append(instructions(steps.optimizer.step))
    assert found[1] - found[0] == found[2] - found[1]
    assert (found[1] - found[0]) / 4 < 100


@pytest.mark.usefixtures("ws")
def test_a_replay_runs_no_python_for_each_parameter():
    found = []
    for size in (2, 60):
        params = [parameter(np.ones(3)) for _ in range(size)]
        optimizer = dragon_optim.RMSprop(params)

        def step(x, params=params, optimizer=optimizer):
            total = x.sum()
            for param in params:
                total = total + param.sum()
            total.backward()
            optimizer.step()
            return total

        captured, x = capture(step), torch.ones(3)
        for _ in range(3):
            captured(x)
        found.append(instructions(lambda captured=captured, x=x: captured(x)))
        assert captured.replays == 3
    assert found[0] == found[1]
    assert found[0] < 1500


@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_step_is_one_graph(form, monkeypatch):
    steps = Steps(7, **FORMS[form])
    steps.optimizer.step()
    ran = []
    ws, run_graph = workspace.get_workspace(), workspace.Workspace.run_graph
    monkeypatch.setattr(ws, "run_graph", lambda *args: (ran.append(args), run_graph(ws, *args)))
    monkeypatch.setattr(ws, "run_operator", lambda *args: ran.append(args))
    for _ in range(3):
        steps.optimizer.step()
    assert len(ran) == 3


class Mallinfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


@pytest.fixture(scope="module")
def allocated():
    """A function: the bytes that malloc has given out, large blocks included."""
    function = ctypes.CDLL(None).mallinfo2  # looked up once: that takes a kilobyte
    function.restype = Mallinfo

    def count():
        info = function()
        return info.uordblks + info.hblkhd

    return count


def least_growth(count, work, windows=3):
    """By how much `work` makes a count grow, at the least: what it keeps each time shows in every window."""
    found = []
    for _ in range(windows):
        before = count()
        work()
        found.append(count() - before)
    return min(found)


@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_step_keeps_no_memory(form, allocated):
    """Neither Python's nor that of the operators."""
    steps = Steps(50, **FORMS[form])
    calls = [steps.optimizer.step, steps.optimizer.zero_grad, steps.optimizer.sum_grad]

    def work():
        for _ in range(50):
            for call in calls:
                call()

    work()
    gc.collect()
    gc.disable()
    try:
        grown = least_growth(allocated, work)
        tracemalloc.start()
        work()
        python = least_growth(lambda: tracemalloc.get_traced_memory()[0], work)
    finally:
        tracemalloc.stop()
        gc.enable()
    assert grown < 2_000  # not 100 bytes for each of 50 steps
    assert python < 2_000
