# SPDX-License-Identifier: BSD-2-Clause
"""`GradScaler.step` and `unscale_`: what they write, and that a step left out changes nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dragon.core.framework import workspace

import dragon_optim
from dragon_optim._dragon import tape
from tests import exact
from tests.optim.scalers import BAD, SHOW, make, scaler_of, used
from tests.optim.support import backward, feed_gradient, parameter, snapshot, values

INEXACT = 1000.1  # a scale whose reciprocal is rounded


def inverse(scale):
    """PyTorch's: the float32 next to the reciprocal of a float32."""
    return float(np.float32(1 / np.float64(np.float32(scale))))


def by_numpy(options, *grads, start=(1.0, -2.0), dtype="float32"):
    """A parameter and its states after steps with these gradients."""
    param, state = np.array(start, dtype), {}
    for grad in grads:
        param, state = exact.step(options, param, np.array(grad, dtype), state)
    return param, state


# --- a step that is left out --------------------------------------------------------------------------------


@pytest.mark.parametrize("foreach", [None, False])
@pytest.mark.parametrize("bad", BAD)
def test_a_step_left_out_changes_nothing(bad, foreach):
    options = dict(momentum=0.9, centered=True, weight_decay=0.1, lr=0.1, alpha=0.9, foreach=foreach)
    optimizer, p, q, without = make(3, "float32", **options)
    scaler = scaler_of()
    for grad in (3.0, bad):
        backward(p, grad, q, 5.0)
        before = snapshot(optimizer, p, q, without)
        assert scaler.step(optimizer) is None
        scaler.update()
    assert scaler.step_was_skipped(optimizer) is True
    assert snapshot(optimizer, p, q, without) == before
    assert optimizer.state[p]["step"] == 1
    assert without not in optimizer.state
    backward(p, 4.0, q, 4.0)
    scaler.step(optimizer)
    assert scaler.step_was_skipped(optimizer) is False
    assert optimizer.state[p]["step"] == 2
    assert snapshot(optimizer, p)["param 0"] != before["param 0"]


def test_a_first_step_left_out_makes_no_states():
    optimizer, p = make(momentum=0.9)
    backward(p, math.nan)
    scaler_of().step(optimizer)
    assert p not in optimizer.state
    assert values(p).tolist() == [0, 0]


def test_a_step_left_out_calls_no_hooks():
    optimizer, p = make()
    called = []
    handles = [
        optimizer.register_step_pre_hook(lambda *_: called.append("pre")),
        optimizer.register_step_post_hook(lambda *_: called.append("post")),
        dragon_optim.register_optimizer_step_pre_hook(lambda *_: called.append("all pre")),
        dragon_optim.register_optimizer_step_post_hook(lambda *_: called.append("all post")),
    ]
    scaler = scaler_of()
    try:
        backward(p, math.inf)
        scaler.step(optimizer)
        assert called == []
        scaler.update()
        backward(p, 1.0)
        scaler.step(optimizer)
        assert called == ["all pre", "pre", "post", "all post"]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("unscales", [False, True])
def test_hooks_find_the_gradients_divided(unscales):
    """As in PyTorch: one that clips needs it."""
    optimizer, p = make()
    found = []
    optimizer.register_step_pre_hook(lambda *_: found.append(values(p.grad)[0]))
    optimizer.register_step_post_hook(lambda *_: found.append(values(p.grad)[0]))
    scaler = scaler_of()
    backward(p, 24.0)
    if unscales:
        scaler.unscale_(optimizer)
    assert used(scaler, optimizer, p) == 3.0
    assert found == [3.0, 3.0]


def test_a_step_that_raises_can_be_made_again():
    """No gradient is divided twice, whether by unscale_() or for the hook."""
    for unscales in (False, True):
        optimizer, p = make()
        scaler = scaler_of()
        backward(p, 24.0)
        if unscales:
            scaler.unscale_(optimizer)
        handle = optimizer.register_step_pre_hook(lambda *_: 1 / 0)
        before = dict(snapshot(optimizer, p), **{"grad 0": None})
        with pytest.raises(ZeroDivisionError):
            scaler.step(optimizer)
        assert dict(snapshot(optimizer, p), **{"grad 0": None}) == before
        handle.remove()
        assert used(scaler, optimizer, p) == 3.0
        scaler.update()


