# SPDX-License-Identifier: BSD-2-Clause
"""PyTorch's own tests of RMSprop: steps, and errors of the constructor; see test_pytorch_protocol.py."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim import lr_scheduler
from tests.optim.pytorch_problem import CONSTRUCTORS, INPUTS, Problem, bits, made, over_foreach, over_inputs
from tests.optim.support import backward, parameter, values


def goes_right_direction(problem, optimizer, maximize, steps=20):
    """Whether steps lower the loss, or raise it."""
    before = problem.closure()
    problem.steps(optimizer, steps)
    after = problem.closure()
    return after > before if maximize else after < before


@over_foreach
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        dict(lr=1e-2),
        dict(centered=True),
        dict(centered=True, momentum=0.1),
        dict(momentum=0.1),
        dict(momentum=0.1, weight_decay=1),
        dict(groups=True),
    ],
    ids=lambda options: "-".join(options),
)
def test_rmsprop(options, maximize, foreach):
    """200 steps with a closure lower the loss, or raise it; and the error of 2.1's test."""
    problem, options = Problem(), dict(options)
    params = problem.params
    if options.pop("groups", False):
        params = [{"params": [problem.weight]}, {"params": problem.bias, "lr": 1e-3}]
    optimizer = dragon_optim.RMSprop(params, maximize=maximize, foreach=foreach, **options)
    repr(optimizer)
    assert goes_right_direction(problem, optimizer, maximize, steps=200)
    with pytest.raises(ValueError, match="^Invalid momentum value: -1.0"):
        dragon_optim.RMSprop(None, lr=1e-2, momentum=-1.0, foreach=foreach)


@over_inputs
@over_foreach
def test_forloop_goes_right_direction(options, foreach):
    problem, optimizer = made(options, foreach=foreach)
    assert goes_right_direction(problem, optimizer, options.get("maximize"))


@over_foreach
@pytest.mark.parametrize(
    "makers", [(), ("step",), ("step", "plateau"), ("warm-up", "exponential")], ids="-".join
)
def test_param_group_with_lrscheduler_goes_right_direction(makers, foreach):
    """Two groups, one with a learning rate of its own, and several schedulers on one optimizer."""
    problem = Problem()
    optimizer = dragon_optim.RMSprop(
        [{"params": [problem.weight]}, {"params": [problem.bias], "lr": 0.01}], lr=1e-3, foreach=foreach
    )
    make = {
        "step": lambda: lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.9),
        "plateau": lambda: lr_scheduler.ReduceLROnPlateau(optimizer),
        "warm-up": lambda: lr_scheduler.LinearLR(optimizer, start_factor=0.4, total_iters=4),
        "exponential": lambda: lr_scheduler.ExponentialLR(optimizer, gamma=0.9),
    }
    schedulers = [make[name]() for name in makers]
    before = problem.closure()
    for _ in range(20):
        loss = problem.closure()
        optimizer.step()
        for each in schedulers:
            each.step(loss) if isinstance(each, lr_scheduler.ReduceLROnPlateau) else each.step()
    assert problem.closure() < before
    ratio = optimizer.param_groups[1]["lr"] / optimizer.param_groups[0]["lr"]
    assert ratio == pytest.approx(10)
    assert (optimizer.param_groups[0]["lr"] == 1e-3) == (not makers)


@over_inputs
def test_foreach_matches_forloop(options):
    """Also with a step at which some parameters have no gradient, in float64: every bit."""
    ends = []
    for foreach in (False, True):
        problem, optimizer = made(options, Problem("float64"), foreach=foreach)
        problem.steps(optimizer, 3)
        optimizer.zero_grad(set_to_none=True)
        backward(problem.bias, 1.0)
        optimizer.step()
        problem.steps(optimizer, 3)
        assert [optimizer.state[param]["step"] for param in problem.params] == [6, 7]
        ends.append((problem.bits(), bits(optimizer.state_dict())[0]))
    assert ends[0] == ends[1]


@over_inputs
@pytest.mark.parametrize("shape", [(), (1,)], ids=["scalar", "one-element"])
def test_tensor_lr(options, shape):
    lr = torch.tensor(np.full(shape, 1e-3), dtype="float64")
    problem, optimizer = made({**options, "lr": 1e-3})
    twin, other = made({**options, "lr": lr})
    problem.steps(optimizer, 7)
    twin.steps(other, 7)
    assert twin.bits() == problem.bits()
    assert bits(other.state_dict())[0] == bits(optimizer.state_dict())[0]
    # And one that changes, as a scheduler changes it: in place, without a new value in the group.
    other.param_groups[0]["lr"]._impl.FromNumpy(np.full(shape, 0.5), True)
    optimizer.param_groups[0]["lr"] = 0.5
    problem.steps(optimizer, 1)
    twin.steps(other, 1)
    assert twin.bits() == problem.bits()


