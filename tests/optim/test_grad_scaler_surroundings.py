# SPDX-License-Identifier: BSD-2-Clause
"""A loss scale beside hooks, interrupts, steps of a subclass, and optimizers that share parameters.

Gradients are 1 once they are divided, and a step then moves a parameter by 0.05.
"""

from __future__ import annotations

import sys

from dragon.vm import torch

import dragon_optim
from dragon_optim.groups import WatchedGroups
from tests.optim.support import backward, parameter, values

SCALE = 1024.0


def optimizer_of(*params, kind=dragon_optim.RMSprop):
    """One group for each parameter; gradient 1 moves it by 0.05."""
    return kind([{"params": [param]} for param in params], lr=0.1, alpha=0.0, eps=1.0)


def scaler_of():
    scaler = dragon_optim.GradScaler("cpu", init_scale=SCALE)
    scaler.scale(torch.ones(1))
    return scaler


def moved(param):
    """How far a parameter is from 1."""
    return round(float(1 - values(param)[0]), 5)


class Interrupt(BaseException):
    """What a signal's handler raises, which it may between any two lines."""


def interrupted_writes(call):
    """Call it again and again; each time it is interrupted one line of `_write_unscale` later."""
    code, lines = WatchedGroups._write_unscale.__code__, 0
    while True:
        lines += 1
        left = lines

        def trace(frame, event, _):
            nonlocal left
            if frame.f_code is not code:
                return None
            left -= event == "line"
            if left == 0:
                raise Interrupt
            return trace

        sys.settrace(trace)
        try:
            call()
        except Interrupt:
            yield lines
        else:
            return
        finally:
            sys.settrace(None)


def test_an_interrupt_leaves_no_factor_behind():
    """The next step, which no scaler has to do with, goes by the gradients as they are."""
    params = [parameter([1.0]) for _ in range(3)]
    optimizer, scaler = optimizer_of(*params), scaler_of()

    def scaled():
        for param in params:
            backward(param, SCALE)
        scaler.step(optimizer)

    count = 0
    for count in interrupted_writes(scaled):  # noqa: B007
        for param in params:
            param.copy_(torch.ones(1))
            backward(param, 1.0)
        optimizer.step()
        assert list(map(moved, params)) == [0.05] * 3
    assert count > len(params)


def test_a_step_inside_of_a_step():
    """A hook that does the same does not take the factor away."""
    weight = parameter([1.0])
    optimizer, scaler = optimizer_of(weight), scaler_of()
    backward(weight, SCALE)
    inner = []

    def again(*_):
        if not inner:
            inner.append(True)
            scaler.step(optimizer)

    optimizer.register_step_pre_hook(again)
    scaler.step(optimizer)
    assert (moved(weight), optimizer.state[weight]["step"]) == (0.1, 2)
