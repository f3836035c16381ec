# SPDX-License-Identifier: BSD-2-Clause
"""`differentiable=True`: how a history goes on, and how it ends."""

from __future__ import annotations

import pytest
from dragon.vm import torch

import dragon_optim
from tests.optim.elsewhere import run_script
from tests.optim.support import backward, values
from tests.optim.unrolled import leaf_of, tensor


def test_a_backward_pass_uses_the_history_up():
    weight, rate = leaf_of([1.0]), tensor([0.1])
    optimizer = dragon_optim.RMSprop([weight], lr=rate, alpha=0, eps=1, differentiable=True)
    for number in (1.0, 3.0):
        backward(weight, 1.0)
        optimizer.step()
        weight.sum().backward()
        assert weight.is_leaf
        assert values(rate.grad).tolist() == [-0.5], number  # of this round's step alone


def test_detach_ends_it_too():
    weight, rate = leaf_of([1.0]), tensor([0.1])
    optimizer = dragon_optim.RMSprop([weight], lr=rate, alpha=0, eps=1, momentum=0.5, differentiable=True)
    backward(weight, 1.0)
    optimizer.step()
    optimizer.detach_()
    assert weight.is_leaf
    assert weight.requires_grad
    for name in ("square_avg", "momentum_buffer"):
        assert not optimizer.state[weight][name].requires_grad
    weight.sum().backward()
    assert rate.grad is None
    assert values(weight.grad).tolist() == [1.0]


def test_a_closure_leaves_the_history_alone():
    weight, rate = leaf_of([1.0]), tensor([0.1])
    optimizer = dragon_optim.RMSprop([weight], lr=rate, alpha=0, eps=1, differentiable=True)

    def closure():
        optimizer.zero_grad()
        loss = (weight * 3.0).sum()
        loss.backward()
        return loss

    for _ in range(4):
        assert optimizer.step(closure) is not None
    weight.sum().backward()
    assert values(rate.grad).tolist() == [-3.0]


def test_retain_grad_gives_both_at_once():
    """Hypergradient descent: each backward pass gives the rate its gradient through the last step alone."""
    weight, rate = leaf_of([1.0]), tensor([0.1])
    weight.retain_grad()
    optimizer = dragon_optim.RMSprop([weight], lr=rate, alpha=0, eps=1, differentiable=True)
    (weight * 3.0).sum().backward()
    for _ in range(3):
        optimizer.step()
        (weight * 3.0).sum().backward()
        assert values(weight.grad).tolist() == [3.0]
        assert values(rate.grad).tolist() == [-0.75 * 3]


def test_switched_off_the_states_are_our_own_again():
    weight, start = leaf_of([1.0]), tensor([4.0])
    optimizer = dragon_optim.RMSprop([weight], alpha=0.5, differentiable=True)
    optimizer.state[weight]["square_avg"] = start
    optimizer.param_groups[0]["differentiable"] = False
    backward(weight, 2.0)
    optimizer.step()
    assert values(start).tolist() == [4.0]
    assert values(optimizer.state[weight]["square_avg"]).tolist() == [4.0]  # 0.5 * 4 + 0.5 * 2 * 2
    assert weight.is_leaf
    assert not optimizer.state[weight]["square_avg"].requires_grad


def test_switched_on_an_ordinary_training_goes_on():
    weight, rate = leaf_of([1.0]), tensor([0.1])
    optimizer = dragon_optim.RMSprop([weight], lr=0.1, momentum=0.5)
    backward(weight, 2.0)
    optimizer.step()
    optimizer.param_groups[0].update(differentiable=True, lr=rate)
    backward(weight, 2.0)
    optimizer.step()
    assert optimizer.state[weight]["step"] == 2
    weight.sum().backward()
    assert rate.grad is not None


def test_results_that_nobody_holds_keep_their_names():
    """Dragon would give them to new tensors, and what flows back to those would go through the step."""

    def unrolled_step(factor):
        weight = leaf_of([1.0])
        optimizer = dragon_optim.RMSprop(
            [weight], lr=1.0, alpha=0.5, eps=1, momentum=0.5, differentiable=True
        )
        optimizer.step(gradients={weight: factor * 1.0})
        return weight  # the optimizer dies here, with its states

    slopes = []
    for more in (0, 3):
        factor = tensor([2.0])
        total = unrolled_step(factor).sum()
        other = leaf_of([7.0])
        optimizer = dragon_optim.RMSprop([other], lr=1.0, alpha=0.5, eps=1, momentum=0.5, differentiable=True)
        for _ in range(more):  # versions, which take the names that come free
            optimizer.step(gradients={other: other * 2.0})
        if more:
            state = optimizer.state[other]
            total = total + other.sum() + ((state["square_avg"] + state["momentum_buffer"]) * 3.0).sum()
        total.backward()
        slopes.append(values(factor.grad).tolist())
    assert slopes[0] == slopes[1]


