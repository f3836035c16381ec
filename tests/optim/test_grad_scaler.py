# SPDX-License-Identifier: BSD-2-Clause
"""`GradScaler` by itself: arguments, how the scale grows and falls, the order of calls, when it is off."""

from __future__ import annotations

import inspect
import math
import warnings

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim._dragon import library
from tests.optim.scalers import BAD, make, scaler_of, settings, used
from tests.optim.support import backward, snapshot, values

TINY = float(np.finfo("float32").tiny)
LARGEST = float(np.finfo("float32").max)


def iteration(scaler, bad=False, **new_scale):
    """A step and update() over a gradient that is finite, or not."""
    optimizer, p = make()
    backward(p, math.nan if bad else 1.0)
    scaler.step(optimizer)
    scaler.update(**new_scale)
    return scaler.get_scale(), scaler._get_growth_tracker()


# --- arguments ----------------------------------------------------------------------------------------------


def test_arguments_and_defaults_are_pytorchs():
    found = inspect.signature(dragon_optim.GradScaler).parameters.values()
    assert [(each.name, each.default) for each in found] == [
        ("device", "cuda"),
        ("init_scale", 65536.0),
        ("growth_factor", 2.0),
        ("backoff_factor", 0.5),
        ("growth_interval", 2000),
        ("enabled", True),
    ]
    assert {each.kind for each in found} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}


