# SPDX-License-Identifier: BSD-2-Clause
"""A loss scale beside hooks, interrupts, steps of a subclass, and optimizers that share parameters.

Gradients are 1 once they are divided, and a step then moves a parameter by 0.05.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
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


# --- whose sums -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [dragon_optim.RMSprop, torch.optim.RMSprop])
@pytest.mark.parametrize("unscale", [False, True])
def test_the_sums_of_another_optimizer_are_not_looked_at(kind, unscale):
    """Two optimizers share a parameter, and one accumulates while the other steps."""
    weight = parameter([1.0, 1.0])
    accumulating, optimizer, scaler = optimizer_of(weight), kind([weight], lr=0.1), scaler_of()
    backward(weight, 2 * SCALE)
    accumulating.sum_grad()
    backward(weight, [SCALE, np.inf])
    if unscale:
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    assert scaler.step_was_skipped(optimizer)
    assert values(weight).tolist() == [1, 1]
    scaler.update()
    assert values(weight.grad)[0] == (1 if unscale or kind is torch.optim.RMSprop else SCALE)
    with pytest.warns(UserWarning, match="a backward pass came after the last sum_grad"):
        scaler.step(accumulating)  # its sums are as they were
    assert not scaler.step_was_skipped(accumulating)
    assert accumulating.state[weight]["square_avg"].numpy().tolist() == [16.0, 16.0]  # the scale is half


@pytest.mark.parametrize("kind", [dragon_optim.RMSprop, torch.optim.RMSprop])
def test_infinite_sums_of_another_optimizer_are_not_looked_at(kind):
    weight = parameter([1.0])
    accumulating, optimizer, scaler = optimizer_of(weight), kind([weight], lr=0.1), scaler_of()
    backward(weight, np.inf)
    accumulating.sum_grad()
    backward(weight, SCALE)
    scaler.step(optimizer)
    assert not scaler.step_was_skipped(optimizer)
    assert np.isfinite(values(weight)).all()
    with pytest.warns(UserWarning, match="a backward pass came after the last sum_grad"):
        scaler.step(accumulating)
    assert scaler.step_was_skipped(accumulating)


def test_the_sums_of_a_stock_optimizer_are_good_again():
    """Dragon begins a round by multiplying the sums of the last by 0, which makes NaN of an infinity."""
    weight = parameter([1.0, 1.0])
    optimizer, scaler = torch.optim.SGD([weight], lr=0.1), scaler_of()
    skipped = []
    for grad in (np.inf, 512.0):
        for _ in range(2):
            backward(weight, [grad, 512.0])
            optimizer.sum_grad()
        scaler.step(optimizer)
        skipped.append(scaler.step_was_skipped(optimizer))
        scaler.update()
    assert skipped == [True, False]
    assert values(weight).tolist() == pytest.approx([0.8, 0.8])


class Wrapper:
    """An optimizer around another one, as Lookahead is."""

    def __init__(self, inner):
        self.inner = inner
        self.param_groups = inner.param_groups

    def step(self):
        return self.inner.step()


class OfNoOperator(dragon_optim.Optimizer):
    """The same as a subclass."""

    def __init__(self, inner):
        super().__init__([param for group in inner.param_groups for param in group["params"]], {})
        self.inner = inner

    def step(self):
        return self.inner.step()


@pytest.mark.parametrize("kind", [Wrapper, OfNoOperator])
@pytest.mark.parametrize("inner_kind", [dragon_optim.RMSprop, torch.optim.RMSprop])
def test_an_optimizer_around_another_one_drops_its_sums(kind, inner_kind):
    """With what was infinite in them, each later step would be left out, too."""
    weight, bystander = parameter([1.0]), parameter([1.0])
    inner = inner_kind([weight], lr=0.1)
    elsewhere = optimizer_of(bystander)
    optimizer, scaler = kind(inner), scaler_of()
    backward(bystander, 1.0)
    elsewhere.sum_grad()
    skipped = []
    for grad in (np.inf, 1.0, 1.0):
        backward(weight, grad)
        inner.sum_grad()
        scaler.step(optimizer)
        skipped.append(scaler.step_was_skipped(optimizer))
        scaler.update()
    assert skipped == [True, False, False]
    elsewhere.step()  # its round is none of the scaler's business
    assert elsewhere.state[bystander]["step"] == 1
    assert moved(bystander) == 0.05
