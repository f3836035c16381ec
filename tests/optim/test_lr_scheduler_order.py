# SPDX-License-Identifier: BSD-2-Clause
"""The order of ``optimizer.step()`` and ``scheduler.step()``: when there is a warning, and when not."""

from __future__ import annotations

import copy
import warnings

import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim.graph import capture
from dragon_optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    ExponentialLR,
    LinearLR,
    SequentialLR,
    StepLR,
)
from tests.optim.support import parameter

WRONG = r"^Detected call of `lr_scheduler.step\(\)` before `optimizer.step\(\)`"
OVERRIDDEN = r"^Seems like `optimizer.step\(\)` has been overridden"

KINDS = {"ours": dragon_optim.RMSprop, "stock": torch.optim.SGD}


@pytest.fixture(params=sorted(KINDS))
def optimizer(request):
    return KINDS[request.param]([parameter([1.0, 2.0])], lr=0.5)


@pytest.fixture
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_the_wrong_order(optimizer):
    scheduler = StepLR(optimizer, 1)
    with pytest.warns(UserWarning, match=WRONG) as caught:
        scheduler.step()
    assert caught[0].filename == __file__


def test_only_the_first_call_is_looked_at(optimizer):
    scheduler = StepLR(optimizer, 1)
    with pytest.warns(UserWarning, match=WRONG):
        scheduler.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler.step()


def test_the_right_order(optimizer, no_warning):
    scheduler = StepLR(optimizer, 1)
    for _ in range(3):
        optimizer.step()
        scheduler.step()


def test_steps_before_the_scheduler_was_made_do_not_count(optimizer):
    optimizer.step()
    scheduler = StepLR(optimizer, 1)
    with pytest.warns(UserWarning, match=WRONG):
        scheduler.step()


def test_several_schedulers_of_one_optimizer(optimizer, no_warning):
    first, second = StepLR(optimizer, 2), ExponentialLR(optimizer, 0.5)
    for _ in range(3):
        optimizer.step()
        first.step()
        second.step()


@pytest.mark.parametrize("kind", ["sequential", "chained", "nested"])
def test_schedulers_of_schedulers(kind, optimizer, no_warning):
    """Also one inside another, where PyTorch warns while they are made."""
    parts = [ConstantLR(optimizer, 0.5, 2), ExponentialLR(optimizer, 0.5)]
    if kind == "sequential":
        scheduler = SequentialLR(optimizer, parts, [2])
    else:
        scheduler = ChainedScheduler(parts)
    if kind == "nested":
        scheduler = SequentialLR(optimizer, [scheduler, LinearLR(optimizer)], [3])
    for _ in range(5):
        optimizer.step()
        scheduler.step()


def test_a_scheduler_of_schedulers_in_the_wrong_order(optimizer):
    scheduler = SequentialLR(optimizer, [ConstantLR(optimizer), ExponentialLR(optimizer, 0.5)], [2])
    with pytest.warns(UserWarning, match=WRONG):
        scheduler.step()


def test_steps_that_are_left_out(optimizer, no_warning):
    """A loss that is not finite: neither steps. No state of the schedule is lost."""
    scheduler = ExponentialLR(optimizer, 0.5)
    for finite in (False, True, False, True):
        if finite:
            optimizer.step()
            scheduler.step()
    assert (scheduler.last_epoch, scheduler.get_last_lr()) == (2, [0.125])


def test_only_the_optimizers_step_is_left_out(optimizer):
    """As scripts with a GradScaler do: the first rate is not used, and the warning says so."""
    scheduler = ExponentialLR(optimizer, 0.5)
    with pytest.warns(UserWarning, match=WRONG):
        scheduler.step()


def test_captured_steps_count(optimizer, no_warning):
    """Also where the graph was recorded before the scheduler was made."""
    (weight,) = optimizer.param_groups[0]["params"]

    @capture
    def train(x):
        loss = (weight * x).sum()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(3):
        train(torch.ones(2))
    scheduler = StepLR(optimizer, 1)
    train(torch.ones(2))
    scheduler.step()
    assert train.replays == 3  # its step was not replaced


def test_a_step_that_was_put_into_the_optimizer(optimizer):
    scheduler = StepLR(optimizer, 1)
    optimizer.step = lambda: None
    optimizer.step()
    with pytest.warns(UserWarning, match=OVERRIDDEN):
        scheduler.step()


def test_a_step_that_was_put_into_the_optimizer_and_calls_its_own(optimizer, no_warning):
    """PyTorch warns of it."""
    scheduler, inner = StepLR(optimizer, 1), optimizer.step
    optimizer.step = lambda: inner()
    optimizer.step()
    scheduler.step()


def test_a_subclass_with_a_step_of_its_own(no_warning):
    class Mine(dragon_optim.RMSprop):
        def step(self, closure=None):
            return None

    optimizer = Mine([parameter([1.0])])
    scheduler = StepLR(optimizer, 1)
    optimizer.step()
    scheduler.step()


def test_nothing_is_said_of_what_does_not_count_its_steps(no_warning):
    class Mine(torch.optim.SGD):
        def step(self):
            pass

    scheduler = StepLR(Mine([parameter([1.0])], lr=0.1), 1)
    scheduler.step()


def test_the_optimizer_keeps_its_step(optimizer):
    StepLR(optimizer, 1)
    assert "step" not in vars(optimizer)


def test_a_warning_that_is_an_error_changes_nothing(optimizer):
    scheduler = StepLR(optimizer, 1)
    before = scheduler.state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match=WRONG):
            scheduler.step()
        with pytest.raises(UserWarning, match=WRONG):
            scheduler.step()
    assert scheduler.state_dict() == before
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("stepped", [False, True])
def test_copies_know_it(stepped, way):
    optimizer = dragon_optim.RMSprop([parameter([1.0])])
    scheduler = StepLR(optimizer, 1)
    if stepped:
        optimizer.step()
    optimizer, scheduler = way((optimizer, scheduler))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scheduler.step()
    assert len(caught) == (not stepped)


def test_copies_of_stock_optimizers_know_it():
    optimizer = torch.optim.SGD([parameter([1.0])], lr=0.1)
    optimizer, scheduler = copy.deepcopy((optimizer, StepLR(optimizer, 1)))
    with pytest.warns(UserWarning, match=WRONG):
        scheduler.step()


# --- the epoch ----------------------------------------------------------------------------------


def test_the_epoch_is_deprecated(optimizer):
    scheduler = ExponentialLR(optimizer, 0.5)
    optimizer.step()
    with pytest.warns(UserWarning, match=r"^The epoch parameter in `scheduler.step\(\)` was not necessary"):
        scheduler.step(3)
    assert (scheduler.last_epoch, scheduler.get_last_lr()) == (3, [0.0625])
