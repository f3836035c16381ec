# SPDX-License-Identifier: BSD-2-Clause
"""What PyTorch lacks: Dragon's clipping, TensorFlow's forms, half precision; the edges; what is refused."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from tests import cases, error_units, exact, oracle, refusals
from tests.optim.runs import INSTRUCTION_SETS, Run, backward_gradients, using_instruction_set
from tests.optim.support import feed_gradient, parameter

FORMS = cases.FORM_CASES + cases.FORM_EDGE_CASES
DTYPES = ("float16", "float32", "float64")

# `scale` is a name of the constructor's only.
RANGE_ERRORS = [e for e in refusals.ERROR_CASES if e.exception is ValueError and "scale" not in e.options]

by_dtype = pytest.mark.parametrize("dtype", DTYPES)


@functools.lru_cache(maxsize=None)
def exact_snapshots(case_name, dtype):
    """After each step."""
    (case,) = [case for case in FORMS + cases.TORCH_CASES + cases.TORCH_EDGE_CASES if case.name == case_name]
    return [[f.snapshot() for f in followers] for followers in cases.play(case, dtype, exact.Stepped)]


def assert_is_exact(case, dtype, run):
    for step, (entries, expected) in enumerate(zip(run.steps(), exact_snapshots(case.name, dtype))):
        exact.assert_same_bits(entries, expected, f"step {step}")


def one_step(params, grads, **options):
    """Parameters after one step from lists of numbers; and their optimizer."""
    params = [parameter(values, "float64") for values in params]
    optimizer = dragon_optim.RMSprop(params, **options)
    backward_gradients(params, [np.array(values, "float64") for values in grads])
    optimizer.step()
    return params, optimizer


# --- the tables -----------------------------------------------------------------------------------


@by_dtype
@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("case", FORMS, ids=str)
def test_forms_are_exact(case, isa, dtype):
    with using_instruction_set(isa):
        assert_is_exact(case, dtype, Run(case, dtype))


@by_dtype
@pytest.mark.parametrize("case", FORMS, ids=str)
def test_one_operator_for_each_parameter_is_exact(case, dtype):
    assert_is_exact(case, dtype, Run(case, dtype, foreach=False))


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("case", cases.TORCH_CASES + cases.TORCH_EDGE_CASES, ids=str)
def test_half_precision_is_exact(case, isa):
    """Unlike PyTorch's: arithmetic, states and the weights behind the parameter are float32."""
    with using_instruction_set(isa):
        assert_is_exact(case, "float16", Run(case, "float16"))


@by_dtype
@pytest.mark.parametrize("case", cases.FORM_CASES, ids=str)
def test_forms_agree_with_the_textbook(case, dtype):
    *_, textbook = cases.play(case, dtype, oracle.Trajectory)
    actual = Run(case, dtype, backward_gradients).last()
    for entry in actual:
        entry["param"] = entry.get("master_param", entry["param"])
    expected = [
        {name: array for name, array in trajectory.snapshot().items() if name in entry}
        for trajectory, entry in zip(textbook, actual)
    ]
    assert error_units.largest(case, dtype, actual, expected) <= error_units.LIMIT


CHANGES = [
    ("lr", 0.02, {}),
    ("alpha", 0.5, {}),
    ("eps", 0.5, {}),
    ("weight_decay", 0.1, {}),
    ("momentum", 0.5, {}),
    ("centered", True, {}),
    ("maximize", True, {}),
    ("grad_scale", 0.1, dict(eps=0.1)),
    ("scale", 0.1, dict(eps=0.1)),
    ("clip_norm", 0.5, {}),
    ("clip_value", 0.05, {}),
    ("lr_in_momentum", True, dict(momentum=0.5)),
    ("eps_inside_sqrt", True, dict(eps=0.1)),
    ("decoupled_weight_decay", True, dict(weight_decay=0.1)),
    ("initial_square_avg", 1.0, {}),
]


@pytest.mark.parametrize(("name", "value", "others"), CHANGES, ids=[change[0] for change in CHANGES])
def test_no_argument_is_ignored(name, value, others):
    case = cases.Case("", {}, {}, {8: {"eps": 1e-3}}, "gentle", ((17,),), steps=12)

    def final(**options):
        return Run(case, "float32", **dict(others, **options)).last()[0]["param"]

    changed = final(**{name: value})
    # One element may meet a clip that leaves it alone; most must move.
    assert np.mean(changed != final()) > 0.5


# --- results that can be checked by hand ----------------------------------------------------------


def test_eps_stands_outside_the_root_unless_asked():
    (outside,), _ = one_step([[0.0]], [[1.0]], lr=1, alpha=0.75, eps=1.0)
    (inside,), _ = one_step([[0.0]], [[1.0]], lr=1, alpha=0.75, eps=0.75, eps_inside_sqrt=True)
    assert outside.numpy() == pytest.approx([-1 / 1.5])
    assert inside.numpy() == pytest.approx([-1.0])


def test_tensorflow_starts_the_mean_square_at_one():
    (param,), optimizer = one_step([[0.0]], [[1.0]], alpha=0.9, initial_square_avg=1.0)
    assert optimizer.state[param]["square_avg"].numpy() == pytest.approx([1.0])


