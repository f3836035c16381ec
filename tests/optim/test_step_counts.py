# SPDX-License-Identifier: BSD-2-Clause
"""Optimizers count their steps, for schedulers that ask whether there was one."""

from __future__ import annotations

import copy

import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim._dragon.stock import steps_done
from dragon_optim.graph import capture
from tests.optim.support import backward, parameter

KINDS = {"ours": dragon_optim.RMSprop, "stock": torch.optim.SGD}


@pytest.fixture(params=sorted(KINDS))
def optimizer(request):
    weight = parameter([1.0, 2.0])
    return KINDS[request.param]([weight], lr=0.5)


def test_each_step_counts_also_without_gradients(optimizer):
    assert steps_done(optimizer) == 0
    optimizer.step()
    backward(optimizer.param_groups[0]["params"][0], 1.0)
    optimizer.step()
    assert steps_done(optimizer) == 2


def test_replays_count(optimizer):
    (weight,) = optimizer.param_groups[0]["params"]

    @capture
    def train(x):
        loss = (weight * x).sum()
        loss.backward()
        optimizer.step()
        optimizer.step()
        return loss

    for calls in range(1, 5):
        train(torch.ones(2))
        assert steps_done(optimizer) == 2 * calls
    assert train.replays > 0


def test_a_captured_function_that_only_sums_counts_nothing():
    weight = parameter([1.0, 2.0])
    optimizer = dragon_optim.RMSprop([weight])

    @capture
    def accumulate(x):
        loss = (weight * x).sum()
        loss.backward()
        optimizer.sum_grad()
        return loss

    for _ in range(3):
        accumulate(torch.ones(2))
        optimizer.step()
    assert accumulate.replays > 0
    assert steps_done(optimizer) == 3


def test_a_step_that_fails_does_not_count():
    optimizer = dragon_optim.RMSprop([parameter([1.0])])
    optimizer.param_groups[0]["lr"] = -1
    with pytest.raises(ValueError, match="Invalid learning rate"):
        optimizer.step()
    assert steps_done(optimizer) == 0


def test_steps_with_hooks_count_once():
    class Mine(dragon_optim.RMSprop):
        def step(self, closure=None):
            return super().step(closure)

    optimizer = Mine([parameter([1.0])])
    optimizer.register_step_post_hook(lambda *_: None)
    optimizer.step()
    assert steps_done(optimizer) == 1


def test_copies_begin_at_0(way):
    optimizer = dragon_optim.RMSprop([parameter([1.0])])
    optimizer.step()
    assert steps_done(way(optimizer)) == 0
    assert steps_done(copy.copy(optimizer)) == 1  # a shallow copy is the same optimizer


def test_a_stock_class_with_a_step_of_its_own_is_not_known():
    class Mine(torch.optim.SGD):
        def step(self):
            pass

    assert steps_done(Mine([parameter([1.0])], lr=0.1)) is None
    assert steps_done(object()) is None
