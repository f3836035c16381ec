# SPDX-License-Identifier: BSD-2-Clause
"""The life of a gradient: from a backward pass through step(), sum_grad() and zero_grad() to its end.

Dragon's backward overwrites a gradient and keeps it until the next one. The rules here are the
design's: what was computed counts once in a sum; what was not computed in a round is left alone, whatever
stale value Dragon still holds.
"""

from __future__ import annotations

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from tests import exact
from tests.optim.support import backward, feed_gradient, parameter, shown, snapshot, values

# See `shown`.
SHOW = dict(lr=1.0, alpha=0.0, eps=1.0)


def make(number=1, **options):
    params = [parameter([0.0, 0.0], "float64") for _ in range(number)]
    return (dragon_optim.RMSprop(params, **dict(SHOW, **options)), *params)


# --- step -----------------------------------------------------------------------------------------


def test_a_gradient_stays_until_it_is_overwritten():
    optimizer, p = make()
    backward(p, 3.0)
    assert [shown(optimizer, p), shown(optimizer, p)] == [3.0, 3.0]
    backward(p, 5.0)
    assert shown(optimizer, p) == 5.0
    assert p.grad.numpy().tolist() == [5.0, 5.0]


def test_no_gradient_no_update_and_no_state():
    optimizer, p, q = make(2, momentum=0.9, weight_decay=0.1)
    assert optimizer.step() is None
    backward(p, 3.0)
    optimizer.step()
    assert values(q).tolist() == [0.0, 0.0]
    assert q not in optimizer.state


