# SPDX-License-Identifier: BSD-2-Clause
# ruff: noqa: N802  the traps are numbered with capital letters
"""The traps in what the stock RMSprop of Dragon 0.3.0 does: D in `docs/traps.rst`."""

from __future__ import annotations

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from tests import oracle
from tests.optim.elsewhere import run_script
from tests.optim.support import backward, feed_gradient, parameter, snapshot, values


@pytest.mark.parametrize(
    "options", [dict(), dict(momentum=0.9), dict(momentum=0.9, weight_decay=0.1, clip_norm=1.0)]
)
def test_D1_the_formula_is_stock_dragons(options):
    """Within float32: the same script gives the same training."""
    ours, theirs = parameter([1.0, -2.0, 3.0]), parameter([1.0, -2.0, 3.0])
    mine = dragon_optim.RMSprop([ours], lr=0.1, alpha=0.9, **options)
    stock = torch.optim.RMSprop([theirs], lr=0.1, alpha=0.9, **options)
    for step in range(5):
        grad = np.array([0.5, -1.5, 2.0]) * (step + 1)
        backward(ours, grad, theirs, grad)
        mine.step()
        stock.step()
    assert values(ours) == pytest.approx(values(theirs), rel=3e-6, abs=1e-6)


def test_D2_hyper_parameters_are_not_rounded_to_float32():
    p = parameter([0.0], "float64")
    optimizer = dragon_optim.RMSprop([p], lr=0.1)
    backward(p, 1.0)
    optimizer.step()
    trajectory = oracle.Trajectory([0.0])
    trajectory.advance([1.0], lr=0.1)
    assert values(p) == pytest.approx(trajectory.parameter, rel=1e-15)


def test_D3_no_buffer_that_is_not_needed():
    p = parameter([0.0])
    optimizer = dragon_optim.RMSprop([p])
    backward(p, 1.0)
    optimizer.step()
    assert list(optimizer.state[p]) == ["step", "square_avg"]


def test_D3_centered_is_not_ignored():
    moved = []
    for centered in (False, True):
        p = parameter([0.0])
        optimizer = dragon_optim.RMSprop([p], centered=centered)
        backward(p, 1.0)
        optimizer.step()
        moved.append(float(p.numpy()))
    assert moved[0] != moved[1]


@pytest.mark.parametrize(
    ("key", "value", "exception"),
    [
        ("weight_decay", -0.1, ValueError),
        ("lr", -1, ValueError),
        ("lr", None, TypeError),
        ("alpha", None, TypeError),
    ],
)
def test_D3_what_stock_ignores_or_takes_for_nan_raises(key, value, exception):
    p = parameter([1.0])
    optimizer = dragon_optim.RMSprop([p])
    backward(p, 1.0)
    optimizer.param_groups[0][key] = value
    with pytest.raises(exception):
        optimizer.step()
    assert values(p).tolist() == [1.0]


@pytest.mark.parametrize(
    "options", [dict(grad_scale=0.5), dict(clip_norm=1.0), dict(clip_value=0.5), dict(maximize=True)]
)
def test_D4_gradients_are_not_modified(options):
    """Stock scales and clips in place: a second step from the same gradient would scale it again."""
    p = parameter([1.0, 2.0, 3.0])
    optimizer = dragon_optim.RMSprop([p], weight_decay=0.1, **options)
    backward(p, [3.0, 4.0, 0.0])
    for _ in range(2):
        optimizer.step()
        assert p.grad.numpy().tolist() == [3.0, 4.0, 0.0]


def test_D5_a_gradient_of_another_dtype_does_not_retype_the_parameter():
    p = parameter([1.0])
    optimizer = dragon_optim.RMSprop([p])
    feed_gradient(p, np.ones(1, "float64"))
    before = snapshot(optimizer, p)
    with pytest.raises(ValueError, match=r"is float64 of shape \(1,\), but the parameter is float32"):
        optimizer.step()
    assert snapshot(optimizer, p) == before


def test_D6_loaded_half_precision_weights_are_believed():
    p = parameter([1.0, 2.0], "float16")
    optimizer = dragon_optim.RMSprop([p], lr=1.0, alpha=0.0, eps=0.0)
    feed_gradient(p, np.ones(2, "float16"))
    optimizer.step()
    p.copy_(torch.tensor(np.array([100.0, 200.0], "float16"), dtype="float16"))
    optimizer.step()
    assert values(p).tolist() == [99.0, 199.0]


@pytest.mark.parametrize("foreach", [None, False])
@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3), (1, 0, 2)])
def test_D7_parameters_without_elements(shape, foreach):
    """Dragon counts 2 elements for the shape (2, 0): stock runs its kernel over memory that is not there."""
    params = [parameter(np.zeros(shape)), parameter([1.0]), parameter(1.0), parameter(np.zeros(shape))]
    optimizer = dragon_optim.RMSprop(
        params, lr=0.5, alpha=0.0, eps=0.0, momentum=0.5, centered=False, foreach=foreach
    )
    for param in params:
        feed_gradient(param, np.ones(tuple(param.shape), "float32"))
    optimizer.sum_grad()
    optimizer.step()
    optimizer.step()
    assert [float(values(param).sum()) for param in params] == [0.0, -0.25, -0.25, 0.0]
    assert [tuple(optimizer.state[param]["square_avg"].shape) for param in params] == [shape, (1,), (), shape]
    assert [optimizer.state[param]["step"] for param in params] == [2] * 4


def test_D8_a_device_without_operators_is_refused_before_dragon_ends_the_process():
    p = parameter([1.0])
    p._device = torch.device("cuda", 0)
    with pytest.raises(RuntimeError, match="cuda:0, for which this dragon_optim was not built"):
        dragon_optim.RMSprop([p])


BIAS_GRADIENTS = """
from dragon.vm import torch

for dtype, rows in ("float64", 8), ("float32", 4):
    layer = torch.nn.Linear(2, 1)
    layer = layer.double() if dtype == "float64" else layer
    layer(torch.ones(rows, 2, dtype=dtype)).sum().backward()
    print(float(layer.bias.grad))
"""


def test_D10_ones_have_one_dtype():
    """Dragon's own: this shows that it is there. It should be 8 and 4."""
    done = run_script(BIAS_GRADIENTS)
    assert done.stdout.split() == ["8.0", "3.75"], done.stderr
