# SPDX-License-Identifier: BSD-2-Clause
"""Hooks: what one may do, what is left when one raises; subclasses, threads, and process groups."""

from __future__ import annotations

import copy
import threading
import weakref

import numpy as np
import pytest
from dragon.core.framework import workspace
from dragon.vm import torch

import dragon_optim
from tests.optim.ranks import hooks
from tests.optim.states import trained
from tests.optim.support import backward, feed_gradient, parameter, snapshot, values
from tests.optim.test_hooks import DICTS, STEP, call, register
from tests.optim.test_process_group import Reports
from tests.optim.test_process_group_late import needs_mpirun

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


# --- subclasses -----------------------------------------------------------------------------------


class OwnStep(dragon_optim.RMSprop):
    def step(self, closure=None):
        ran.append("own before")
        loss = super().step(closure)
        ran.append("own after")
        return loss


class OwnStepOfOwnStep(OwnStep):
    def step(self, closure=None):
        ran.append("outer before")
        return super().step(closure)


class Inherits(OwnStep):
    pass


class Instead(dragon_optim.Optimizer):
    """Does its update itself."""

    def step(self, closure=None):
        ran.append("instead")


class Mixin:
    def step(self, closure=None):
        ran.append("mixin")
        return super().step(closure)


class Mixed(Mixin, dragon_optim.RMSprop):
    pass


class InsteadByMixin:
    def step(self, closure=None):
        ran.append("instead")


class MixedInstead(InsteadByMixin, dragon_optim.RMSprop):
    pass


ran = []

OWN = ["own before", "closure", "own after"]
SUBCLASSES = {
    dragon_optim.RMSprop: ["closure"],
    OwnStep: OWN,
    OwnStepOfOwnStep: ["outer before", *OWN],
    Inherits: OWN,
    Instead: ["instead"],
    Mixed: ["mixin", "closure"],
    MixedInstead: ["instead"],
}


@pytest.mark.parametrize("cls", SUBCLASSES, ids=lambda cls: cls.__name__)
def test_hooks_run_once_around_the_outermost_step(cls):
    """However many classes override it, and whether or not they call the one of their base."""
    param = parameter([1.0])
    backward(param, 1.0)
    optimizer = cls([param], {}) if cls is Instead else cls([param])
    optimizer.register_step_pre_hook(lambda *_: ran.append("pre"))
    optimizer.register_step_post_hook(lambda *_: ran.append("post"))
    for _ in range(2):
        del ran[:]
        optimizer.step(lambda: ran.append("closure"))
        assert ran == ["pre", *SUBCLASSES[cls], "post"]


@pytest.mark.parametrize("cls", [OwnStep, OwnStepOfOwnStep, Mixed], ids=lambda cls: cls.__name__)
def test_the_outermost_step_gets_the_rewritten_arguments(cls):
    optimizer = cls([parameter([1.0])])
    optimizer.register_step_pre_hook(lambda owner, args, kwargs: ((owner,), {"closure": lambda: 0.25}))
    assert optimizer.step() == 0.25


def test_a_step_of_the_instance():
    """As PyTorch's schedulers put it there: to count the calls."""
    optimizer, p = trained()
    log, inner = [], optimizer.step

    def counted(*args, **kwargs):
        log.append("counted")
        return inner(*args, **kwargs)

    optimizer.step = counted
    optimizer.register_step_pre_hook(lambda *_: log.append("pre"))
    optimizer.register_step_post_hook(lambda *_: log.append("post"))
    optimizer.step()
    assert log == ["counted", "pre", "post"]
    assert optimizer.state[p]["step"] == 2


def test_a_subclass_that_fails_before_its_step_leaves_hooks_in_order():
    class Fails(dragon_optim.RMSprop):
        def step(self, closure=None):
            if closure is None:
                raise ZeroDivisionError
            return super().step(closure)

    log = []
    optimizer = Fails([parameter([1.0])])
    optimizer.register_step_pre_hook(lambda *_: log.append("pre"))
    with pytest.raises(ZeroDivisionError):
        optimizer.step()
    optimizer.step(lambda: None)
    assert log == ["pre", "pre"]


def test_a_subclass_registers_hooks_in_its_constructor():
    class Registers(dragon_optim.RMSprop):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.register_step_pre_hook(lambda owner, *_: log.append(owner))

    log = []
    optimizer = Registers([parameter([1.0])])
    optimizer.step()
    assert len(log) == 1
    assert log[0] is optimizer


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


# --- process groups -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return Reports(tmp_path_factory.mktemp("hooks"), "hooks")


def good_steps(number):
    """What a rank holds after some steps from the mean of the gradients of both."""
    param = parameter(np.ones(3))
    optimizer = dragon_optim.RMSprop([param], lr=0.1, momentum=0.9)
    feed_gradient(param, np.full(3, 1.5, "float32"))
    for _ in range(number):
        optimizer.step()
    return hooks.bits(optimizer, param)


RAISED = {"interrupted": "KeyboardInterrupt", "wrong-return": "RuntimeError"}


@needs_mpirun
@pytest.mark.parametrize("name", hooks.PRE_HOOKS)
def test_a_pre_hook_that_raises_on_one_rank(ranks, name):
    """Both raise, the other one says why; nothing has changed, and the next step is a good one."""
    _, options = hooks.PRE_HOOKS[name]
    reports = ranks.of(name)
    failed = reports.pop(options.get("on", 0))
    (other,) = reports
    assert failed["raised"] == RAISED.get(name, "ZeroDivisionError"), failed["message"]
    assert other["raised"] == "RuntimeError"
    assert "another rank of the process group found an error" in other["message"]
    for report in (failed, other):
        assert not report["changed"]
        assert report["after"] == good_steps(2)


@needs_mpirun
@pytest.mark.parametrize("name", hooks.POST_HOOKS)
def test_a_post_hook_that_raises_on_one_rank(ranks, name):
    """By then the step is done on all."""
    failed, other = ranks.of(name)
    assert [failed["raised"], other["raised"]] == ["ZeroDivisionError", None]
    assert failed["changed"]
    assert other["changed"]
    assert failed["after"] == other["after"] == good_steps(3)


@needs_mpirun
def test_closures_put_in_by_hooks_on_all_ranks(ranks):
    """Each makes the gradient of its rank."""
    assert ranks.of("closures") == [good_steps(2)] * 2


@needs_mpirun
@pytest.mark.parametrize("name", hooks.WRONG_CALLS)
def test_a_pre_hook_whose_arguments_step_does_not_take(ranks, name):
    """No more than any other error on one rank may it leave the others waiting."""
    failed, other = ranks.of(name)
    assert failed["raised"] in ("TypeError", "RuntimeError")
    assert other["raised"] == "RuntimeError"
    assert failed["after"] == other["after"] == good_steps(2)


@needs_mpirun
def test_the_script_of_hooks_ends_well(ranks):
    assert ranks.ending == "exit code 0"