@over_inputs
def test_param_groups_weight_decay(options):
    problem = Problem()
    groups = [
        {"params": [problem.weight]},
        {"params": [problem.bias], "weight_decay": 0.5},
    ]
    optimizer = dragon_optim.RMSprop(groups, **{**options, "weight_decay": 0.1})
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.5]
    assert goes_right_direction(problem, optimizer, options.get("maximize"))


@over_inputs
def test_param_groups_lr(options):
    """A group with its own learning rate takes it; one with 1e-28 stays where it is."""
    for first, second, third in ((1e-2, 1e-3, 1e-28), (1e-28, 1e-3, 1e-28), (1e-28, 1e-28, 1e-28)):
        problem, still = Problem(), parameter(np.ones(3))
        groups = [
            {"params": [problem.weight], "lr": first},
            {"params": problem.bias, "lr": second},
            {"params": [still]},
        ]
        optimizer = dragon_optim.RMSprop(groups, **{**options, "lr": third})
        starts, before = [values(param) for param in (*problem.params, still)], problem.closure()
        backward(still, 1.0)
        problem.steps(optimizer, 20)
        moved = [
            bool((values(param) != start).any()) for param, start in zip((*problem.params, still), starts)
        ]
        assert moved == [lr > 1e-20 for lr in (first, second, third)]
        after = problem.closure()
        if second == 1e-28:
            assert after == before
        else:
            assert (after > before) if options.get("maximize") else (after < before)


@over_inputs
@over_foreach
def test_step_is_noop_when_params_have_no_grad(options, foreach):
    problem, optimizer = made(options, foreach=foreach)
    before = problem.bits()
    optimizer.step()
    assert problem.bits() == before
    assert len(optimizer.state) == 0


@over_inputs
@over_foreach
def test_step_is_noop_for_zero_grads(options, foreach):
    problem, optimizer = made({**options, "weight_decay": 0}, foreach=foreach)
    before = problem.bits()
    backward(problem.weight, 0.0, problem.bias, 0.0)
    optimizer.step()
    assert problem.bits() == before
    assert [optimizer.state[param]["step"] for param in problem.params] == [1, 1]


@pytest.mark.parametrize("options", [*INPUTS.values(), *CONSTRUCTORS], ids=str)
def test_optimizer_can_be_printed(options):
    _, optimizer = made(options)
    text = repr(optimizer)
    for key, value in options.items():
        assert f"    {key}: {value}\n" in text


@over_inputs
def test_non_empty_state(options):
    problem, optimizer = made(options)
    problem.steps(optimizer, 1)
    expected = {"step", "square_avg"}
    expected |= {"momentum_buffer"} if options.get("momentum") else set()
    expected |= {"grad_avg"} if options.get("centered") else set()
    for param in problem.params:
        assert set(optimizer.state[param]) == expected


# --- errors ---------------------------------------------------------------------------------------

# get_error_inputs_for_all_optims, and what optim_error_inputs_func_rmsprop adds.
ERRORS = {
    "invalid-param-type": (
        lambda p, q: dragon_optim.RMSprop(p),
        TypeError,
        "params argument given to the optimizer should be an iterable of Tensors or dicts",
    ),
    "duplicate-in-a-group": (
        lambda p, q: dragon_optim.RMSprop([p, p]),
        UserWarning,
        ".*a parameter group with duplicate parameters.*",
    ),
    "duplicate-across-groups": (
        lambda p, q: dragon_optim.RMSprop([{"params": p}, {"params": p}]),
        ValueError,
        "some parameters appear in more than one parameter group",
    ),
    "tensor-lr-of-two-elements": (
        lambda p, q: dragon_optim.RMSprop([p], lr=torch.tensor([0.001, 0.001])),
        ValueError,
        "Tensor lr must be 1-element",
    ),
    "some-names": (
        lambda p, q: dragon_optim.RMSprop([("weight", p), q]),
        ValueError,
        "all optimizer params should be with/without names. Some param names are missing",
    ),
    "named-group-after-unnamed": (
        lambda p, q: dragon_optim.RMSprop([{"params": [p], "lr": 1e-2}, {"params": [("weight", q)]}]),
        ValueError,
        (
            "all optimizer param groups should be with/without names. "
            "cannot add param group with names to the optimizer"
        ),
    ),
    "momentum": (
        lambda p, q: dragon_optim.RMSprop([p], lr=1e-2, momentum=-1.0),
        ValueError,
        "Invalid momentum value: -1.0",
    ),
}


@pytest.mark.parametrize("what", ERRORS)
def test_errors(what):
    make, kind, words = ERRORS[what]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(kind, match=words):
            make(parameter([[1.0]]), parameter([[2.0]]))
