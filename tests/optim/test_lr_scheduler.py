# SPDX-License-Identifier: BSD-2-Clause
"""What schedulers do to the groups of an optimizer, ours or another, and what they leave alone."""

from __future__ import annotations

import warnings
import weakref

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim.graph import capture
from dragon_optim.lr_scheduler import (
    ExponentialLR,
    LambdaLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
    _LRScheduler,
)
from tests.optim.schedulers import MAKERS, go, lrs, rmsprop
from tests.optim.support import backward, moves, parameter, values

SIGN = dict(alpha=0, eps=0)  # each step moves a parameter by the learning rate


# --- an optimizer that steps at the rate --------------------------------------------------------


def test_the_optimizer_steps_at_the_rate_of_the_schedule():
    weight = parameter([1.0], "float64")
    optimizer = dragon_optim.RMSprop([weight], lr=0.5, **SIGN)
    scheduler = StepLR(optimizer, 2, 0.5)
    found = []
    for _ in range(4):
        found += moves(optimizer, weight)
        scheduler.step()
    assert found == [0.5, 0.5, 0.25, 0.25]


def test_a_captured_step_follows_the_schedule():
    """Between two calls, as group["lr"] set by hand."""
    weight = parameter([1.0], "float64")
    optimizer = dragon_optim.RMSprop([weight], lr=0.5, **SIGN)

    @capture
    def train(x):
        loss = (weight * x).sum()
        loss.backward()
        optimizer.step()
        return loss

    scheduler, found = ExponentialLR(optimizer, 0.5), []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(5):
            before = values(weight)
            train(torch.tensor([1.0], dtype="float64"))
            scheduler.step()
            found.append(float(before[0] - values(weight)[0]))
    assert found == pytest.approx([0.5, 0.25, 0.125, 0.0625, 0.03125], abs=1e-12)
    assert (train.graphs, train.replays) == (1, 4)


def test_a_scheduler_inside_a_captured_function_keeps_it_eager():
    """It warns, and trains as without capturing."""
    found = []
    for wrap in (lambda step: step, capture):
        weight = parameter([1.0])
        optimizer = dragon_optim.RMSprop([weight], lr=0.5, **SIGN)
        scheduler = ExponentialLR(optimizer, 0.5)

        def train(x, weight=weight, optimizer=optimizer, scheduler=scheduler):
            loss = (weight * x).sum()
            loss.backward()
            optimizer.step()
            scheduler.step()
            return loss

        step = wrap(train)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(4):
                step(torch.ones(1))
        found.append((values(weight).tolist(), lrs(optimizer)))
    assert found[0] == found[1]
    assert ["step schedulers there too" in str(each.message) for each in caught] == [True]


def test_stock_optimizers():
    weight = parameter([8.0])
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scheduler = ExponentialLR(optimizer, 0.5)
    for _ in range(3):
        backward(weight, 1.0)
        optimizer.step()
        scheduler.step()
    assert values(weight).tolist() == [8.0 - 1.0 - 0.5 - 0.25]


class Wrapper:
    """Around an optimizer, as LARS and the like: not an Optimizer, but with its groups."""

    def __init__(self, inner):
        self.param_groups = inner.param_groups
        self.step = inner.step


@pytest.mark.parametrize("name", MAKERS)
def test_an_object_with_groups_and_a_step(name):
    inner, plain = rmsprop(), rmsprop()
    wrapped, expected = MAKERS[name](Wrapper(inner)), MAKERS[name](plain)
    for _ in range(3):
        plain.step()
        wrapped.step()
        expected.step()
        assert lrs(inner) == lrs(plain)


# --- groups -------------------------------------------------------------------------------------


def test_initial_lr_stays_in_the_groups_and_is_saved():
    optimizer = rmsprop(0.5, 0.25)
    scheduler = ExponentialLR(optimizer, 0.5)
    go(optimizer, scheduler, 3)
    saved = optimizer.state_dict()
    assert [group["initial_lr"] for group in saved["param_groups"]] == [0.5, 0.25]
    resumed = rmsprop(9.0, 9.0)
    resumed.load_state_dict(saved)
    scheduler = ExponentialLR(resumed, 0.5, last_epoch=2)
    assert scheduler.base_lrs == [0.5, 0.25]
    assert lrs(resumed) == [0.5**4, 0.25 * 0.5**3]


