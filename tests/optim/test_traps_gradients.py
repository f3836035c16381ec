# SPDX-License-Identifier: BSD-2-Clause
# ruff: noqa: N802  the traps are numbered with capital letters
"""The traps of Dragon 0.3.0 about gradients: B in `docs/traps.rst`."""

from __future__ import annotations

import numpy as np
import pytest
from dragon.core.framework import config, workspace
from dragon.vm import torch

import dragon_optim
from tests.optim.support import backward, feed_gradient, fresh_workspace, parameter, values


def test_B1_grad_is_none_or_has_data():
    with fresh_workspace():
        p = parameter([1.0])
        optimizer = dragon_optim.RMSprop([p])
        assert p.grad is None
        optimizer.step(), optimizer.sum_grad(), optimizer.zero_grad()
        assert (
            workspace.get_workspace().get_tensor(p.id + "_grad") is None
        )  # an empty one ends stock's zero_grad()
        backward(p, 3.0)
        assert p.grad.numpy().tolist() == [3.0]
        with pytest.raises(AttributeError):
            p.grad = None
        optimizer.zero_grad(set_to_none=True)
        assert p.grad is None
        with pytest.raises(AttributeError):
            p.grad = torch.ones(1)


def test_B2_backward_overwrites_and_sum_grad_adds():
    p = parameter([0.0])
    optimizer = dragon_optim.RMSprop([p])
    for grad in (1.0, 2.0):
        backward(p, grad)
        optimizer.sum_grad()
    assert p.grad.numpy().tolist() == [2.0]
    optimizer.step()
    assert optimizer.state[p]["square_avg"].numpy() == pytest.approx([0.01 * 9])


def test_B3_a_stale_gradient_is_not_summed():
    p, q = parameter([0.0]), parameter([0.0])
    optimizer = dragon_optim.RMSprop([p, q])
    backward(p, 1.0, q, 1.0)
    optimizer.sum_grad()
    optimizer.step()
    kept = values(q)
    for _ in range(3):
        backward(p, 1.0)
        optimizer.sum_grad()
        optimizer.step()
    assert values(q).tolist() == kept.tolist()
    assert q.grad is not None


def test_B4_nothing_after_zero_grad_to_none_ends_the_process():
    p, q = parameter([0.0]), parameter([0.0])
    optimizer = dragon_optim.RMSprop([p, q])
    backward(p, 1.0, q, 1.0)
    optimizer.zero_grad(True)
    optimizer.zero_grad(False)
    backward(p, 1.0)
    optimizer.sum_grad()
    optimizer.step()
    assert [optimizer.state[each].get("step", 0) for each in (p, q)] == [1, 0]


def test_B6_an_error_in_the_second_group_sums_nothing_in_the_first():
    p, q = parameter([0.0]), parameter([0.0])
    optimizer = dragon_optim.RMSprop([{"params": [p]}, {"params": [q]}])
    backward(p, 1.0, q, 1.0)
    feed_gradient(q, np.ones(2, "float32"))
    with pytest.raises(ValueError, match="nothing was summed"):
        optimizer.sum_grad()
    backward(p, 4.0, q, 4.0)
    optimizer.sum_grad()
    optimizer.step()
    assert optimizer.state[p]["square_avg"].numpy() == pytest.approx([0.16])


def test_B6_a_group_without_gradients_is_no_error():
    p, q = parameter([0.0]), parameter([0.0])
    optimizer = dragon_optim.RMSprop([{"params": [q]}, {"params": [p]}])
    backward(p, 1.0)
    optimizer.sum_grad()
    optimizer.step()
    assert p in optimizer.state


def test_B7_only_the_leaves_of_a_pass_are_fresh():
    model, head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    unused = torch.nn.Linear(2, 2)
    layers = (model, head, unused)
    optimizer = dragon_optim.RMSprop([p for layer in layers for p in layer.parameters()])
    head(model(torch.ones(1, 2))).sum().backward()
    optimizer.sum_grad()
    optimizer.step()
    assert [layer.weight in optimizer.state for layer in layers] == [True, True, False]


def test_B8_two_parameters_over_one_tensor_are_one():
    p = parameter([0.0])
    twin = torch.nn.Parameter(p)
    with pytest.warns(UserWarning, match="duplicate parameters"):
        dragon_optim.RMSprop([p, twin])
    with pytest.raises(ValueError, match="more than one parameter group"):
        dragon_optim.RMSprop([{"params": [p]}, {"params": [twin]}])


def test_B9_parameters_of_equal_values_are_not_the_same():
    """`==` between tensors is element-wise and always true: `in` and index() find anything."""
    params = [parameter([1.0]) for _ in range(3)]
    optimizer = dragon_optim.RMSprop(params[:2], lr=0.5, alpha=0.0, eps=0.0)
    assert params[2] not in optimizer.state
    backward(params[0], 1.0, params[1], 1.0, params[2], 1.0)
    optimizer.step()
    optimizer.param_groups[0]["params"] = params[1:]
    optimizer.step()
    assert [float(p.numpy()) for p in params] == [0.5, 0.0, 0.5]
    assert params[2] in optimizer.state


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_B11_every_level_of_graph_optimization(level):
    former = config.config().graph_optimization
    config.config().graph_optimization = level
    try:
        p = parameter([0.0])
        optimizer = dragon_optim.RMSprop([p], lr=0.5, alpha=0.0, eps=0.0)
        for _ in range(2):
            backward(p, 1.0)
            optimizer.sum_grad()
            optimizer.step()
        assert values(p).tolist() == [-1.0]
    finally:
        config.config().graph_optimization = former
