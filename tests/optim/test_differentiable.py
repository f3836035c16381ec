# SPDX-License-Identifier: BSD-2-Clause
"""`differentiable=True`: the values of recorded steps, and their derivatives by all that goes in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dragon.core.framework import config
from dragon.vm import torch

import dragon_optim
from tests.optim import unrolled
from tests.optim.support import backward, feed_gradient, values
from tests.optim.unrolled import leaf_of, tensor

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "differentiable.json").read_text())


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
    expected = unrolled.derivatives(options, numbers, 1)
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


@pytest.mark.parametrize("key", unrolled.NUMBERS)
def test_a_tensor_that_is_overwritten_does_not_reach_into_recorded_steps(key):
    """The derivative is that of the step that was made, at the value that it was made with."""
    options = {"momentum": 0.8, "weight_decay": 0.1}
    options.update({key: 0.7} if key.startswith("clip") else {})
    slopes = []
    for overwrite in (False, True):
        given = {name: tensor(value) for name, value in unrolled.inputs(options).items()}
        total, _ = unrolled.recorded(options, given, 2)
        if overwrite:
            given[key]._impl.FromNumpy(np.array(5.0), True)
        total.backward()
        slopes.append({name: values(each.grad).tolist() for name, each in given.items()})
    assert slopes[0] == slopes[1]


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
    for name, expected in unrolled.derivatives(options, numbers, 3).items():
        assert unrolled.relative_error(actual[name], expected) < 1e-7, name