def test_initial_lr_that_is_there_is_kept():
    optimizer = rmsprop(0.5)
    optimizer.param_groups[0]["initial_lr"] = 2.0
    scheduler = LambdaLR(optimizer, lambda epoch: 1.0)
    assert (scheduler.base_lrs, lrs(optimizer)) == ([2.0], [2.0])


def test_resuming_without_initial_lr():
    optimizer = rmsprop(0.5)
    with pytest.raises(KeyError, match=r"'initial_lr' is not specified in param_groups\[0\] when resuming"):
        ExponentialLR(optimizer, 0.5, last_epoch=3)
    assert set(optimizer.param_groups[0]) == set(rmsprop().param_groups[0])


def test_names_and_other_keys_are_left_alone():
    p, q = parameter([1.0]), parameter([1.0])
    optimizer = dragon_optim.RMSprop(
        [{"params": [("p", p)], "lr_scale": 0.5}, {"params": [("q", q)]}], lr=1.0
    )
    go(optimizer, StepLR(optimizer, 1, 0.5), 2)
    first, second = optimizer.param_groups
    assert (first["param_names"], first["lr_scale"], first["lr"]) == (["p"], 0.5, 0.25)
    assert (second["param_names"], second["lr"]) == (["q"], 0.25)


def test_a_group_that_is_added_later_follows_what_multiplies():
    """StepLR and the others that go from the present rate, as in PyTorch."""
    optimizer = rmsprop(1.0)
    scheduler = ExponentialLR(optimizer, 0.5)
    go(optimizer, scheduler, 1)
    optimizer.add_param_group({"params": [parameter([1.0])], "lr": 8.0})
    go(optimizer, scheduler, 1)
    assert lrs(optimizer) == scheduler.get_last_lr() == [0.25, 4.0]


@pytest.mark.parametrize("name", ["LambdaLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR"])
def test_a_group_that_is_added_later_is_refused_where_the_first_rate_counts(name):
    """ValueError, as in PyTorch, which has changed the first groups by then."""
    optimizer = rmsprop(1.0)
    scheduler = MAKERS[name](optimizer)
    optimizer.add_param_group({"params": [parameter([1.0])], "lr": 8.0})
    optimizer.step()
    before, state = [dict(group) for group in optimizer.param_groups], scheduler.state_dict()
    with pytest.raises(ValueError, match=r"has learning rates for 1 groups, and the optimizer has 2"):
        scheduler.step()
    assert [dict(group) for group in optimizer.param_groups] == before
    assert scheduler.state_dict() == state


def test_min_lrs_for_groups_that_are_added_later():
    optimizer = rmsprop(1.0)
    one, listed = (
        ReduceLROnPlateau(optimizer, patience=0),
        ReduceLROnPlateau(optimizer, patience=0, min_lr=[0.5]),
    )
    for scheduler in (one, listed):
        scheduler.step(1.0)
    optimizer.add_param_group({"params": [parameter([1.0])], "lr": 8.0})
    one.step(1.0)
    assert lrs(optimizer) == [0.1, 0.8]
    with pytest.raises(RuntimeError, match="differs from when `ReduceLROnPlateau` was initialized"):
        listed.step(1.0)
    assert (listed.num_bad_epochs, listed.last_epoch) == (0, 1)
    listed.min_lrs = [0.01, 0.02]
    listed.step(1.0)
    assert lrs(optimizer) == pytest.approx([0.01, 0.08])


def test_the_order_of_groups_and_values_by_hand():
    """A rate that is set by hand between two steps is what the next one goes from."""
    optimizer = rmsprop(1.0, 2.0)
    scheduler = ExponentialLR(optimizer, 0.5)
    optimizer.param_groups[1]["lr"] = 16.0
    go(optimizer, scheduler, 1)
    assert lrs(optimizer) == [0.5, 8.0]


