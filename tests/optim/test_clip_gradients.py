# SPDX-License-Identifier: BSD-2-Clause
"""Which gradients `clip_grad_norm_` and `clip_grad_value_` change: those that the next step will read."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dragon.core.framework import workspace
from dragon.vm import torch

import dragon_optim
from dragon_optim._dragon import tape
from tests.optim.clipping import NORM, VALUE, clipped, grads_of, leaves
from tests.optim.support import backward, feed_gradient, fresh_workspace, parameter, values


def test_absent_gradients_count_for_nothing():
    params = leaves([3.0], [100.0], [4.0], [100.0])
    optimizer = dragon_optim.RMSprop(params[1:2])
    optimizer.zero_grad(set_to_none=True)
    params[3].requires_grad = False
    assert float(NORM(params, 1.0)) == 5
    assert grads_of(params) == [clipped(3), None, clipped(4), None]
    params[3].requires_grad = True
    assert grads_of(params[3:]) == [[100]]
    backward(params[1], [12.0])
    assert float(NORM(params[:3], math.inf)) == pytest.approx(math.sqrt(145), rel=1e-5)


def test_a_parameter_that_stands_twice_counts_once():
    (param,) = leaves([3.0, 4.0])
    alias = torch.nn.Parameter(param.data)
    assert float(NORM([param, param, alias], 1.0)) == 5
    assert grads_of([param]) == [clipped(3, 4)]


def test_gradients_of_what_no_optimizer_holds_and_of_stock_optimizers():
    ours, theirs, nobodys = leaves([2.0], [4.0], [4.0])
    stock = torch.optim.SGD([theirs], lr=1.0)
    optimizer = dragon_optim.RMSprop([ours], lr=1.0, alpha=0, eps=1)
    assert float(NORM([ours, theirs, nobodys], 3.0)) == 6
    stock.step()
    assert float(theirs) == pytest.approx(-2, rel=1e-6)
    optimizer.step()
    assert float(ours) == pytest.approx(-0.5, rel=1e-6)
    assert float(nobodys) == 0


def test_a_dead_parameters_gradient_is_not_inherited():
    with fresh_workspace():
        for _ in range(3):
            (param,) = leaves([30.0])
            assert float(NORM([param], 1.0)) == 30
            del param
            assert float(NORM([parameter([1.0])], 1.0)) == 0


def test_sums_are_clipped_as_the_step_will_read_them():
    """Not ``.grad``; and what was not summed in this round is not clipped, for it will not be read."""
    one, two, left_out = parameter([0.0]), parameter([0.0]), parameter([0.0])
    optimizer = dragon_optim.RMSprop([one, two, left_out], lr=1.0, alpha=0, eps=1)
    backward(left_out, 100.0)
    optimizer.zero_grad()
    optimizer.sum_grad()
    optimizer.step()
    for part in (1.0, 2.0):
        backward(one, part, two, 2 * part - 1)
        optimizer.sum_grad()
    assert float(NORM([one, two, left_out], 1.0)) == 5
    assert grads_of([one, two, left_out]) == [[2], [3], [0]]
    optimizer.step()
    moved = [float(each) for each in (one, two, left_out)]
    assert moved[0] == pytest.approx(-0.6 / 1.6, rel=1e-5)
    assert moved[1] == pytest.approx(-0.8 / 1.8, rel=1e-5)
    assert moved[2] == 0
    backward(one, 3.0, two, 4.0)
    assert float(NORM([one, two], 1.0)) == 5  # the round is over
    assert grads_of([one, two]) == [clipped(3), clipped(4)]


def test_sums_of_an_earlier_round_do_not_count():
    first, second = parameter([0.0]), parameter([0.0])
    optimizer = dragon_optim.RMSprop([first, second])
    backward(first, 3.0, second, 4.0)
    optimizer.sum_grad()
    assert float(NORM([first, second], 1.0)) == 5
    optimizer.step()
    backward(first, 3.0)
    optimizer.sum_grad()
    assert float(NORM([first, second], 1.0)) == 3


def test_sums_count_though_the_gradient_was_taken_away():
    """As by a script that takes gradients away before each pass; what requires_grad hides is not read."""
    params = parameter([0.0]), parameter([0.0])
    optimizer = dragon_optim.RMSprop(params, lr=1.0, alpha=0, eps=1)
    backward(params[0], 3.0, params[1], 4.0)
    optimizer.sum_grad()
    optimizer.zero_grad(set_to_none=True)
    assert float(NORM(params, math.inf)) == 5
    run = dragon_optim.graph.capture(lambda: NORM(params, 1.0))
    assert float(run()) == 5
    params[0].requires_grad = False
    assert float(NORM(params, 0.5)) == pytest.approx(0.8, rel=1e-5)
    params[0].requires_grad = True
    optimizer.step()
    assert [float(each) for each in params] == pytest.approx([-0.6 / 1.6, -0.5 / 1.5], rel=1e-5)


def test_values_of_sums_are_clipped_too():
    param = parameter([0.0, 0.0])
    optimizer = dragon_optim.RMSprop([param], lr=1.0, alpha=0, eps=1)
    for _ in range(2):
        backward(param, [2.0, 0.25])
        optimizer.sum_grad()
    VALUE([param], 1.0)
    optimizer.step()
    assert values(param).tolist() == [-0.5, pytest.approx(-0.5 / 1.5)]
    assert grads_of([param]) == [[2, 0.25]]


def test_sums_that_are_dropped_are_not_clipped():
    param = parameter([0.0])
    optimizer = dragon_optim.RMSprop([param])
    backward(param, 5.0)
    optimizer.sum_grad()
    optimizer.zero_grad(drop_sums=True)
    backward(param, 5.0)
    NORM([param], 1.0)
    assert grads_of([param]) == [clipped(5)]


def test_a_process_group_averages_later(monkeypatch):
    monkeypatch.setattr(dragon_optim.clip.collective, "group", lambda: object())
    params = leaves([3.0, 4.0])
    for clip in (NORM, VALUE):
        with pytest.warns(UserWarning, match="each rank clips its own gradients") as caught:
            clip(params, 1.0)
        assert caught[0].filename == __file__
    assert grads_of(params) == [clipped(3, 4)]


def test_sums_of_float16_are_float32():
    param = parameter([0.0, 0.0], "float16")
    optimizer = dragon_optim.RMSprop([param], lr=1.0, alpha=0, eps=1)
    for grad in ([3.0, 0.0], [0.0, 4.0]):
        feed_gradient(param, np.array(grad, "float16"))
        tape.mark(workspace.get_workspace(), [param.id])
        optimizer.sum_grad()
    norm = NORM([param], 1.0)
    assert (float(norm), norm.dtype) == (5, "float32")
    optimizer.step()
    assert values(param) == pytest.approx(np.array([-0.6 / 1.6, -0.8 / 1.8]), rel=1e-3)


def test_a_pass_after_the_last_sum_is_warned_of():
    """The sums are clipped, as the step will go by them."""
    param = parameter([0.0])
    optimizer = dragon_optim.RMSprop([param], lr=1.0, alpha=0, eps=1)
    backward(param, 4.0)
    optimizer.sum_grad()
    backward(param, 100.0)
    with pytest.warns(UserWarning, match=r"a backward pass came after the last sum_grad\(\)"):
        assert float(NORM([param], 1.0)) == 4
    assert grads_of([param]) == [[100]]
    optimizer.step()
    assert float(param) == pytest.approx(-0.5, rel=1e-5)


@pytest.mark.parametrize("rest", [(), (0,)], ids=["one", "with another"])
def test_sums_of_stock_optimizers(rest):
    param, others = parameter([0.0, 0.0]), [parameter([0.0]) for _ in rest]
    optimizer = torch.optim.SGD([param, *others], lr=1.0)
    for grad in ([3.0, 0.0], [0.0, 4.0]):
        backward(param, grad)
        optimizer.sum_grad()
    assert float(NORM([param, *others], 1.0)) == 5
    assert grads_of([param]) == [[0, 4]]
    optimizer.step()
    assert values(param) == pytest.approx(np.array([-0.6, -0.8]), rel=1e-6)
    backward(param, [3.0, 4.0])
    NORM([param], 1.0)
    optimizer.step()
    assert values(param) == pytest.approx(np.array([-1.2, -1.6]), rel=1e-6)


def test_sums_in_two_optimizers_are_refused():
    param = parameter([0.0])
    optimizers = [dragon_optim.RMSprop([param]), torch.optim.SGD([param], lr=1.0)]
    backward(param, 5.0)
    for optimizer in optimizers:
        optimizer.sum_grad()
    for clip in (NORM, VALUE):
        with pytest.raises(RuntimeError, match="parameter 0 has sums of gradients in two optimizers"):
            clip([param], 1.0)
    optimizers[0].step()
    NORM([param], 1.0)
    optimizers[1].step()
    assert float(param) < -0.9


@pytest.mark.parametrize("order", [1, -1], ids=["as made", "in reverse"])
def test_a_sum_in_one_of_two_optimizers_that_are_in_a_round(order):
    """Each has summed another parameter of the two that both hold."""
    params = parameter([0.0]), parameter([0.0])
    optimizers = [dragon_optim.RMSprop(params) for _ in range(2)][::order]
    for param, grad, optimizer in zip(params, (3.0, 4.0), optimizers):
        backward(param, grad)
        optimizer.sum_grad()
        optimizer.zero_grad(set_to_none=True)
    with pytest.warns(UserWarning, match="a backward pass came after"):  # the second, after the first's sum
        assert float(NORM(params, 1.0)) == 5


def test_with_a_recorded_step():
    """The parameter is another tensor after it, with that one's gradient; nothing flows through a norm."""
    param = parameter([1.0], "float64")
    optimizer = dragon_optim.RMSprop([param], lr=0.1, differentiable=True)
    backward(param, 8.0)
    NORM([param], 2.0)
    optimizer.step()
    with optimizer.as_leaves():
        backward(param, 6.0)
    norm = NORM([param], 2.0)
    assert float(norm) == 6
    assert not norm.requires_grad
    assert grads_of([param])[0][0] == pytest.approx(2, rel=1e-6)
    optimizer.detach_()
