# SPDX-License-Identifier: BSD-2-Clause
"""Hooks: what runs when, and with which arguments."""

from __future__ import annotations

import copy

import pytest

from tests.optim.kinds_of_hooks import DICTS, GLOBAL, STEP, call, register
from tests.optim.states import trained
from tests.optim.support import snapshot, values


@pytest.fixture
def globally():
    """Registers hooks for all optimizers, and takes them out at the end: other tests step, too."""
    handles = []

    def register_globally(kind, hook):
        handles.append(GLOBAL[kind](hook))
        return handles[-1]

    yield register_globally
    for handle in handles:
        handle.remove()


# --- order ----------------------------------------------------------------------------------------


def test_order_of_a_step(globally):
    """Recorded by name: a counter would not tell a hook that ran twice from two that ran."""
    optimizer, p = trained()
    before = values(p)
    log = []

    def noting(name):
        return lambda *_: log.append((name, bool((values(p) == before).all())))

    # Not in the order in which they must run.
    for number in (1, 2):
        optimizer.register_step_post_hook(noting(f"post {number}"))
        globally("optimizer_step_post", noting(f"global post {number}"))
        optimizer.register_step_pre_hook(noting(f"pre {number}"))
        globally("optimizer_step_pre", noting(f"global pre {number}"))
    optimizer.step(noting("closure"))
    names = ["global pre 1", "global pre 2", "pre 1", "pre 2", "closure"]
    assert log[:5] == [(name, True) for name in names]
    assert log[5:] == [(name, False) for name in ["post 1", "post 2", "global post 1", "global post 2"]]


@pytest.mark.parametrize("kind", DICTS)
def test_prepend(kind):
    optimizer, _ = trained()
    log = []
    for name, options in {
        "b": {},
        "a": {"prepend": True},
        "c": {"prepend": False},
        "0": {"prepend": 1},
    }.items():
        register(optimizer, kind, lambda *_, name=name: log.append(name), **options)
    call(optimizer, kind)
    assert log == ["0", "a", "b", "c"]


def test_order_of_state_dict_and_load():
    optimizer, _ = trained()
    log = []
    for kind in reversed(DICTS):
        register(optimizer, kind, lambda *_, kind=kind: log.append(kind))
    saved = optimizer.state_dict()
    assert log == ["state_dict_pre", "state_dict_post"]
    optimizer.load_state_dict(saved)
    assert log[2:] == ["load_state_dict_pre", "load_state_dict_post"]


def test_global_hooks_run_for_every_optimizer(globally):
    """Of this package: stock Dragon's have no hooks."""
    seen = []
    globally("optimizer_step_pre", lambda optimizer, args, kwargs: seen.append(optimizer))
    first, second = trained()[0], trained()[0]
    del seen[:]
    for each in (first, second, first):
        each.step()
    assert [seen[0] is first, seen[1] is second, seen[2] is first, len(seen)] == [True, True, True, 3]


def test_hooks_of_one_optimizer_are_not_anothers():
    (first, _), (second, _) = trained(), trained()
    log = []
    for kind in (*STEP, *DICTS):
        register(first, kind, lambda *_: log.append("ran"))
        call(second, kind)
    assert log == []


@pytest.mark.parametrize("kind", [*STEP, *DICTS])
def test_one_hook_registered_twice_runs_twice(kind):
    optimizer, _ = trained()
    log = []

    def hook(*_):
        log.append("ran")

    first, second = register(optimizer, kind, hook), register(optimizer, kind, hook)
    call(optimizer, kind)
    assert len(log) == 2
    first.remove()
    call(optimizer, kind)
    assert len(log) == 3
    second.remove()
    call(optimizer, kind)
    assert len(log) == 3


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_keyword", [False, True])
def test_what_step_hooks_are_given(globally, by_keyword):
    optimizer, _ = trained()
    seen = []

    def hook(owner, args, kwargs):
        seen.append((owner is optimizer, args[0] is optimizer, args[1:], kwargs))

    def closure():
        return 0.5

    for kind in STEP:
        register(optimizer, kind, hook)
    for kind in GLOBAL:
        globally(kind, hook)
    result = optimizer.step(closure=closure) if by_keyword else optimizer.step(closure)
    assert result == 0.5
    args, kwargs = ((), {"closure": closure}) if by_keyword else ((closure,), {})
    assert seen == [(True, True, args, kwargs)] * 4


def test_a_pre_hook_puts_a_closure_in():
    """The later hooks, those after the step too, see what the first one made of the arguments."""
    optimizer, _ = trained()
    seen = []
    optimizer.register_step_pre_hook(lambda owner, args, kwargs: (args, dict(kwargs, closure=lambda: 0.25)))
    optimizer.register_step_pre_hook(lambda owner, args, kwargs: seen.append(sorted(kwargs)))
    optimizer.register_step_post_hook(lambda owner, args, kwargs: seen.append(sorted(kwargs)))
    assert optimizer.step() == 0.25
    assert seen == [["closure"], ["closure"]]


