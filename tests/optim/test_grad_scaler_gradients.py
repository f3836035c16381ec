# SPDX-License-Identifier: BSD-2-Clause
"""Which gradients `GradScaler` looks at: what the step would read, of any optimizer, and sums of a round."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from tests.optim.scalers import SHOW, make, scaler_of, used
from tests.optim.support import backward, feed_gradient, parameter, snapshot, values

# --- which gradients ----------------------------------------------------------------------------------------


def test_no_gradients():
    """PyTorch's words; and the step can be made when there are some."""
    scaler = scaler_of()
    optimizer, p = make()
    with pytest.raises(AssertionError, match="No inf checks were recorded for this optimizer."):
        scaler.step(optimizer)
    backward(p, 24.0)
    assert used(scaler, optimizer, p) == 3.0
    scaler.update()
    assert scaler._get_growth_tracker() == 1


def test_no_gradients_of_a_stock_optimizer():
    scaler = scaler_of()
    param = parameter([0.0])
    optimizer = torch.optim.SGD([param], lr=1.0)
    with pytest.raises(AssertionError, match="No inf checks were recorded for this optimizer."):
        scaler.step(optimizer)
    backward(param, 24.0)
    scaler.step(optimizer)
    assert float(param) == -3


def test_gradients_that_came_after_unscale():
    """They are still scaled: a step would be too long by the whole scale."""
    scaler = scaler_of()
    optimizer, p = make()
    scaler.unscale_(optimizer)
    backward(p, 24.0)
    before = snapshot(optimizer, p)
    for _ in range(2):
        with pytest.raises(AssertionError, match="No inf checks were recorded for this optimizer"):
            scaler.step(optimizer)
        assert snapshot(optimizer, p) == before
    scaler.update(8.0)
    assert used(scaler, optimizer, p) == 3.0


def test_only_what_the_step_reads_is_looked_at():
    """Not what belongs to no group, nor what requires_grad hides."""
    scaler = scaler_of()
    optimizer, p, frozen, gone = make(3)
    stranger = parameter([0.0], "float64")
    backward(p, 24.0, frozen, math.inf, gone, math.inf, stranger, math.nan)
    frozen.requires_grad = False
    optimizer.param_groups[0]["params"] = [p, frozen]
    assert used(scaler, optimizer, p) == 3.0
    assert values(frozen).tolist() == [0, 0]


def test_an_empty_gradient_is_finite():
    params = [parameter(np.zeros((0,))), parameter([0.0], "float32")]
    optimizer = dragon_optim.RMSprop(params, **SHOW)
    scaler = scaler_of()
    for param, grad in zip(params, (np.zeros((0,), "float32"), np.float32([24.0]))):
        feed_gradient(param, grad)
    scaler.step(optimizer)
    assert float(params[1]) == -0.75
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    feed_gradient(params[0], np.zeros((0,), "float32"))
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    assert scaler.step_was_skipped(optimizer) is False


def test_an_integer_gradient_is_refused_and_nothing_changes():
    optimizer, p, q = make(2)
    scaler = scaler_of()
    backward(p, 24.0)
    feed_gradient(q, np.array([1, 2], "int64"))
    before = snapshot(optimizer, p, q)
    for call in (scaler.unscale_, scaler.step):
        with pytest.raises(ValueError, match="int64"):
            call(optimizer)
        assert snapshot(optimizer, p, q) == before
    feed_gradient(q, np.array([24.0, 24.0]))
    assert used(scaler, optimizer, p) == 3.0


def test_the_same_parameter_in_two_optimizers():
    """Neither step writes to the gradient, so that the second one's is not unscaled twice."""
    p = parameter([0.0], "float64")
    first, second = (dragon_optim.RMSprop([p], **SHOW) for _ in range(2))
    scaler = scaler_of()
    backward(p, 24.0)
    assert [used(scaler, each, p) for each in (first, second)] == [3.0, 3.0]


def test_two_optimizers_of_which_one_finds_something():
    scaler = scaler_of(growth_interval=1)
    (first, p), (second, q) = make(), make()
    backward(p, math.inf, q, 24.0)
    assert [used(scaler, first, p), used(scaler, second, q)] == [None, 3.0]
    assert [scaler.step_was_skipped(each) for each in (first, second)] == [True, False]
    scaler.update()
    assert (scaler.get_scale(), scaler._get_growth_tracker()) == (4, 0)
    backward(p, 12.0)
    assert used(scaler, first, p) == 3.0
    assert [scaler.step_was_skipped(each) for each in (first, second)] == [False, False]


# --- rounds of sum_grad() -----------------------------------------------------------------------------------


def rounds(optimizer, param, *grads):
    for grad in grads:
        backward(param, grad)
        optimizer.sum_grad()


@pytest.mark.parametrize("unscales", [False, True])
def test_a_step_from_sums(unscales):
    scaler = scaler_of()
    optimizer, p = make()
    for total in (3.0, 6.0):
        rounds(optimizer, p, 8.0, 8 * (total - 1))
        if unscales:
            scaler.unscale_(optimizer)
            assert values(p.grad).tolist() == [8 * (total - 1)] * 2  # the sums are what was unscaled
        assert used(scaler, optimizer, p) == total
        scaler.update()
    backward(p, 8.0)  # the round is over
    assert used(scaler, optimizer, p) == 1.0