def test_zero_is_a_gradient_and_none_is_not():
    """Zero still moves by momentum and lets the averages fade; None leaves all alone."""
    optimizer, p = make(momentum=0.5)
    backward(p, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    before = snapshot(optimizer, p)
    optimizer.step()
    assert snapshot(optimizer, p) == before
    backward(p, 0.0)
    optimizer.step()
    assert optimizer.state[p]["step"] == 2
    assert values(p).tolist() == [-0.75, -0.75]


def test_a_gradient_that_comes_late():
    optimizer, p, q = make(2)
    for _ in range(3):
        backward(p, 1.0)
        optimizer.step()
    backward(q, 3.0)
    assert shown(optimizer, q) == 3.0
    assert [optimizer.state[each]["step"] for each in (p, q)] == [4, 1]


def test_a_gradient_from_before_the_optimizer_counts():
    p = parameter([0.0, 0.0], "float64")
    backward(p, 3.0)
    assert shown(dragon_optim.RMSprop([p], **SHOW), p) == 3.0
    optimizer = dragon_optim.RMSprop([p], **SHOW)
    optimizer.sum_grad()
    assert shown(optimizer, p) == 3.0


@pytest.mark.parametrize("foreach", [None, False])
def test_a_parameter_twice_in_a_group_is_updated_twice(foreach):
    p = parameter([2.0, -1.0])
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optimizer = dragon_optim.RMSprop([p, p], lr=0.1, alpha=0.5, momentum=0.9, foreach=foreach)
    backward(p, 0.5)
    optimizer.step()
    expected, state = values(parameter([2.0, -1.0])), {}
    for _ in range(2):
        grad = np.full(2, 0.5, "float32")
        expected, state = exact.step(dict(lr=0.1, alpha=0.5, momentum=0.9), expected, grad, state)
    assert values(p).tobytes() == expected.tobytes()
    assert values(optimizer.state[p]["momentum_buffer"]).tobytes() == state["momentum_buffer"].tobytes()
    assert optimizer.state[p]["step"] == 2


def test_a_frozen_parameter_rests_although_a_gradient_lies_there():
    optimizer, p = make(weight_decay=0.1)
    backward(p, 3.0)
    p.requires_grad = False
    assert shown(optimizer, p) is None
    optimizer.sum_grad()
    assert shown(optimizer, p) is None
    p.requires_grad = True
    assert shown(optimizer, p) is not None


def test_a_closure_computes_the_gradients_anew():
    optimizer, p = make()
    backward(p, 3.0)

    def closure():
        backward(p, 5.0)
        return "loss"

    with torch.no_grad():
        assert optimizer.step(closure) == "loss"
    assert values(p).tolist() == pytest.approx([-5 / 6] * 2)


# --- sum_grad -------------------------------------------------------------------------------------


def test_sums_over_a_round():
    optimizer, p = make()
    for grad in (1.0, 2.0, 4.0):
        backward(p, grad)
        optimizer.sum_grad()
    assert p.grad.numpy().tolist() == [4.0, 4.0]
    assert shown(optimizer, p) == 7.0


def test_a_round_ends_with_its_step():
    optimizer, p = make()
    backward(p, 1.0)
    optimizer.sum_grad()
    assert shown(optimizer, p) == 1.0
    backward(p, 3.0)
    assert shown(optimizer, p) == 3.0
    for grad in (5.0, 6.0):
        backward(p, grad)
        optimizer.sum_grad()
    assert shown(optimizer, p) == 11.0


def test_what_was_not_computed_in_a_round_is_left_alone():
    """Stock Dragon adds the stale gradient of q again in each micro-step."""
    optimizer, p, q = make(2)
    backward(p, 1.0, q, 2.0)
    optimizer.sum_grad()
    backward(p, 4.0)
    optimizer.sum_grad()
    optimizer.step()
    assert values(p)[0] == pytest.approx(-5 / 6)
    assert values(q)[0] == pytest.approx(-2 / 3)
    before = values(q)
    backward(p, 1.0)
    optimizer.sum_grad()
    optimizer.step()
    assert values(q).tolist() == before.tolist()
    assert optimizer.state[q]["step"] == 1


def test_two_backward_passes_before_one_sum():
    optimizer, p, q = make(2)
    backward(p, 1.0)
    backward(q, 2.0)
    optimizer.sum_grad()
    assert shown(optimizer, q) == 2.0
    assert optimizer.state[p]["step"] == 1


def test_the_same_gradient_is_summed_once():
    optimizer, p = make()
    backward(p, 3.0)
    optimizer.sum_grad()
    optimizer.sum_grad()
    assert shown(optimizer, p) == 3.0


def test_a_parameter_that_joins_a_round_later():
    optimizer, p, q = make(2)
    backward(p, 1.0)
    optimizer.sum_grad()
    backward(q, 3.0)
    optimizer.sum_grad()
    assert shown(optimizer, q) == 3.0
    assert optimizer.state[p]["step"] == 1


def test_options_apply_to_the_sum():
    optimizer, p = make(grad_scale=0.5, clip_value=4.0)
    for grad in (3.0, 9.0):
        backward(p, grad)
        optimizer.sum_grad()
    assert shown(optimizer, p) == 4.0


def test_without_gradients_it_does_nothing():
    optimizer, p = make()
    optimizer.sum_grad()
    assert shown(optimizer, p) is None
    backward(p, 3.0)
    assert shown(optimizer, p) == 3.0  # no round was opened


def test_a_gradient_that_does_not_fit_sums_nothing():
    optimizer, p, q = make(2)
    backward(p, 1.0, q, 1.0)
    optimizer.sum_grad()
    backward(p, 2.0, q, 2.0)
    feed_gradient(q, np.ones(3))
    with pytest.raises(ValueError, match="nothing was summed"):
        optimizer.sum_grad()
    feed_gradient(q, np.full(2, 4.0))
    optimizer.sum_grad()  # the same pass, put right
    assert shown(optimizer, p) == 3.0
    assert values(q)[0] == pytest.approx(-5 / 6)


def test_a_failing_step_keeps_the_round_open():
    optimizer, p = make()
    backward(p, 1.0)
    optimizer.sum_grad()
    optimizer.param_groups[0]["lr"] = -1
    with pytest.raises(ValueError, match="learning rate"):
        optimizer.step()
    optimizer.param_groups[0]["lr"] = 1.0
    backward(p, 2.0)
    optimizer.sum_grad()
    assert shown(optimizer, p) == 3.0


def test_half_precision_is_summed_in_float32():
    """4096 + 1 is 4096 in float16. Cast is what Dragon can compute on the CPU for it."""
    p = parameter([1.0, 1.0], "float16")
    optimizer = dragon_optim.RMSprop([p], lr=0.25, alpha=0.5, momentum=0.9, eps=1.0)
    for grad in (4096.0, 1.0, 1.0, -4096.0):
        (p.float() * torch.tensor([grad, grad], dtype="float32")).sum().backward()
        assert p.grad.dtype == "float16"
        optimizer.sum_grad()
    optimizer.step()
    expected, state = exact.step(
        dict(lr=0.25, alpha=0.5, momentum=0.9, eps=1.0), np.ones(2, "float16"), np.full(2, 2.0, "float32"), {}
    )
    assert values(p).tobytes() == expected.tobytes()
    for name in ("square_avg", "momentum_buffer", "master_param"):
        assert values(optimizer.state[p][name]).tobytes() == state[name].tobytes()


# --- zero_grad ------------------------------------------------------------------------------------


def test_zero_grad_fills_with_zeros_as_dragon_does():
    optimizer, p, q = make(2)
    backward(p, 3.0)
    optimizer.zero_grad()
    assert p.grad.numpy().tolist() == [0.0, 0.0]
    assert q.grad is None


def test_zero_grad_takes_away():
    optimizer, p = make()
    backward(p, 3.0)
    optimizer.zero_grad(set_to_none=True)
    assert p.grad is None
    assert shown(optimizer, p) is None
    backward(p, 5.0)
    assert shown(optimizer, p) == 5.0


@pytest.mark.parametrize("set_to_none", [False, True])
def test_zero_grad_leaves_an_open_sum_alone(set_to_none):
    """Dragon scripts call it before each micro-backward: the one loop that stock Dragon gets right."""
    optimizer, p = make()
    for grad in (1.0, 2.0):
        optimizer.zero_grad(set_to_none=set_to_none)
        backward(p, grad)
        optimizer.sum_grad()
    optimizer.zero_grad(set_to_none=set_to_none)
    assert shown(optimizer, p) == 3.0


def test_drop_sums_abandons_a_round():
    optimizer, p = make()
    backward(p, 1.0)
    optimizer.sum_grad()
    optimizer.zero_grad(set_to_none=True, drop_sums=True)
    assert shown(optimizer, p) is None
    backward(p, 3.0)
    optimizer.sum_grad()
    assert shown(optimizer, p) == 3.0
