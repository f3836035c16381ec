# SPDX-License-Identifier: BSD-2-Clause
"""`differentiable=True`: parameters that become other tensors, and the states beside them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from tests.optim.support import backward, values
from tests.optim.unrolled import leaf_of, tensor

# --- parameters -----------------------------------------------------------------------------------


def test_a_module_follows_its_parameters():
    layer = torch.nn.Linear(3, 1)
    weight, rate = layer.weight, tensor([0.1], dtype="float32")
    optimizer = dragon_optim.RMSprop(layer.parameters(), lr=rate, differentiable=True)
    inputs = torch.tensor(np.eye(3, dtype="float32"))
    layer(inputs).sum().backward()
    optimizer.step()
    assert layer.weight is weight
    assert not weight.is_leaf
    assert weight.grad is None  # it is a new tensor
    layer(inputs).sum().backward()
    assert values(rate.grad).size == 1
    assert weight.is_leaf
    layer(inputs).sum().backward()  # and now a leaf as any other
    assert values(weight.grad).tolist() == [[1.0, 1.0, 1.0]]


def test_a_parameter_twice_in_a_group_takes_its_steps_in_order():
    twice, once = leaf_of([1.0]), leaf_of([1.0])
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optimizer = dragon_optim.RMSprop([twice, twice], lr=0.5, momentum=0.5, differentiable=True)
    reference = dragon_optim.RMSprop([once], lr=0.5, momentum=0.5)
    for param in (twice, once):
        backward(param, 2.0)
    optimizer.step()
    reference.step()
    reference.step()
    assert values(twice).tolist() == values(once).tolist()
    assert optimizer.state[twice]["step"] == 2


def test_without_a_gradient_a_parameter_is_left_alone():
    moved, left = leaf_of([1.0]), leaf_of([1.0])
    optimizer = dragon_optim.RMSprop([moved, left], differentiable=True)
    optimizer.step()
    backward(moved, 1.0)
    optimizer.step()
    assert not moved.is_leaf
    assert left.is_leaf
    assert left not in optimizer.state
    optimizer.step()  # its gradient stays with the tensor that it was
    assert optimizer.state[moved]["step"] == 1


def test_a_frozen_parameter_can_be_given_a_gradient():
    constant, rate = tensor([1.0], requires_grad=False), tensor([0.5])
    optimizer = dragon_optim.RMSprop([constant], lr=rate, alpha=0, eps=0, differentiable=True)
    optimizer.step(gradients={constant: tensor([2.0], False)})
    (constant * 3.0).sum().backward()
    assert values(rate.grad).tolist() == [-3.0]


def test_zero_grad_clears_what_the_next_step_would_take():
    weight = leaf_of([1.0])
    optimizer = dragon_optim.RMSprop([weight], differentiable=True)
    for set_to_none in (True, False):
        with optimizer.as_leaves():
            backward(weight, 1.0)
        optimizer.zero_grad(set_to_none)
        assert (weight.grad is None) == set_to_none
    before = values(weight)
    optimizer.step()
    assert values(weight).tolist() == before.tolist()
    assert optimizer.state[weight]["step"] == 1


def test_another_optimizer_follows_too():
    """One of the two owns the embedding's rate, the other counts: neither writes to what a parameter was."""
    weight = leaf_of([1.0])
    recorded = dragon_optim.RMSprop([weight], lr=0.5, alpha=0, eps=0, differentiable=True)
    ordinary = dragon_optim.RMSprop([weight], lr=0.25, alpha=0, eps=0)
    backward(weight, 1.0)
    ordinary.step()
    recorded.step()
    assert values(weight).tolist() == [0.25]
    assert ordinary.state[weight]["step"] == 1
    with pytest.raises(ValueError, match="can't optimize a non-leaf"):
        ordinary.step()
    recorded.detach_()
    backward(weight, 1.0)
    ordinary.step()
    assert values(weight).tolist() == [0.0]
    assert ordinary.state[weight]["step"] == 2