# --- tensors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MAKERS)
def test_a_tensor_stays_a_tensor(name, dtype, shape):
    rate = torch.tensor(np.full(shape, 0.5, dtype), dtype=dtype)
    optimizer, plain = rmsprop(rate), rmsprop(0.5)
    scheduler, expected = MAKERS[name](optimizer), MAKERS[name](plain)
    for _ in range(3):
        optimizer.step(), plain.step()
        scheduler.step(), expected.step()
        assert optimizer.param_groups[0]["lr"] is rate
        assert (rate.dtype, tuple(rate.shape)) == (dtype, shape)
        assert rate.item() == pytest.approx(
            lrs(plain)[0], rel=1e-6 if dtype == "float32" else 1e-15, abs=1e-12
        )
        assert scheduler.get_last_lr() == [rate.item()]
        assert type(scheduler.get_last_lr()[0]) is float
    if name not in ("CyclicLR", "OneCycleLR"):
        assert optimizer.param_groups[0]["initial_lr"] == 0.5  # not the tensor, which has changed


def test_plateau_overwrites_a_tensor_too():
    rate = torch.tensor(1.0)
    optimizer = rmsprop(rate)
    scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    scheduler.step(torch.tensor(1.0))
    scheduler.step(np.float32(1.0))
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == 0.5


def test_the_step_follows_an_overwritten_tensor():
    weight, rate = parameter([1.0], "float64"), torch.tensor(0.5, dtype="float64")
    optimizer = dragon_optim.RMSprop([weight], lr=rate, **SIGN)
    scheduler = ExponentialLR(optimizer, 0.5)
    found = []
    for _ in range(3):
        found += moves(optimizer, weight)
        scheduler.step()
    assert found == [0.5, 0.25, 0.125]


def test_a_schedule_does_not_reach_into_recorded_steps():
    """A learning rate that is a leaf on the tape is overwritten; its derivative is that of the steps made."""
    found = []
    for scheduled in (False, True):
        weight, rate = parameter([1.0], "float64"), torch.tensor(0.5, dtype="float64")
        rate.requires_grad = True
        optimizer = dragon_optim.RMSprop([weight], lr=rate, alpha=0, eps=1, differentiable=True)
        scheduler = ExponentialLR(optimizer, 0.5)
        backward(weight, 1.0)
        optimizer.step()
        if scheduled:
            scheduler.step()
        weight.sum().backward()
        found.append(float(values(rate.grad)))
    assert optimizer.param_groups[0]["lr"] is rate
    assert (rate.requires_grad, rate.item()) == (True, 0.25)
    assert found == [-0.5, -0.5]


def test_a_tensor_of_integers_is_refused():
    """PyTorch rounds what it writes there to 0."""
    rate = torch.tensor(1, dtype="int64")
    optimizer = rmsprop(rate)
    with pytest.raises(TypeError, match="int64, which would round it"):
        ExponentialLR(optimizer, 0.5)
    assert "initial_lr" not in optimizer.param_groups[0]


@pytest.mark.parametrize("rate", [np.float32(0.5), np.float64(0.5), np.array(0.5), 1])
def test_other_numbers(rate):
    optimizer = rmsprop(rate)
    found = go(optimizer, ExponentialLR(optimizer, 0.5), 1)
    assert found == [float(rate) / 2]
    assert type(found[0]) is float


def test_what_a_function_returns_may_be_a_tensor():
    optimizer = rmsprop(1.0)
    found = go(optimizer, LambdaLR(optimizer, lambda epoch: torch.tensor(0.5**epoch)), 2)
    assert found == [0.5, 0.25]
    assert type(found[0]) is float


