# SPDX-License-Identifier: BSD-2-Clause
"""What `GradScaler` refuses, PyTorch's words first, then the value and what is needed. Nothing changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dragon.vm import torch
from dragon.vm.torch.core.cpp import device as Device

import dragon_optim
from tests.optim.scalers import make, scaler_of, settings, used
from tests.optim.support import backward, feed_gradient, parameter, snapshot

GROWTH, BACKOFF = "The growth factor must be > 1.0.", "The backoff factor must be < 1.0"

# Argument -> (exception, its words, values).
REFUSED = [
    (
        "growth_factor",
        AssertionError,
        GROWTH,
        [1.0, 1, 0.5, 0, -2.0, math.nan, math.inf, -math.inf, False, True],
    ),
    (
        "growth_factor",
        TypeError,
        "growth_factor must be a number",
        ["2", None, b"2", [2.0], 2 + 1j, object],
    ),
    ("growth_factor", ValueError, "1-element", [np.ones(2), np.zeros(0)]),
    ("growth_factor", OverflowError, "growth_factor is too large", [10**400]),
    ("backoff_factor", AssertionError, BACKOFF, [1.0, 2, 0.0, -0.5, math.nan, math.inf, -math.inf, True]),
    ("backoff_factor", TypeError, "backoff_factor must be a number", ["0.5", None, {}, (0.5,)]),
    ("growth_interval", ValueError, "Invalid growth_interval", [0, -1, 2.5, math.nan, math.inf, False]),
    ("growth_interval", TypeError, "growth_interval must be a number", ["3", None, [3]]),
    ("init_scale", ValueError, "Invalid init_scale", [0, 0.0, -1.0, math.nan, math.inf, -math.inf]),
    # Finite and above 0 as they are, but not as float32; and below its normal numbers.
    ("init_scale", ValueError, "Invalid init_scale", [1e39, 3.5e38, 1e-46, 1e-39, 1.17e-38]),
    ("init_scale", TypeError, "init_scale must be a number", ["8", None, [8.0], 8j]),
    ("init_scale", ValueError, "1-element", [np.ones(3)]),
    ("device", ValueError, "Invalid device", ["mps", "gpu", "", "CPU", "cpux"]),
    ("device", TypeError, "device must be 'cuda' or 'cpu'", [None, 65536.0, 2, True, b"cpu", ["cpu"]]),
    ("enabled", (TypeError, ValueError), "enabled", ["yes", None, math.nan, "", np.ones(2)]),
]
VALUES = [
    pytest.param(name, error, words, value, id=f"{name}={value!r:.30}")
    for name, error, words, some in REFUSED
    for value in some
]


@pytest.mark.parametrize(("name", "error", "words", "value"), VALUES)
def test_arguments(name, error, words, value):
    with pytest.raises(error, match=words) as caught:
        dragon_optim.GradScaler(**dict({"device": "cpu"}, **{name: value}))
    if error is ValueError and words.startswith("Invalid"):
        assert "need" in str(caught.value)


def test_older_pytorchs_first_argument():
    """It was init_scale until PyTorch 2.3."""
    with pytest.raises(TypeError, match="65536.0 of type .*float: give init_scale by its name"):
        dragon_optim.GradScaler(65536.0)


def test_devices_that_are_taken():
    for device in ("cpu", "cpu:0", Device("cpu"), Device("cpu", 0)):
        assert dragon_optim.GradScaler(device).is_enabled()


def test_a_disabled_scaler_checks_its_arguments_too():
    """PyTorch's does not: what is wrong shows only when it is enabled."""
    with pytest.raises(AssertionError, match=GROWTH):
        dragon_optim.GradScaler("cpu", growth_factor=0.5, enabled=False)


SETTERS = {
    "set_growth_factor": ("growth_factor",),
    "set_backoff_factor": ("backoff_factor",),
    "set_growth_interval": ("growth_interval",),
    "update": ("init_scale",),
}


@pytest.mark.parametrize("setter", SETTERS)
def test_setters(setter):
    """As the constructor; PyTorch takes anything, and fails or trains on it."""
    for name, error, words, some in REFUSED:
        if name not in SETTERS[setter]:
            continue
        scaler = scaler_of()
        before = settings(scaler)
        for value in some:
            if setter == "update" and value is None:
                continue
            with pytest.raises(error, match=words.replace("init_scale", "new_scale")):
                getattr(scaler, setter)(value)
            assert settings(scaler) == before


def test_a_refused_new_scale_does_not_end_the_iteration():
    scaler = scaler_of()
    optimizer, p = make()
    backward(p, math.inf)
    scaler.step(optimizer)
    with pytest.raises(ValueError, match="Invalid new_scale"):
        scaler.update(math.inf)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 4