# --- states ---------------------------------------------------------------------------------------


def test_states_stay_on_the_tape():
    weight, start = leaf_of([1.0]), tensor([4.0])
    optimizer = dragon_optim.RMSprop([weight], alpha=0.5, differentiable=True)
    optimizer.state[weight]["square_avg"] = start
    assert optimizer.state[weight]["square_avg"] is start
    backward(weight, 2.0)
    optimizer.step()
    square_avg = optimizer.state[weight]["square_avg"]
    assert square_avg.grad_fn is not None
    assert values(start).tolist() == [4.0]
    square_avg.sum().backward()
    assert values(start.grad).tolist() == [0.5]


def test_a_state_dict_holds_values():
    weight = leaf_of([1.0])
    optimizer = dragon_optim.RMSprop([weight], lr=tensor([0.1]), momentum=0.5, differentiable=True)
    backward(weight, 1.0)
    optimizer.step()
    saved = optimizer.state_dict()
    other = leaf_of([1.0])
    resumed = dragon_optim.RMSprop([other], differentiable=True)
    resumed.load_state_dict(saved)
    assert resumed.param_groups[0]["momentum"] == 0.5
    for name in ("square_avg", "momentum_buffer"):
        loaded, kept = resumed.state[other][name], optimizer.state[weight][name]
        assert values(loaded).tolist() == values(kept).tolist()
        assert not loaded.requires_grad
        assert loaded is not kept


def test_loading_does_not_write_to_what_is_recorded():
    weight, factor = leaf_of([1.0]), tensor([2.0])
    optimizer = dragon_optim.RMSprop([weight], lr=0.5, alpha=0.5, eps=1, differentiable=True)
    optimizer.state[weight]["square_avg"] = np.array([0.5])
    saved = optimizer.state_dict()
    kept = {"state": {0: {"step": 9, "square_avg": np.array([1e6])}}, "param_groups": saved["param_groups"]}
    optimizer.step(gradients={weight: factor * 1.0})
    after = weight * 1.0
    optimizer.load_state_dict(kept)
    after.sum().backward()

    def stepped(g):
        return 1 - 0.5 * g / (np.sqrt(0.25 + 0.5 * g * g) + 1)

    slope = (stepped(2 + 1e-6) - stepped(2 - 1e-6)) / 2e-6
    assert values(factor.grad) == pytest.approx(slope, rel=1e-8)


# --- surroundings ---------------------------------------------------------------------------------


def test_an_error_in_the_second_group_leaves_the_first_as_it_was():
    first, second = leaf_of([1.0]), leaf_of([1.0])
    groups = [{"params": [first]}, {"params": [second], "momentum": tensor([0.0])}]
    optimizer = dragon_optim.RMSprop(groups, differentiable=True)
    backward(first, 1.0, second, 1.0)
    with pytest.raises(ValueError, match="momentum is 0, which turns it off"):
        optimizer.step()
    assert first.is_leaf
    assert values(first).tolist() == [1.0]
    assert len(optimizer.state) == 0
    optimizer.param_groups[1]["momentum"] = 0.5
    optimizer.step()
    assert [optimizer.state[param]["step"] for param in (first, second)] == [1, 1]


def test_a_deep_copy_begins_anew():
    weight, rate = leaf_of([1.0]), tensor([0.5])
    optimizer = dragon_optim.RMSprop([weight], lr=rate, alpha=0, eps=0, differentiable=True)
    backward(weight, 1.0)
    optimizer.step()
    twin = copy.deepcopy(optimizer)
    (copied,) = twin.param_groups[0]["params"]
    assert copied.is_leaf
    assert copied.requires_grad
    assert values(copied).tolist() == values(weight).tolist()
    backward(copied, 1.0)
    twin.step()
    assert values(weight).tolist() == [0.5]
    assert values(copied).tolist() == [0.0]
    copied.sum().backward()
    assert values(twin.param_groups[0]["lr"].grad).tolist() == [-1.0]
    assert rate.grad is None