@pytest.mark.parametrize("unscales", [False, True])
@pytest.mark.parametrize("grads", [(math.inf, 8.0), (math.inf, -math.inf), (1.7e308, 1.7e308)], ids=str)
def test_a_sum_that_is_not_finite_ends_the_round(grads, unscales):
    """The last gradient may be finite, and so may all of them. The sums are gone with the step left out."""
    scaler = scaler_of()
    optimizer, p = make()
    rounds(optimizer, p, *grads)
    if unscales:
        scaler.unscale_(optimizer)
    assert used(scaler, optimizer, p) is None
    scaler.update()
    rounds(optimizer, p, 4.0, 8.0)
    assert used(scaler, optimizer, p) == 3.0
    scaler.update()
    rounds(optimizer, p, math.inf)
    scaler.step(optimizer)
    scaler.update()
    backward(p, 2.0)
    assert used(scaler, optimizer, p) == 1.0


def test_what_was_not_summed_is_not_looked_at():
    scaler = scaler_of()
    optimizer, p, q = make(2)
    rounds(optimizer, p, 8.0)
    backward(q, math.inf)
    with pytest.warns(UserWarning, match=r"a backward pass came after the last sum_grad\(\)") as caught:
        scaler.step(optimizer)
    assert caught[0].filename == __file__
    assert not scaler.step_was_skipped(optimizer)
    assert values(p).tolist() == [-0.5, -0.5]
    assert values(q).tolist() == [0, 0]


def test_clipping_of_unscaled_sums():
    scaler = scaler_of()
    optimizer, p = make()
    rounds(optimizer, p, [8.0, 16.0], [16.0, 16.0])
    scaler.unscale_(optimizer)
    assert float(dragon_optim.clip_grad_norm_([p], 2.5)) == 5
    assert used(scaler, optimizer, p) == 1.5


# --- other optimizers ---------------------------------------------------------------------------------------

STOCK = {
    "SGD": lambda params: torch.optim.SGD(params, lr=0.5, momentum=0.5),
    "RMSprop": lambda params: torch.optim.RMSprop(params, lr=0.5, alpha=0.5, momentum=0.5),
    "Adam": lambda params: torch.optim.Adam(params, lr=0.5),
}


@pytest.mark.parametrize("kind", STOCK)
@pytest.mark.parametrize("unscales", [False, True])
def test_stock_optimizers(kind, unscales):
    """They go as without a scaler over gradients that are not scaled, but for the steps left out."""
    scaled, plain = parameter([1.0, -2.0]), parameter([1.0, -2.0])
    optimizer, reference = STOCK[kind]([scaled]), STOCK[kind]([plain])
    scaler = scaler_of()
    for grad in (3.0, math.inf, 5.0, math.nan, 2.0):
        factor = scaler.get_scale()
        backward(scaled, grad * factor)
        if unscales:
            scaler.unscale_(optimizer)
            assert np.array_equal(values(scaled.grad), [grad] * 2, equal_nan=True)
        scaler.step(optimizer)
        assert scaler.step_was_skipped(optimizer) is (not math.isfinite(grad))
        scaler.update()
        if math.isfinite(grad):
            backward(plain, grad)
            reference.step()
            assert values(scaled.grad).tolist() == [grad] * 2
        assert values(scaled).tolist() == values(plain).tolist()
    assert scaler.get_scale() == 2


def test_sums_of_stock_optimizers():
    param = parameter([0.0])
    optimizer = torch.optim.SGD([param], lr=1.0)
    scaler = scaler_of()
    rounds(optimizer, param, 8.0, 16.0)
    scaler.step(optimizer)
    scaler.update()
    assert float(param) == -3
    rounds(optimizer, param, math.inf, 16.0)
    scaler.step(optimizer)
    assert scaler.step_was_skipped(optimizer) is True
    scaler.update()
    assert float(param) == -3
    rounds(optimizer, param, 4.0)
    scaler.step(optimizer)
    scaler.update()
    assert float(param) == -4  # without the sums of the round before
    rounds(optimizer, param, math.inf)
    scaler.step(optimizer)
    scaler.update()
    backward(param, 2.0)
    scaler.step(optimizer)
    assert float(param) == -5  # there is no round


def test_a_recorded_step():
    optimizer, p = make(differentiable=True)
    scaler = scaler_of()
    backward(p, 24.0)
    assert used(scaler, optimizer, p) == 3.0
    scaler.update()
    with optimizer.as_leaves():
        backward(p, math.inf)
    before = snapshot(optimizer, p)["param 0"]
    assert used(scaler, optimizer, p) is None
    assert snapshot(optimizer, p)["param 0"] == before
    optimizer.detach_()


def test_rmsprop_tf():
    p = parameter([0.0], "float64")
    optimizer = dragon_optim.RMSpropTF([p], lr=1.0, alpha=0.0, eps=0.0)
    scaler = scaler_of()
    for grad in (8.0, math.inf):
        backward(p, grad)
        scaler.step(optimizer)
        scaler.update()
        assert float(p) == -1.0