STATE = {
    "scale": 12.5,
    "growth_factor": 3.0,
    "backoff_factor": 0.25,
    "growth_interval": 4,
    "_growth_tracker": 3,
}
BAD_STATES = {
    "scale": [0.0, -1.0, math.inf, math.nan, 1e39, "8", None, np.ones(2)],
    "growth_factor": [1.0, math.nan, None, "2"],
    "backoff_factor": [1.0, 0.0, math.nan, None],
    "growth_interval": [0, 2.5, math.inf, None, "4"],
    "_growth_tracker": [-1, 0.5, math.nan, None, [3]],
}


@pytest.mark.parametrize("key", BAD_STATES)
def test_state_dicts(key):
    """All or nothing: what comes before the wrong value is not taken either."""
    scaler = scaler_of()
    before = settings(scaler)
    for value in BAD_STATES[key]:
        with pytest.raises((ValueError, TypeError, AssertionError), match=key.replace("_factor", ".factor")):
            scaler.load_state_dict(dict(STATE, **{key: value}))
        assert settings(scaler) == before
    with pytest.raises(KeyError, match=key):
        scaler.load_state_dict({name: value for name, value in STATE.items() if name != key})
    assert settings(scaler) == before
    scaler.load_state_dict(STATE)
    assert scaler.state_dict() == STATE


@pytest.mark.parametrize("given", [None, 3, "state", [("scale", 8.0)], object], ids=repr)
def test_what_is_no_state_dict(given):
    scaler = scaler_of()
    with pytest.raises(TypeError, match="state_dict must be a dict"):
        scaler.load_state_dict(given)


@pytest.mark.parametrize("given", [None, 3, "adam", object, torch.ones(1), dragon_optim.RMSprop], ids=repr)
def test_what_is_no_optimizer(given):
    scaler = scaler_of()
    for call in (scaler.step, scaler.unscale_, scaler.step_was_skipped):
        with pytest.raises(TypeError, match="optimizer must be an optimizer"):
            call(given)
    with pytest.raises(AssertionError, match="No inf checks were recorded"):
        scaler.update()


def test_a_model_in_the_place_of_an_optimizer():
    model = torch.nn.Linear(2, 1)
    with pytest.raises(TypeError, match="Linear"):
        scaler_of().step(model)


def test_closures_and_given_gradients():
    """Also by position, where PyTorch lets a closure through."""
    scaler = scaler_of()
    optimizer, p = make()
    backward(p, 24.0)
    before = snapshot(optimizer, p)
    words = "Closure use is not currently supported if GradScaler is enabled"
    for arguments, named in (((lambda: 1,), {}), ((), {"closure": lambda: 1})):
        with pytest.raises(RuntimeError, match=words):
            scaler.step(optimizer, *arguments, **named)
    with pytest.raises((ValueError, TypeError), match="gradients"):
        scaler.step(optimizer, gradients={p: p.grad})
    with pytest.raises(TypeError):
        scaler.step(optimizer, some_word=3)
    assert snapshot(optimizer, p) == before
    assert used(scaler, optimizer, p) == 3.0


def test_gradients_given_to_a_recorded_step():
    """They are not divided, so they are refused before ``.grad`` is."""
    scaler = scaler_of()
    optimizer, p = make(differentiable=True)
    backward(p, 24.0)
    before = snapshot(optimizer, p)
    with pytest.raises(ValueError, match="gradients= are not unscaled"):
        scaler.step(optimizer, gradients={p: torch.ones(2, dtype="float64")})
    assert snapshot(optimizer, p) == before
    assert used(scaler, optimizer, p) == 3.0
    optimizer.detach_()


@pytest.mark.parametrize("found", [False, True])
def test_what_was_found_before_does_not_count_for_a_refused_step(found):
    scaler = scaler_of()
    optimizer, p = make()
    backward(p, math.inf if found else 1.0)
    scaler.step(optimizer)
    scaler.update(8.0)
    feed_gradient(p, np.array([1, 2], "int64"))
    for call in (scaler.step, scaler.unscale_):
        with pytest.raises(ValueError, match="int64"):
            call(optimizer)
        with pytest.raises(AssertionError, match="No inf checks were recorded prior to update"):
            scaler.update()


def test_groups_that_hold_no_tensors():
    scaler = scaler_of()
    optimizer, p = make()
    backward(p, 24.0)
    for params in ([p, 3], [None], 3, None, {p}, "p"):
        optimizer.param_groups[0]["params"] = params
        for call in (scaler.unscale_, scaler.step):
            with pytest.raises((TypeError, ValueError)):
                call(optimizer)
    optimizer.param_groups[0]["params"] = [p]
    assert used(scaler, optimizer, p) == 3.0


def test_a_parameter_twice_is_unscaled_once():
    p = parameter([0.0], "float64")
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optimizer = dragon_optim.RMSprop([p, p], lr=1.0, alpha=0.0, eps=1.0)
    scaler = scaler_of()
    for unscales in (False, True):
        start = float(p)
        backward(p, 24.0)
        if unscales:
            scaler.unscale_(optimizer)
            assert float(p.grad) == 3
        scaler.step(optimizer)
        scaler.update()
        assert float(p) == start - 1.5  # updated for each occurrence
