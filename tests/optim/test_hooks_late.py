# SPDX-License-Identifier: BSD-2-Clause
"""Hooks: what one may do, what is left when one raises; threads."""

from __future__ import annotations

import copy
import threading
import weakref

import numpy as np
import pytest
from dragon.core.framework import workspace
from dragon.vm import torch

import dragon_optim
from tests.optim.kinds_of_hooks import DICTS, STEP, call, register
from tests.optim.states import trained
from tests.optim.support import backward, feed_gradient, parameter, snapshot, values

# --- what a hook may do ---------------------------------------------------------------------------


def test_a_pre_hook_sets_the_learning_rate_of_this_step():
    optimizer, p = trained(alpha=0.0, eps=0.0)
    before = values(p)
    optimizer.register_step_pre_hook(lambda owner, *_: owner.param_groups[0].update(lr=0.5))
    optimizer.step()
    assert (before - values(p)).tolist() == [0.5] * 3


def test_a_pre_hook_takes_the_gradients_away():
    optimizer, p = trained()
    optimizer.register_step_pre_hook(lambda owner, *_: owner.zero_grad(set_to_none=True))
    before = values(p)
    optimizer.step()
    assert p.grad is None
    assert values(p).tolist() == before.tolist()
    assert optimizer.state[p]["step"] == 1


def test_a_post_hook_clears_the_gradients():
    optimizer, p = trained()
    optimizer.register_step_post_hook(lambda owner, *_: owner.zero_grad())
    optimizer.step()
    assert optimizer.state[p]["step"] == 2
    assert values(p.grad).tolist() == [0.0] * 3


@pytest.mark.parametrize("kind", STEP)
def test_a_hook_steps_itself(kind):
    """Its step is done, without hooks: in PyTorch it would call itself for ever."""
    optimizer, p = trained()
    register(optimizer, kind, lambda owner, *_: owner.step())
    optimizer.step()
    assert optimizer.state[p]["step"] == 3


def test_a_hook_steps_another_optimizer():
    """Whose own hooks run."""
    (first, p), (second, q) = trained(), trained()
    log = []
    first.register_step_pre_hook(lambda *_: second.step())
    second.register_step_pre_hook(lambda *_: log.append("second"))
    first.step()
    assert (log, first.state[p]["step"], second.state[q]["step"]) == (["second"], 2, 2)


@pytest.mark.parametrize("kind", STEP)
def test_a_hook_saves_and_copies(kind):
    """The copy made in the middle of a step is not in a step: its own hooks run."""
    optimizer, p = trained()
    made, log = [], []

    def hook(owner, *_):
        made.append((owner.state_dict()["state"][0]["step"], copy.deepcopy(owner)))

    handle = register(optimizer, kind, hook)
    optimizer.step()
    handle.remove()
    ((steps, twin),) = made
    assert steps == (1 if kind == "step_pre" else 2)
    twin.register_step_pre_hook(lambda *_: log.append("ran"))
    twin.step()
    assert log == ["ran"]
    assert optimizer.state[p]["step"] == 2


def test_a_pre_hook_loads():
    """The step goes on from what was loaded."""
    optimizer, p = trained()
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["step"] = 41
    optimizer.register_step_pre_hook(lambda owner, *_: owner.load_state_dict(saved))
    optimizer.step()
    assert optimizer.state[p]["step"] == 42


def test_a_pre_hook_adds_a_group():
    optimizer, p = trained()
    q = parameter([1.0])
    backward(q, 1.0)
    handle = optimizer.register_step_pre_hook(lambda owner, *_: owner.add_param_group({"params": [q]}))
    optimizer.step()
    handle.remove()
    assert [optimizer.state[each]["step"] for each in (p, q)] == [2, 1]


# --- hooks that raise -----------------------------------------------------------------------------


def failing(*_):
    raise ZeroDivisionError("the hook's")


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_step_pre_hook_that_raises(error):
    """Nothing has changed, neither later hooks nor the closure ran, and the next step has hooks again."""
    optimizer, p = trained()
    log = []

    def hook(*_):
        raise error("the hook's")

    optimizer.register_step_pre_hook(lambda *_: log.append("before"))
    handle = optimizer.register_step_pre_hook(hook)
    optimizer.register_step_pre_hook(lambda *_: log.append("after"))
    optimizer.register_step_post_hook(lambda *_: log.append("post"))
    before = snapshot(optimizer, p)
    with pytest.raises(error, match="^the hook's$"):
        optimizer.step(lambda: log.append("closure"))
    assert log == ["before"]
    assert snapshot(optimizer, p) == before
    handle.remove()
    optimizer.step()
    assert log == ["before", "before", "after", "post"]
    assert optimizer.state[p]["step"] == 2