def test_a_wrong_learning_rate_raises_and_the_step_can_be_made_again():
    optimizer, p = make()
    scaler = scaler_of()
    backward(p, 24.0)
    optimizer.param_groups[0]["lr"] = -1.0
    before = snapshot(optimizer, p)
    with pytest.raises(ValueError, match="Invalid learning rate: -1.0"):
        scaler.step(optimizer)
    assert snapshot(optimizer, p) == before
    optimizer.param_groups[0]["lr"] = 1.0
    assert used(scaler, optimizer, p) == 3.0
    scaler.update()
    assert scaler._get_growth_tracker() == 1


# --- what a step multiplies by ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("grad_scale", [1, 0.7, -2.5, 0, 1e-3])
def test_grad_scale_is_multiplied_not_replaced(grad_scale, dtype):
    """By one number, rounded once; the group and the gradient stay as they are."""
    param = parameter([1.0, -2.0], dtype)
    optimizer = dragon_optim.RMSprop([param], lr=0.1, momentum=0.9, grad_scale=grad_scale)
    scaler = scaler_of(INEXACT)
    grad = np.array([123.4, -0.7], dtype)
    feed_gradient(param, grad)
    scaler.step(optimizer)
    assert values(param.grad).tobytes() == grad.tobytes()
    assert optimizer.param_groups[0]["grad_scale"] == grad_scale
    options = dict(lr=0.1, momentum=0.9)
    expected, state = by_numpy(dict(options, grad_scale=grad_scale * inverse(INEXACT)), grad, dtype=dtype)
    assert values(param).tobytes() == expected.tobytes()
    optimizer.step()  # by itself it knows nothing of the scaler
    expected, _ = exact.step(dict(options, grad_scale=grad_scale), expected, grad, state)
    assert values(param).tobytes() == expected.tobytes()


def test_each_group_has_its_own():
    params = [parameter([0.0], "float64") for _ in range(2)]
    optimizer = dragon_optim.RMSprop(
        [{"params": [params[0]], "grad_scale": 0.5}, {"params": [params[1]], "grad_scale": 3.0}], **SHOW
    )
    backward(params[0], 8.0, params[1], 8.0)
    scaler_of().step(optimizer)
    assert [float(values(param)[0]) for param in params] == [-0.5 / 1.5, -0.75]


def test_settings_that_change_between_steps():
    """Of one group: neither it nor the others lose the scale, whether grad_scale is what changes or not."""
    params = [parameter([0.0], "float64") for _ in range(2)]
    first, second = [{"params": [param], "grad_scale": 0.5} for param in params]
    optimizer = dragon_optim.RMSprop([first, second], **SHOW)
    scaler = scaler_of()

    def steps():
        start = [float(param) for param in params]
        backward(params[0], 16.0, params[1], 16.0)
        scaler.step(optimizer)
        scaler.update()
        return [old - float(param) for old, param in zip(start, params)]

    assert steps() == [0.5, 0.5]
    first["lr"] = 2.0
    assert steps() == [1.0, 0.5]
    second["grad_scale"] = 1.5
    assert steps() == [1.0, 0.75]
    optimizer.step()  # the gradients as they are: 8 and 24
    second["lr"] = 2.0
    assert steps() == [1.0, 1.5]
    scaler.update(16.0)
    assert steps() == [pytest.approx(2 / 3), pytest.approx(1.2)]


CLIPS = [
    {"clip_norm": 0.5},
    {"clip_value": 0.25},
    {"clip_norm": 100.0},
    {"clip_norm": 0.5, "grad_scale": 0.7},
]


@pytest.mark.parametrize("clip", CLIPS, ids=str)
def test_the_optimizers_own_clipping_comes_after_unscaling(clip):
    grads = np.float32([3001.7, -4000.3]), np.float32([0.1, 0.2])
    param = parameter([1.0, -2.0])
    optimizer = dragon_optim.RMSprop([param], lr=0.1, **clip)
    scaler = scaler_of(INEXACT)
    for grad in grads:
        feed_gradient(param, grad)
        scaler.step(optimizer)
        scaler.update()
    factor = clip.get("grad_scale", 1) * inverse(INEXACT)
    expected, _ = by_numpy(dict(clip, lr=0.1, grad_scale=factor), *grads)
    assert values(param).tobytes() == expected.tobytes()