def test_a_pre_hook_takes_the_closure_out():
    optimizer, p = trained()
    optimizer.register_step_pre_hook(lambda owner, args, kwargs: ((owner,), {}))
    before = values(p)
    assert optimizer.step(lambda: pytest.fail("the closure ran")) is None
    assert (values(p) != before).all()


def test_global_hooks_rewrite_first(globally):
    optimizer, _ = trained()
    globally("optimizer_step_pre", lambda owner, args, kwargs: ((owner, lambda: 1), {}))
    optimizer.register_step_pre_hook(lambda owner, args, kwargs: ((owner, lambda: args[1]() + 1), {}))
    assert optimizer.step() == 2


WRONG_RETURNS = {
    "number": 5,
    "list": [(), {}],
    "one": ((),),
    "three": ((), {}, None),
    "false": False,
    "dict": {},
}


@pytest.mark.parametrize("what", WRONG_RETURNS)
@pytest.mark.parametrize("kind", ["step_pre", "optimizer_step_pre"])
def test_wrong_return_of_a_pre_hook(globally, kind, what):
    """PyTorch's words; and nothing has changed, also where the hook before did its work."""
    optimizer, p = trained()
    wrong = WRONG_RETURNS[what]
    if kind in GLOBAL:
        globally(kind, lambda *_: wrong)
    else:
        register(optimizer, kind, lambda *_: wrong)
    before = snapshot(optimizer, p)
    with pytest.raises(
        RuntimeError, match="must return None or a tuple of \\(new_args, new_kwargs\\), but got "
    ) as caught:
        optimizer.step()
    assert repr(wrong) in str(caught.value)
    assert snapshot(optimizer, p) == before


def test_what_a_post_hook_returns_is_ignored():
    optimizer, _ = trained()
    optimizer.register_step_post_hook(lambda *_: 5)
    assert optimizer.step(lambda: 0.5) == 0.5


@pytest.mark.parametrize("wrong", [None, 5, "hook", [print]], ids=["None", "number", "string", "list"])
@pytest.mark.parametrize("kind", [*STEP, *DICTS, *GLOBAL])
def test_a_hook_must_be_callable(kind, wrong):
    optimizer, _ = trained()
    with pytest.raises(TypeError, match=f"^a hook must be callable, but got .*{type(wrong).__name__}$"):
        register(optimizer, kind, wrong)
    call(optimizer, kind)  # nothing was registered


# --- state_dict and load_state_dict ---------------------------------------------------------------


def test_a_state_dict_pre_hook_changes_what_is_saved():
    optimizer, _ = trained()
    optimizer.register_state_dict_pre_hook(lambda owner: owner.param_groups[0].update(seen=True))
    assert optimizer.state_dict()["param_groups"][0]["seen"]


def test_state_dict_post_hooks_change_and_replace():
    """Each gets what the one before made, and the optimizer first."""
    optimizer, _ = trained()
    optimizer.register_state_dict_post_hook(lambda owner, saved: saved.update(mine=owner is optimizer))
    optimizer.register_state_dict_post_hook(lambda owner, saved: {"inner": saved})
    optimizer.register_state_dict_post_hook(lambda owner, saved: None)
    saved = optimizer.state_dict()
    assert list(saved) == ["inner"]
    assert saved["inner"]["mine"] is True


def test_a_load_pre_hook_sees_a_shallow_copy():
    optimizer, p = trained()
    saved = copy.deepcopy(optimizer.state_dict())
    seen = []

    def hook(owner, state_dict):
        seen.extend([state_dict is saved, state_dict["state"] is saved["state"]])
        state_dict["param_groups"] = [dict(state_dict["param_groups"][0], lr=0.75)]

    optimizer.register_load_state_dict_pre_hook(hook)
    optimizer.load_state_dict(saved)
    assert seen == [False, True]
    assert optimizer.param_groups[0]["lr"] == 0.75
    assert saved["param_groups"][0]["lr"] == 0.01
    assert optimizer.state[p]["step"] == 1


def test_load_pre_hooks_replace():
    optimizer, _ = trained()
    saved = copy.deepcopy(optimizer.state_dict())
    wrapped = {"optimizer": saved}
    optimizer.register_load_state_dict_pre_hook(lambda owner, state_dict: state_dict["optimizer"])
    saved["param_groups"][0]["lr"] = 0.75
    optimizer.load_state_dict(wrapped)
    assert optimizer.param_groups[0]["lr"] == 0.75
    assert list(wrapped) == ["optimizer"]


def test_a_load_post_hook_sees_what_was_loaded():
    optimizer, p = trained()
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["step"], saved["param_groups"][0]["lr"] = 7, 0.75
    seen = []
    optimizer.register_load_state_dict_post_hook(
        lambda owner: seen.append((owner.state[p]["step"], owner.param_groups[0]["lr"]))
    )
    optimizer.load_state_dict(saved)
    assert seen == [(7, 0.75)]