def test_a_step_post_hook_that_raises():
    optimizer, p = trained()
    log = []
    handle = optimizer.register_step_post_hook(failing)
    optimizer.register_step_post_hook(lambda *_: log.append("after"))
    with pytest.raises(ZeroDivisionError):
        optimizer.step()
    assert (log, optimizer.state[p]["step"]) == ([], 2)
    handle.remove()
    optimizer.step()
    assert (log, optimizer.state[p]["step"]) == (["after"], 3)


def test_a_step_that_raises_runs_no_post_hook():
    optimizer, p = trained()
    log = []
    optimizer.register_step_pre_hook(lambda *_: log.append("pre"))
    optimizer.register_step_post_hook(lambda *_: log.append("post"))
    with pytest.raises(ZeroDivisionError):
        optimizer.step(failing)
    assert (log, optimizer.state[p]["step"]) == (["pre"], 1)
    optimizer.step()
    assert log == ["pre", "pre", "post"]


@pytest.mark.parametrize(("kind", "loaded"), [("load_state_dict_pre", False), ("load_state_dict_post", True)])
def test_a_load_hook_that_raises(kind, loaded):
    optimizer, p = trained()
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["step"], saved["param_groups"][0]["lr"] = 7, 0.75
    before = snapshot(optimizer, p), optimizer.param_groups[0]["lr"]
    register(optimizer, kind, failing)
    with pytest.raises(ZeroDivisionError):
        optimizer.load_state_dict(saved)
    after = snapshot(optimizer, p), optimizer.param_groups[0]["lr"]
    assert (after == before) == (not loaded)
    assert after[1] == (0.75 if loaded else 0.01)


def test_a_load_pre_hook_that_returns_nonsense():
    optimizer, p = trained()
    saved = optimizer.state_dict()
    before = snapshot(optimizer, p)
    handle = optimizer.register_load_state_dict_pre_hook(lambda *_: 5)
    with pytest.raises(TypeError, match="^state_dict must be a dict, but got builtins.int"):
        optimizer.load_state_dict(saved)
    assert snapshot(optimizer, p) == before
    handle.remove()
    optimizer.load_state_dict(saved)
    assert snapshot(optimizer, p) == before


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_collector")
def test_hooks_make_no_cycle():
    """An optimizer with hooks of all kinds is freed at its last reference, and its tensors with it."""
    optimizer, _ = trained()
    for kind in (*STEP, *DICTS):
        register(optimizer, kind, lambda *_: None)
        call(optimizer, kind)
    gone = weakref.ref(optimizer)
    del optimizer
    assert gone() is None


def test_step_is_still_a_documented_method():
    """What wraps it shows neither in help() nor to a scheduler, which binds `step.__func__`."""
    assert dragon_optim.RMSprop.step.__name__ == "step"
    assert "closure : callable" in dragon_optim.RMSprop.step.__doc__
    optimizer, p = trained()
    assert optimizer.step.__self__ is optimizer
    optimizer.step.__func__.__get__(optimizer, type(optimizer))()
    assert optimizer.state[p]["step"] == 2
    with pytest.raises(TypeError, match="self"):
        dragon_optim.RMSprop.step()


def test_hooks_leave_the_gradient_mode_alone():
    optimizer, p = trained()
    seen = []

    def look(*_):
        seen.append((p * 2).requires_grad)

    optimizer.register_step_pre_hook(look)
    optimizer.register_step_post_hook(look)
    with torch.no_grad():
        optimizer.step(look)
    assert seen == [False, True, False]


# --- threads --------------------------------------------------------------------------------------


def test_threads_that_share_an_optimizer():
    """Each step has its own hooks around it: no step of another thread comes in between, none is left out."""
    param = parameter(np.ones(1000))
    optimizer = dragon_optim.RMSprop([param])
    feed_gradient(param, np.ones(1000, "float32"))
    log, errors = [], []
    optimizer.register_step_pre_hook(lambda *_: log.append(("pre", threading.get_ident())))
    optimizer.register_step_post_hook(lambda *_: log.append(("post", threading.get_ident())))
    home = workspace.get_workspace()

    def work():
        try:
            with home.as_default():
                for _ in range(50):
                    optimizer.step()
        except Exception as error:  # raised by the test, which could not see it otherwise
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(log) == 2 * 4 * 50
    for pre, post in zip(log[::2], log[1::2]):
        assert (pre[0], post[0], pre[1]) == ("pre", "post", post[1])
    assert optimizer.state[param]["step"] == 4 * 50


def test_a_pre_hook_that_raises_in_another_workspace():
    """What the hook raised is told; nobody is served by a word about workspaces instead."""
    optimizer, _ = trained()
    optimizer.register_step_pre_hook(failing)
    with workspace.Workspace().as_default(), pytest.raises((ZeroDivisionError, RuntimeError)) as caught:
        optimizer.step()
    errors = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert any(isinstance(each, ZeroDivisionError) for each in errors)