def test_unscale_writes_to_the_gradients_and_the_step_takes_them_as_they_are():
    """The gradient is rounded, then what grad_scale makes of it: another hook or clip may come in between."""
    param = parameter([1.0, -2.0])
    optimizer = dragon_optim.RMSprop([param], lr=0.1, grad_scale=0.7)
    scaler = scaler_of(INEXACT)
    grad = np.float32([123.4, -0.7])
    feed_gradient(param, grad)
    assert scaler.unscale_(optimizer) is None
    unscaled = grad * np.float32(inverse(INEXACT))
    assert values(param.grad).tobytes() == unscaled.tobytes()
    feed_gradient(param, unscaled * 2)
    scaler.step(optimizer)
    expected, _ = by_numpy(dict(lr=0.1, grad_scale=0.7), unscaled * 2)
    assert values(param).tobytes() == expected.tobytes()


def test_what_unscale_found_counts_not_what_the_step_finds():
    scaler = scaler_of()
    optimizer, p = make()
    backward(p, 8.0)
    scaler.unscale_(optimizer)
    backward(p, math.inf)
    scaler.step(optimizer)
    assert scaler.step_was_skipped(optimizer) is False
    scaler.update()
    optimizer, p = make()
    backward(p, math.inf)
    scaler.unscale_(optimizer)
    backward(p, 8.0)
    assert used(scaler, optimizer, p) is None


def test_unscale_then_global_clipping():
    scaler = scaler_of()
    optimizer, p, q = make(2)
    backward(p, [24.0, 0.0], q, [0.0, 32.0])
    scaler.unscale_(optimizer)
    assert float(dragon_optim.clip_grad_norm_([p, q], 2.5)) == 5
    assert used(scaler, optimizer, p) == 1.5


# --- float16 ------------------------------------------------------------------------------------------------


def test_float16_in_a_step():
    """Its gradients need no unscaled form in float16: 2**-30 is none."""
    scale = 2.0**14
    param = parameter([1.0, -2.0], "float16")
    optimizer = dragon_optim.RMSprop([param], lr=0.1, eps=1e-12)
    scaler = scaler_of(scale)
    grads = [np.float16([2.0**-16, 3.0]), np.float16([-(2.0**-18), 0.1])]
    expected, state = np.float16([1.0, -2.0]), {}
    for grad in grads:
        feed_gradient(param, grad)
        scaler.step(optimizer)
        scaler.update()
        assert values(param.grad).tobytes() == grad.tobytes()
        expected, state = exact.step(dict(lr=0.1, eps=1e-12, grad_scale=1 / scale), expected, grad, state)
    assert values(param).tobytes() == expected.tobytes()
    for name in ("master_param", "square_avg"):
        assert values(optimizer.state[param][name]).tobytes() == state[name].tobytes()
    assert abs(float(values(optimizer.state[param]["master_param"])[0]) - 1) > 0.1


@pytest.mark.parametrize("bad", BAD)
def test_float16_left_out(bad):
    param = parameter([1.0, -2.0], "float16")
    optimizer = dragon_optim.RMSprop([param], lr=0.1)
    scaler = scaler_of()
    for grad in ([8.0, 65504.0], [bad, 0.0]):
        feed_gradient(param, np.float16(grad))
        before = snapshot(optimizer, param)
        scaler.step(optimizer)
        scaler.update()
    assert snapshot(optimizer, param) == before
    assert (scaler.get_scale(), optimizer.state[param]["step"]) == (4, 1)


def test_float16_is_not_unscaled_in_place():
    """Nor is what lies beside it: all or nothing. The step still works."""
    half, single = parameter([0.0], "float16"), parameter([0.0], "float32")
    optimizer = dragon_optim.RMSprop([single, half], **SHOW)
    scaler = scaler_of()
    feed_gradient(half, np.float16([24.0]))
    feed_gradient(single, np.float32([24.0]))
    before = snapshot(optimizer, single, half)
    with pytest.raises(ValueError, match="Attempting to unscale FP16 gradients."):
        scaler.unscale_(optimizer)
    assert snapshot(optimizer, single, half) == before
    scaler.step(optimizer)
    assert [float(values(each)[0]) for each in (half, single)] == [-0.75, -0.75]


def test_sums_of_float16_are_float32():
    """Two gradients of 60000 have a sum that float16 has not."""
    param = parameter([0.0], "float16")
    optimizer = dragon_optim.RMSprop([param], **SHOW)
    scaler = scaler_of(40000.0)
    for _ in range(2):
        feed_gradient(param, np.float16([60000.0]))
        tape.mark(workspace.get_workspace(), [param.id])
        optimizer.sum_grad()
    scaler.step(optimizer)
    assert scaler.step_was_skipped(optimizer) is False
    assert float(values(param)[0]) == -0.75