def test_a_pass_through_one_parameter_ends_the_history_of_its_step():
    """The two were updated by one operator, and what went into it is used up."""
    reached, beside = leaf_of([1.0]), leaf_of([1.0])
    optimizer = dragon_optim.RMSprop([reached, beside], alpha=0.5, differentiable=True)
    backward(reached, 1.0, beside, 1.0)
    optimizer.step()
    (reached * 2.0).sum().backward()
    backward(reached, 1.0)
    optimizer.step()
    assert beside.is_leaf
    assert not optimizer.state[beside]["square_avg"].requires_grad
    assert not reached.is_leaf


def test_the_end_of_the_process_is_quiet():
    done = run_script(
        """
import numpy as np
import dragon_optim
from dragon.vm import torch
weight = torch.nn.Parameter(torch.tensor(np.ones(3)))
optimizer = dragon_optim.RMSprop([weight], momentum=0.5, differentiable=True)
for _ in range(3):
    optimizer.step(gradients={weight: weight * 2.0})
kept = [optimizer, weight, optimizer.state[weight]["square_avg"], (weight * 1.0).sum()]
"""
    )
    assert (done.returncode, done.stderr) == (0, "")


def _unrolled(steps, expression):
    """The derivative by the rate of an expression that was computed after its first step."""
    weight, rate = leaf_of([1.0, 2.0]), tensor([0.1])
    optimizer = dragon_optim.RMSprop([weight], lr=rate, alpha=0.5, eps=1, differentiable=True)
    optimizer.step(gradients={weight: weight * 2.0})
    loss = expression(weight)
    for _ in range(steps):
        optimizer.step(gradients={weight: weight * 2.0})
    (loss + (weight * 0.0).sum()).backward()
    return values(rate.grad).tolist(), values(optimizer.origin(weight).grad).tolist()


def test_an_expression_of_what_a_parameter_was_goes_back_while_the_history_lasts():
    def expression(weight):
        return (weight * weight).sum()

    expected = _unrolled(0, expression)
    assert expected[0] != [0.0]
    for steps in (1, 4):
        assert _unrolled(steps, expression) == expected


def test_an_expression_of_a_tensor_that_a_parameter_was_made_of_stays_good():
    """The parameter has moved on, and the tensor has not."""
    made = tensor([1.0, 2.0])
    weight = torch.nn.Parameter(made)
    optimizer = dragon_optim.RMSprop([weight], differentiable=True)
    loss = (made * made).sum()
    backward(weight, 1.0)
    with torch.no_grad():
        optimizer.step()
    loss.backward()
    assert values(made.grad).tolist() == [2.0, 4.0]


def test_detach_inside_a_block_of_leaves_is_not_undone():
    weight, rate = leaf_of([1.0]), tensor([0.1])
    optimizer = dragon_optim.RMSprop([weight], lr=rate, differentiable=True)
    backward(weight, 1.0)
    optimizer.step()
    with optimizer.as_leaves(), optimizer.as_leaves():
        optimizer.detach_()
    assert weight.is_leaf
    weight.sum().backward()
    assert rate.grad is None


def test_a_block_of_leaves_knows_the_groups_of_now():
    """A parameter with a history has joined since the last step, and another group has been made one."""
    first, second, rate = leaf_of([1.0]), leaf_of([1.0]), tensor([0.1])
    other = dragon_optim.RMSprop([second], lr=rate, differentiable=True)
    backward(second, 1.0)
    other.step()
    grown = dragon_optim.RMSprop([first], differentiable=True)
    grown.param_groups[0]["params"].append(second)
    with grown.as_leaves():
        assert second.is_leaf
        backward(second, 2.0)
    assert values(second.grad).tolist() == [2.0]
    assert not second.is_leaf
    switched = dragon_optim.RMSprop([first])
    switched.param_groups[0].update(params=[second], differentiable=True)
    with switched.as_leaves():
        assert second.is_leaf
    second.sum().backward()
    assert rate.grad is not None


def _detached(optimizer, weight):
    optimizer.detach_()


def _gone_back(optimizer, weight):
    weight.sum().backward()


def _gone_back_beside(optimizer, weight):
    """Through another parameter of the step. What it has used up shows in the next one."""
    other = optimizer.param_groups[0]["params"][1]
    other.sum().backward()
    backward(other, 1.0)
    optimizer.step()


def _stepped_without_grad(optimizer, weight):
    with torch.no_grad():
        optimizer.step(gradients={weight: tensor([1.0], False)})


@pytest.mark.parametrize("end", [_detached, _gone_back, _gone_back_beside, _stepped_without_grad])
def test_a_frozen_parameter_is_frozen_again_after_its_history(end):
    weight, other, rate = leaf_of([1.0]), leaf_of([1.0]), tensor([0.1])
    weight.requires_grad = False
    optimizer = dragon_optim.RMSprop([weight, other], lr=rate, differentiable=True)
    for _ in range(2):
        optimizer.step(gradients={weight: tensor([1.0], False), other: tensor([1.0], False)})
        assert weight.requires_grad
    end(optimizer, weight)
    assert weight.is_leaf
    assert not weight.requires_grad
    assert other.requires_grad
    optimizer.detach_()
    before = values(weight)
    backward(other, 1.0, weight, 1.0)
    optimizer.step()
    assert values(weight).tolist() == before.tolist()
    weight.requires_grad = True  # by the user: that holds
    optimizer.detach_()
    assert weight.requires_grad