@pytest.mark.skipif("cuda" in library.devices(), reason="this Dragon has CUDA")
def test_without_cuda_the_default_is_disabled():
    with pytest.warns(UserWarning, match="is enabled, but CUDA is not available.  Disabling.") as caught:
        scaler = dragon_optim.GradScaler()
    assert caught[0].filename == __file__
    assert not scaler.is_enabled()
    assert (scaler.get_scale(), scaler.state_dict()) == (1.0, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not dragon_optim.GradScaler(enabled=False).is_enabled()
        assert dragon_optim.GradScaler("cpu").is_enabled()


def test_every_argument_counts():
    scaler = dragon_optim.GradScaler("cpu", 5.0, 3.0, 0.25, 2, True)
    assert scaler.get_scale() == 5
    assert scaler.get_growth_factor() == 3
    assert scaler.get_backoff_factor() == 0.25
    assert scaler.get_growth_interval() == 2
    assert scaler.is_enabled()
    scaler.scale(torch.ones(1))
    assert [iteration(scaler)[0], iteration(scaler)[0], iteration(scaler, bad=True)[0]] == [5, 15, 3.75]


def test_numbers_as_arrays_and_tensors():
    """What they hold at the time counts, not what is written to them later."""
    number = np.array(3.0)
    scaler = dragon_optim.GradScaler(
        "cpu", init_scale=torch.tensor(16.0), growth_factor=number, growth_interval=1
    )
    number[...] = 100.0
    scaler.scale(torch.ones(1))
    assert iteration(scaler) == (48, 0)
    assert scaler.state_dict() == {
        "scale": 48.0,
        "growth_factor": 3.0,
        "backoff_factor": 0.5,
        "growth_interval": 1,
        "_growth_tracker": 0,
    }
    assert [type(each) for each in scaler.state_dict().values()] == [float, float, float, int, int]


# --- how the scale grows and falls --------------------------------------------------------------------------


def test_growth_needs_good_iterations_in_a_row():
    scaler = scaler_of(growth_interval=3)
    pattern = [False, False, True, False, False, False, False, True, True]
    assert [iteration(scaler, bad) for bad in pattern] == [
        (8, 1),
        (8, 2),
        (4, 0),
        (4, 1),
        (4, 2),
        (8, 0),
        (8, 1),
        (4, 0),
        (2, 0),
    ]


def test_an_interval_that_falls_below_the_tracker():
    """PyTorch, which asks for equality, would never grow again."""
    scaler = scaler_of(growth_interval=10)
    for _ in range(4):
        iteration(scaler)
    scaler.set_growth_interval(2)
    assert iteration(scaler) == (16, 0)


@pytest.mark.parametrize("factor", [0.5, 1e-30, 0.3])
def test_the_scale_does_not_fall_to_nothing(factor):
    """PyTorch's becomes 0, and every gradient NaN."""
    scaler = scaler_of(4 * TINY, backoff_factor=factor)
    found = [iteration(scaler, bad=True)[0] for _ in range(4)]
    assert found[-1] == TINY
    assert found == sorted(found, reverse=True)
    optimizer, p = make()
    backward(p, TINY)
    assert used(scaler, optimizer, p) == 1.0
    scaler.update()
    scaler.set_growth_interval(1)
    assert iteration(scaler) == (2 * TINY, 0)


def test_the_scale_does_not_grow_to_infinity():
    scaler = scaler_of(LARGEST, growth_interval=2)
    assert [iteration(scaler) for _ in range(3)] == [(LARGEST, 1), (LARGEST, 0), (LARGEST, 1)]
    assert iteration(scaler, bad=True) == (LARGEST / 2, 0)


def test_a_new_scale():
    """It counts from the next iteration on, ends this one, and leaves the tracker alone."""
    scaler = scaler_of(growth_interval=3)
    iteration(scaler)
    assert iteration(scaler, bad=True, new_scale=100.0) == (100, 1)
    for given, expected in ((3, 3), (np.float32(2.5), 2.5), (torch.tensor(0.1), float(np.float32(0.1)))):
        scaler.update(given)  # no step is needed before
        assert (scaler.get_scale(), scaler._get_growth_tracker()) == (expected, 1)
    given = torch.tensor(6.0)
    scaler.update(new_scale=given)
    given.fill_(1000.0)
    assert iteration(scaler) == (6, 2)
    scaler.update(2.0)
    optimizer, p = make()
    backward(p, 6.0)
    assert used(scaler, optimizer, p) == 3.0


def test_scales_are_float32():
    scaler = scaler_of(0.1)
    assert scaler.get_scale() == float(np.float32(0.1))
    scaler.update(1 / 3)
    assert scaler.get_scale() == float(np.float32(1 / 3))
    assert scaler.state_dict()["scale"] == float(np.float32(1 / 3))


def test_setters():
    scaler = scaler_of()
    scaler.set_growth_factor(4.0)
    scaler.set_backoff_factor(0.125)
    scaler.set_growth_interval(1)
    assert (scaler.get_growth_factor(), scaler.get_backoff_factor(), scaler.get_growth_interval()) == (
        4,
        0.125,
        1,
    )
    assert [iteration(scaler)[0], iteration(scaler, bad=True)[0]] == [32, 4]
    assert scaler.state_dict()["growth_factor"] == 4


# --- the order of calls -------------------------------------------------------------------------------------


def test_nothing_before_a_scale():
    scaler = dragon_optim.GradScaler("cpu", init_scale=8.0)
    optimizer, p = make()
    backward(p, 8.0)
    before = snapshot(optimizer, p)
    for name, call in {
        "step": lambda: scaler.step(optimizer),
        "unscale_": lambda: scaler.unscale_(optimizer),
        "update": scaler.update,
    }.items():
        with pytest.raises(
            AssertionError,
            match=f"Attempted {name} but _scale is None.  This may indicate your script did not use",
        ):
            call()
    assert snapshot(optimizer, p) == before
    assert (scaler.get_scale(), scaler._get_growth_tracker()) == (8, 0)
    scaler.scale(torch.ones(1))
    assert used(scaler, optimizer, p) == 1.0


def test_no_update_without_a_step():
    scaler = scaler_of(growth_interval=1)
    for _ in range(2):
        with pytest.raises(AssertionError, match="No inf checks were recorded prior to update."):
            scaler.update()
        assert iteration(scaler)[1] == 0
    assert scaler.get_scale() == 32


def test_an_unscale_is_enough_for_an_update():
    """Its gradients were looked at; the step may have been left out by the script itself."""
    scaler = scaler_of()
    optimizer, p = make()
    backward(p, math.inf)
    scaler.unscale_(optimizer)
    scaler.update()
    assert scaler.get_scale() == 4


@pytest.mark.parametrize("bad", [False, True])
def test_twice_in_an_iteration(bad):
    scaler = scaler_of()
    optimizer, p = make()
    for _ in range(2):
        backward(p, math.inf if bad else scaler.get_scale())
        scaler.unscale_(optimizer)
        with pytest.raises(
            RuntimeError,
            match=r"unscale_\(\) has already been called on this optimizer since the last update",
        ):
            scaler.unscale_(optimizer)
        assert used(scaler, optimizer, p) == (None if bad else 1.0)
        before = snapshot(optimizer, p)
        with pytest.raises(RuntimeError, match=r"step\(\) has already been called since the last update"):
            scaler.step(optimizer)
        with pytest.raises(RuntimeError, match=r"unscale_\(\) is being called after step\(\)"):
            scaler.unscale_(optimizer)
        assert snapshot(optimizer, p) == before
        assert scaler.step_was_skipped(optimizer) is bad
        scaler.update()


def test_a_new_scale_ends_the_iteration_too():
    scaler = scaler_of()
    optimizer, p = make()
    for _ in range(3):
        backward(p, scaler.get_scale())
        scaler.unscale_(optimizer)
        assert used(scaler, optimizer, p) == 1.0
        scaler.update(scaler.get_scale() + 1)


# --- disabled -----------------------------------------------------------------------------------------------


def test_disabled():
    """step() is the optimizer's, with all that it takes; nothing else does anything."""
    scaler = dragon_optim.GradScaler("cpu", enabled=False)
    optimizer, p = make()
    backward(p, 3.0)
    anything = object()
    assert scaler.scale(anything) is anything
    for _ in range(2):
        assert scaler.unscale_(optimizer) is None
        assert scaler.update() is None
        scaler.update(5.0)
    assert values(p.grad).tolist() == [3, 3]
    assert scaler.step(optimizer, lambda: "loss") == "loss"
    assert scaler.step(optimizer, closure=lambda: "loss") == "loss"
    assert optimizer.state[p]["step"] == 2
    backward(p, math.inf)
    scaler.step(optimizer)
    assert not np.isfinite(values(p)).any()
    assert scaler.step_was_skipped(optimizer) is False
    assert (scaler.get_scale(), scaler._get_growth_tracker(), scaler.is_enabled()) == (1.0, 0, False)
    assert scaler.state_dict() == {}
    scaler.load_state_dict(scaler_of().state_dict())
    scaler.load_state_dict({})
    assert scaler.get_scale() == 1.0


# --- state dicts --------------------------------------------------------------------------------------------


def test_loading_before_and_after_the_first_scale():
    state = {
        "scale": 12.5,
        "growth_factor": 3.0,
        "backoff_factor": 0.5,
        "growth_interval": 4,
        "_growth_tracker": 3,
    }
    for scaler in (dragon_optim.GradScaler("cpu"), scaler_of()):
        scaler.load_state_dict(dict(state, more="kept by nobody"))
        assert scaler.state_dict() == state
        scaler.scale(torch.ones(1))
        assert iteration(scaler) == (37.5, 0)
    assert state["scale"] == 12.5


def test_loading_what_a_disabled_scaler_saved():
    scaler = scaler_of()
    before = settings(scaler)
    with pytest.raises(
        RuntimeError, match="The source state dict is empty, possibly because it was saved from a disabled"
    ):
        scaler.load_state_dict({})
    assert settings(scaler) == before


def test_a_state_dict_is_a_copy():
    scaler = scaler_of(growth_interval=1)
    state = scaler.state_dict()
    iteration(scaler)
    assert state["scale"] == 8
    state["scale"] = 1.0
    assert scaler.get_scale() == 16


@pytest.mark.parametrize("bad", BAD)
def test_what_counts_as_bad(bad):
    """One element among many, of one parameter among many."""
    scaler = scaler_of()
    optimizer, *params = make(5)
    for number, param in enumerate(params):
        backward(param, [bad, 1.0] if number == 3 else 1.0)
    scaler.step(optimizer)
    assert scaler.step_was_skipped(optimizer) is True
    scaler.update()
    assert scaler.get_scale() == 4
