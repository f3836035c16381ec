# SPDX-License-Identifier: BSD-2-Clause
"""`differentiable=True`: values, the way parameters and states carry the tape, and how it ends."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from dragon.core.framework import config
from dragon.vm import torch

import dragon_optim
from tests.optim import unrolled
from tests.optim.elsewhere import run_script
from tests.optim.support import backward, feed_gradient, parameter, values
from tests.optim.unrolled import tensor

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "differentiable.json").read_text())


def leaf_of(numbers, dtype="float64"):
    return parameter(numbers, dtype)


# --- values ---------------------------------------------------------------------------------------

FORMS = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "lr_in_momentum": True, "centered": True},
    {"centered": True, "alpha": 0.3, "weight_decay": 0.1, "maximize": True},
    {"weight_decay": 0.1, "decoupled_weight_decay": True, "eps_inside_sqrt": True, "initial_square_avg": 1.0},
    {"grad_scale": 0.5, "clip_norm": 0.1, "momentum": 0.5},
    {"clip_value": 0.2, "foreach": False},
]
SHAPES = [(), (1,), (3, 5), (257,), (17,), (0,)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", FORMS, ids=str)
@pytest.mark.parametrize("recorded", [True, False])
def test_the_bits_of_an_ordinary_step(options, dtype, recorded):
    """Recorded or, under no_grad, not: parameters and states are those of differentiable=False."""
    rng = np.random.RandomState(0)
    starts = [np.array(rng.randn(*shape), dtype) for shape in SHAPES]
    both = [[leaf_of(start, dtype) for start in starts] for _ in range(2)]
    ordinary, functional = (
        dragon_optim.RMSprop(params, lr=0.01, differentiable=differentiable, **options)
        for params, differentiable in zip(both, (False, True))
    )
    for step in range(4):
        for one, other in zip(*both):
            if step == 2 and one.dim() == 2:
                continue
            grad = np.array(rng.randn(*one.shape), dtype)
            feed_gradient(one, grad)
            feed_gradient(other, grad)
        ordinary.step()
        with torch.enable_grad() if recorded else torch.no_grad():
            functional.step()
        ordinary.zero_grad(set_to_none=True)
        for one, other in zip(*both):
            assert values(one).tobytes() == values(other).tobytes()
            assert other.is_leaf != recorded
            assert other.requires_grad
            ours, theirs = functional.state[other], ordinary.state[one]
            assert list(ours) == list(theirs)
            assert ours["step"] == theirs["step"]
            for name in set(ours) - {"step"}:
                assert values(ours[name]).tobytes() == values(theirs[name]).tobytes()
                assert ours[name].dtype == dtype


# --- derivatives ----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: str(case["options"]))
def test_the_derivatives_of_pytorch(case):
    given = {name: tensor(numbers) for name, numbers in case["given"].items()}
    param = given["param"] * 1.0
    numbers = {name: given.get(name, number) for name, number in case["options"].items()}
    optimizer = dragon_optim.RMSprop([param], **numbers, differentiable=True)
    for name in set(given) & set(unrolled.STATES):
        optimizer.state[param][name] = given[name]
    for step in range(case["steps"]):
        grad = given["grad"] * float(step + 1) + param * param * (0.02 * step)
        optimizer.step(gradients={param: grad})
    results = {"param": param, **optimizer.state[param]}
    total = None
    for name, weights in case["weights"].items():
        np.testing.assert_allclose(values(results[name]), case["results"][name], rtol=1e-12)
        term = (results[name] * tensor(weights, False)).sum()
        total = term if total is None else total + term
    total.backward()
    for name, expected in case["gradients"].items():
        np.testing.assert_allclose(values(given[name].grad), expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_hyper_parameters_of_either_dtype(kind):
    """The tensor's own dtype is that of its gradient, whatever the parameter's."""
    lr, weight = tensor([0.5], dtype=kind), leaf_of([3.0], "float32")
    optimizer = dragon_optim.RMSprop([weight], lr=lr, alpha=0, eps=0, differentiable=True)
    backward(weight, 2.0)
    optimizer.step()
    assert values(weight).tolist() == [2.5]
    (weight * 4.0).sum().backward()
    assert (lr.grad.dtype, tuple(lr.grad.shape), values(lr.grad).tolist()) == (kind, (1,), [-4.0])


def test_float32_derivatives():
    options = {"momentum": 0.8, "centered": True, "weight_decay": 0.1, "clip_norm": 0.7, "grad_scale": 1.3}
    numbers = unrolled.inputs(options)
    given = {name: tensor(value, dtype="float32") for name, value in numbers.items()}
    param = given["param"] * 1.0
    hypers = {name: given[name] for name in unrolled.NUMBERS if name in given}
    optimizer = dragon_optim.RMSprop([param], centered=True, **hypers, differentiable=True)
    for name in ("square_avg", "momentum_buffer", "grad_avg"):
        optimizer.state[param][name] = given[name]
    optimizer.step(gradients={param: given["grad"]})
    total = (param * tensor(unrolled.WEIGHTS["param"], False, "float32")).sum()
    for name in ("square_avg", "momentum_buffer", "grad_avg"):
        total = (
            total + (optimizer.state[param][name] * tensor(unrolled.WEIGHTS[name], False, "float32")).sum()
        )
    total.backward()
    expected = unrolled.central_differences(options, numbers, 1)
    for name, each in expected.items():
        assert unrolled.relative_error(values(given[name].grad), each) < 2e-5, name


def test_one_tensor_for_two_hyper_parameters_and_two_groups():
    shared, first, second = tensor([0.25]), leaf_of([1.0]), leaf_of([2.0])
    groups = [{"params": [first], "weight_decay": shared}, {"params": [second]}]
    optimizer = dragon_optim.RMSprop(
        groups, lr=shared, alpha=0, eps=0.5, decoupled_weight_decay=True, differentiable=True
    )
    backward(first, 0.5, second, 0.5)
    optimizer.step()
    (first + second).sum().backward()
    # p - s * s * p - s * g / (|g| + eps) for p = 1 and s = 1/4, and without decay for the second
    assert values(shared.grad).tolist() == [-0.5 - 0.5 - 0.5]


def test_only_what_is_asked_for_gets_a_gradient():
    weight, rate = leaf_of([1.0, 2.0]), tensor(0.1)
    optimizer = dragon_optim.RMSprop([weight], lr=rate, momentum=0.5, differentiable=True)
    backward(weight, [1.0, -1.0])
    optimizer.step()
    before = weight
    (before * before).sum().backward()
    assert rate.grad is not None
    assert optimizer.origin(weight).grad is not None
    assert all(state.grad is None for name, state in optimizer.state[weight].items() if name != "step")


def test_a_hyper_parameter_that_requires_none_is_a_number():
    weight, rate, momentum = leaf_of([1.0]), tensor([0.5]), tensor([0.0], False)
    optimizer = dragon_optim.RMSprop(
        [weight], lr=rate, alpha=0, eps=0, momentum=momentum, differentiable=True
    )
    backward(weight, 1.0)
    optimizer.step()
    weight.sum().backward()
    assert values(rate.grad).tolist() == [-1.0]
    assert momentum.grad is None


def test_a_schedule_does_not_reach_into_recorded_steps():
    """Numbers of a group may change between a step and the backward pass through it."""
    scale, weight = tensor([1.0]), leaf_of([0.0])
    optimizer = dragon_optim.RMSprop([weight], lr=0.5, alpha=0, eps=1, differentiable=True)
    optimizer.step(gradients={weight: scale * 1.0})
    optimizer.param_groups[0]["lr"] = 100.0
    weight.sum().backward()
    assert values(scale.grad).tolist() == [-0.125]  # of -0.5 * g / (|g| + 1) at 1


def test_a_gradient_from_backward_is_a_constant_of_its_step():
    """It is copied: the next backward pass overwrites it in place."""
    weight, rate = leaf_of([1.0]), tensor([0.1])
    optimizer = dragon_optim.RMSprop([weight], lr=rate, alpha=0, eps=1, differentiable=True)
    steps = (1.0, 3.0, 0.25)
    for number in steps:
        with optimizer.as_leaves():
            backward(weight, number)
        optimizer.step()
    weight.sum().backward()
    expected = -sum(number / (number + 1) for number in steps)
    assert values(rate.grad) == pytest.approx(expected, rel=1e-15)
    assert values(optimizer.origin(weight).grad).tolist() == [1.0]


def test_sums_are_constants_too():
    weight, rate = leaf_of([1.0]), tensor([0.1])
    optimizer = dragon_optim.RMSprop([weight], lr=rate, alpha=0, eps=1, differentiable=True)
    for _ in range(2):
        for number in (1.0, 2.0):
            with optimizer.as_leaves():
                backward(weight, number)
            optimizer.sum_grad()
        optimizer.step()
    weight.sum().backward()
    assert values(rate.grad).tolist() == [-1.5]


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


# --- the end of a history -------------------------------------------------------------------------


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
    for more in (0, 20):
        factor = tensor([2.0])
        weight = unrolled_step(factor)
        total = weight.sum()
        for _ in range(more):
            total = total + (weight * 1.0).sum() * 0.0
        total.backward()
        slopes.append(values(factor.grad).tolist())
    assert slopes[0] == slopes[1]


# --- surroundings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("level", range(4))
def test_every_level_of_graph_optimization(level):
    options = {"momentum": 0.8, "centered": True, "weight_decay": 0.1}
    numbers = unrolled.inputs(options)
    settings = config.config()
    before, settings.graph_optimization = settings.graph_optimization, level
    try:
        actual = unrolled.gradients(options, numbers, 3)
    finally:
        settings.graph_optimization = before
    for name, expected in unrolled.central_differences(options, numbers, 3).items():
        assert unrolled.relative_error(actual[name], expected) < 1e-7, name


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
