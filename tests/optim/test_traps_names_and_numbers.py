# SPDX-License-Identifier: BSD-2-Clause
# ruff: noqa: N802  the traps are numbered with capital letters
"""The traps of Dragon 0.3.0, continued: C (names, workspaces, threads), D (the semantics of stock)."""

from __future__ import annotations

import numpy as np
import pytest
from dragon.core.framework import workspace
from dragon.vm import torch

import dragon_optim
from dragon_optim._dragon import names
from tests import exact, oracle
from tests.optim.support import backward, feed_gradient, in_thread, parameter, snapshot, values

# --- C: names, workspaces, threads ----------------------------------------------------------------


def test_C1_a_new_parameter_inherits_nothing():
    p = parameter([1.0])
    optimizer = dragon_optim.RMSprop([p], lr=1.0, alpha=0.5, momentum=0.9, centered=True)
    for _ in range(3):
        backward(p, 2.0)
        optimizer.step()
    del p, optimizer
    p, twin = parameter([1.0]), parameter([1.0])
    optimizer = dragon_optim.RMSprop([p], lr=1.0, alpha=0.5, momentum=0.9, centered=True)
    assert p.grad is None
    assert len(optimizer.state) == 0
    backward(p, 2.0)
    optimizer.step()
    expected, _ = exact.step(
        dict(lr=1.0, alpha=0.5, momentum=0.9, centered=True), values(twin), np.full(1, 2.0, "float32"), {}
    )
    assert values(p).tobytes() == expected.tobytes()


def test_C1_an_optimizer_keeps_its_parameters_alive():
    """Their names could not be given to others while there is state for them."""
    p = parameter([1.0])
    name = p.id
    optimizer = dragon_optim.RMSprop([p])
    del p
    assert all(parameter([5.0]).id != name for _ in range(5))
    assert optimizer.param_groups[0]["params"][0].numpy().tolist() == [1.0]


def test_C2_names_of_dead_optimizers_are_used_again():
    def train():
        p = parameter([1.0])
        optimizer = dragon_optim.RMSprop([p], momentum=0.9, centered=True)
        backward(p, 1.0)
        optimizer.sum_grad()
        optimizer.step()

    train()
    pool = names.tensor_pool(workspace.get_workspace())
    made = pool.made
    for _ in range(10):
        train()
    assert pool.made == made


def test_C3_workspaces_with_equal_names_are_kept_apart():
    """Ids are unique in a workspace only."""
    worlds = []
    for lr in (0.5, 0.25):
        home = workspace.Workspace()
        with home.as_default():
            p = parameter([0.0])
            worlds.append((home, p, dragon_optim.RMSprop([p], lr=lr, alpha=0.0, eps=0.0)))
    assert worlds[0][1].id == worlds[1][1].id
    for _ in range(2):
        for home, p, optimizer in worlds:
            with home.as_default():
                backward(p, 1.0)
                optimizer.sum_grad()
                optimizer.step()
    assert [values(p).tolist() for _, p, _ in worlds] == [[-1.0], [-0.5]]
    assert [len(optimizer.state) for _, _, optimizer in worlds] == [1, 1]


def test_C4_whole_trainings_in_threads():
    """Every thread has its own default workspace."""

    def train():
        p = parameter([0.0])
        optimizer = dragon_optim.RMSprop([p], lr=0.5, alpha=0.0, eps=0.0)
        for _ in range(4):
            backward(p, 1.0)
            optimizer.step()
        return values(p).tolist()

    assert [in_thread(train), train(), in_thread(train)] == [[-2.0]] * 3


def test_C6_weights_loaded_in_place_are_seen():
    model = torch.nn.Linear(2, 2)
    optimizer = dragon_optim.RMSprop(model.parameters(), lr=0.5, alpha=0.0, eps=0.0)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    new = {name: np.full(tuple(p.shape), 8.0, "float32") for name, p in model.named_parameters()}
    model.load_state_dict(new)
    optimizer.step()
    assert {float(x) for p in model.parameters() for x in values(p).reshape(-1)} == {7.5}
    assert {optimizer.state[p]["step"] for p in model.parameters()} == {2}


def test_C6_converted_before_the_first_step():
    """`.half()` and `.double()` keep the object; the dtype counts when the first gradient comes."""
    model = torch.nn.Linear(2, 2)
    optimizer = dragon_optim.RMSprop(model.parameters())
    model.double()
    for p in model.parameters():
        backward(p, 1.0)
    optimizer.step()
    assert {optimizer.state[p]["square_avg"].dtype for p in model.parameters()} == {"float64"}


# --- D: the semantics of the stock RMSprop --------------------------------------------------------


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