# --- momentum -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["OneCycleLR", "CyclicLR"])
def test_momentum_is_switched_on(name):
    """In the middle of a training, too: PyTorch's RMSprop raises KeyError('momentum_buffer')."""
    weight = parameter([1.0])
    optimizer = dragon_optim.RMSprop([weight], lr=0.1)
    backward(weight, 1.0)
    optimizer.step()
    assert "momentum_buffer" not in optimizer.state[weight]
    scheduler = MAKERS[name](optimizer)
    found = [optimizer.param_groups[0]["momentum"]]
    for _ in range(4):
        backward(weight, 1.0)
        optimizer.step()
        scheduler.step()
        found.append(optimizer.param_groups[0]["momentum"])
    assert "momentum_buffer" in optimizer.state[weight]
    assert found[0] == {"OneCycleLR": 0.95, "CyclicLR": 0.9}[name]
    assert min(found) == {"OneCycleLR": 0.85, "CyclicLR": 0.8}[name]


def test_momentum_is_left_alone_without_cycling():
    optimizer = rmsprop(0.1, momentum=0.3)
    scheduler = OneCycleLR(optimizer, 0.5, 10, cycle_momentum=False)
    go(optimizer, scheduler, 3)
    assert optimizer.param_groups[0]["momentum"] == 0.3
    assert "max_momentum" not in optimizer.param_groups[0]


@pytest.mark.parametrize("make", [MAKERS["OneCycleLR"], MAKERS["CyclicLR"]], ids=["OneCycleLR", "CyclicLR"])
def test_an_optimizer_without_momentum(make):
    optimizer = dragon_optim.Optimizer([parameter([1.0])], {"lr": 0.1})
    before = dict(optimizer.param_groups[0])
    with pytest.raises(ValueError, match="must support momentum or beta1 with `cycle_momentum` option"):
        make(optimizer)
    assert optimizer.param_groups[0] == before


def test_get_lr_changes_nothing():
    optimizer = rmsprop(0.1)
    scheduler = OneCycleLR(optimizer, 0.5, 10)
    scheduler.last_epoch = 4
    before = dict(optimizer.param_groups[0])
    with pytest.warns(UserWarning, match=r"please use `get_last_lr\(\)`"):
        scheduler.get_lr()
    assert optimizer.param_groups[0] == before


# --- the base class -----------------------------------------------------------------------------


@pytest.mark.parametrize("base", [LRScheduler, _LRScheduler])
def test_a_scheduler_of_ones_own(base):
    """As people write them for PyTorch."""

    class Inverse(base):
        def __init__(self, optimizer, scale, last_epoch=-1):
            self.scale = scale
            super().__init__(optimizer, last_epoch)

        def get_lr(self):
            return [rate / (1 + self.scale * self.last_epoch) for rate in self.base_lrs]

    optimizer = rmsprop(1.0)
    scheduler = Inverse(optimizer, 1)
    assert isinstance(scheduler, LRScheduler)
    assert go(optimizer, scheduler, 3) == [1 / 2, 1 / 3, 1 / 4]
    fresh = Inverse(rmsprop(1.0), 5)
    fresh.load_state_dict(scheduler.state_dict())
    assert (fresh.scale, fresh.last_epoch, fresh.get_last_lr()) == (1, 3, [1 / 4])


def test_the_base_class_alone():
    optimizer = rmsprop(1.0)
    with pytest.raises(NotImplementedError, match="override get_lr"):
        LRScheduler(optimizer)
    assert "initial_lr" not in optimizer.param_groups[0]


def test_a_value_for_each_group_is_asked_of_get_lr():
    class Short(LRScheduler):
        def get_lr(self):
            return self.base_lrs[:1]

    with pytest.raises(ValueError, match="Short has learning rates for 1 groups"):
        Short(rmsprop(1.0, 2.0))


def test_get_last_lr_is_a_copy():
    scheduler = ExponentialLR(rmsprop(1.0), 0.5)
    scheduler.get_last_lr()[0] = 7
    assert scheduler.get_last_lr() == [1.0]


def test_nothing_is_kept_alive(no_collector):
    optimizer = rmsprop(1.0)
    scheduler = SequentialLR(optimizer, [StepLR(optimizer, 2), ExponentialLR(optimizer, 0.5)], [2])
    go(optimizer, scheduler, 3)
    reference = weakref.ref(optimizer)
    del optimizer, scheduler
    assert reference() is None