def test_maximize_turns_the_gradient_before_the_decay():
    (param,), optimizer = one_step([[1.0]], [[1.0]], weight_decay=0.5, maximize=True)
    assert optimizer.state[param]["square_avg"].numpy() == pytest.approx([0.0025])


def test_decoupled_decay_comes_before_the_update_and_stays_out_of_the_mean_square():
    (param,), optimizer = one_step(
        [[2.0]], [[1.0]], lr=0.5, alpha=0.75, eps=0.5, weight_decay=0.5, decoupled_weight_decay=True
    )
    assert param.numpy() == pytest.approx([2.0 * 0.75 - 0.5])
    assert optimizer.state[param]["square_avg"].numpy() == pytest.approx([0.25])


def test_float64_options_are_not_rounded_to_float32():
    (param,), _ = one_step([0.0], [1.0], lr=0.1, alpha=0.99)
    assert param.numpy() == pytest.approx(-0.1 / (0.1 + 1e-8), rel=1e-14)


def test_clip_norm_takes_each_tensor_on_its_own():
    options = dict(alpha=0.0, eps=1.0, lr=1.0)
    (first, second), _ = one_step([[0.0, 0.0], [0.0]], [[3.0, 4.0], [0.5]], clip_norm=1.0, **options)
    assert first.numpy() == pytest.approx([-0.6 / 1.6, -0.8 / 1.8])
    assert second.numpy() == pytest.approx([-0.5 / 1.5])


def test_clip_norm_wins_over_clip_value_and_says_so():
    options = dict(alpha=0.0, eps=1.0, lr=1.0)
    with pytest.warns(UserWarning, match="clip_value"):
        (both,), _ = one_step([[0.0]], [[3.0]], clip_norm=10.0, clip_value=0.1, **options)
    assert both.numpy() == pytest.approx([-0.75])


def test_gradients_are_only_read():
    (param,), optimizer = one_step(
        [[1.0]], [[4.0]], grad_scale=0.5, clip_norm=0.1, maximize=True, weight_decay=0.1
    )
    optimizer.step()
    assert param.grad.numpy().tolist() == [4.0]


@pytest.mark.parametrize(("alpha", "value", "step"), [(0.9, 1.21, 137), (0.95, 2.575, 267)])
def test_a_constant_gradient_makes_centered_nan_as_in_pytorch(alpha, value, step):
    """The variance rounds below zero, in the very step in which PyTorch's does."""
    param = parameter(np.zeros(1))
    optimizer = dragon_optim.RMSprop([param], alpha=alpha, centered=True)
    feed_gradient(param, np.full(1, value, "float32"))
    for _ in range(step - 1):
        optimizer.step()
    assert np.isfinite(param.numpy()).all()
    optimizer.step()
    assert np.isnan(param.numpy()).all()


def test_half_precision_does_not_lose_eps_or_small_steps():
    param = parameter(np.ones(1), "float16")
    optimizer = dragon_optim.RMSprop([param], lr=1e-4, alpha=0.9)
    for _ in range(20):
        feed_gradient(param, np.full(1, 1e-4, "float16"))
        optimizer.step()
    follower = oracle.Trajectory([1.0])
    for _ in range(20):
        follower.advance([np.float16(1e-4)], lr=1e-4, alpha=0.9)
    assert optimizer.state[param]["master_param"].numpy() == pytest.approx(follower.parameter, rel=1e-6)
    assert param.numpy() == follower.parameter.astype("float16")


def test_an_overwritten_half_precision_parameter_is_believed():
    param = parameter(np.ones(3), "float16")
    optimizer = dragon_optim.RMSprop([param], lr=1e-4)
    feed_gradient(param, np.ones(3, "float16"))
    optimizer.step()
    before = np.array(optimizer.state[param]["master_param"].numpy())
    values = np.array(param.numpy())
    values[1] = 100
    param._impl.FromNumpy(values, True)
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    assert optimizer.state[param]["master_param"].numpy().tolist() == [before[0], 100.0, before[2]]
    assert param.numpy()[1] == 100


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("error", refusals.ERROR_CASES, ids=str)
def test_refused_by_the_constructor(error):
    with pytest.raises(error.exception, match=error.match):
        dragon_optim.RMSprop([parameter(np.zeros(2))], **error.options)


@pytest.mark.parametrize("error", RANGE_ERRORS, ids=str)
def test_refused_by_a_group(error):
    group = dict(error.options, params=[parameter(np.zeros(2))])
    optimizer = dragon_optim.RMSprop([parameter(np.zeros(2))])
    with pytest.raises(error.exception, match=error.match):
        optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("error", RANGE_ERRORS, ids=str)
def test_refused_at_the_next_step_and_nothing_changed(error):
    param = parameter(np.ones(2))
    optimizer = dragon_optim.RMSprop([param])
    feed_gradient(param, np.ones(2, "float32"))
    optimizer.param_groups[0].update(error.options)
    with pytest.raises(error.exception, match=error.match):
        optimizer.step()
    assert param.numpy().tolist() == [1.0, 1.0]
    assert not optimizer.state.get(param)


def test_arguments_after_centered_are_keywords():
    """PyTorch and Dragon disagree on what the eighth one is."""
    with pytest.raises(TypeError):
        dragon_optim.RMSprop([torch.nn.Parameter(torch.zeros(2))], 0.01, 0.99, 1e-8, 0, 0, False, True)
