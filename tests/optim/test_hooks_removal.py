# SPDX-License-Identifier: BSD-2-Clause
"""Hooks: how they are taken out again, and what becomes of those registered meanwhile."""

from __future__ import annotations

import weakref

import pytest

from tests.optim.kinds_of_hooks import DICTS, GLOBAL, STEP, call, register
from tests.optim.states import trained


@pytest.mark.parametrize("kind", [*STEP, *DICTS, *GLOBAL])
def test_removal(kind):
    optimizer, _ = trained()
    log = []
    handle = register(optimizer, kind, lambda *_: log.append("removed"))
    other = register(optimizer, kind, lambda *_: log.append("kept"))
    handle.remove()
    handle.remove()
    try:
        call(optimizer, kind)
    finally:
        other.remove()
    assert log == ["kept"]


@pytest.mark.parametrize("kind", [*STEP, *DICTS, *GLOBAL])
def test_removal_at_the_end_of_a_with_block(kind):
    optimizer, _ = trained()
    log = []
    with register(optimizer, kind, lambda *_: log.append("ran")) as handle:
        call(optimizer, kind)
    call(optimizer, kind)
    assert log == ["ran"]
    with pytest.raises(ZeroDivisionError), register(optimizer, kind, lambda *_: log.append("ran")):
        raise ZeroDivisionError
    call(optimizer, kind)
    assert log == ["ran"]
    handle.remove()


@pytest.mark.parametrize("kind", [*STEP, *DICTS, *GLOBAL])
def test_a_hook_that_removes_itself(kind):
    """It runs once, and the hooks after it run all the same. (PyTorch raises RuntimeError.)"""
    optimizer, _ = trained()
    log = []

    def once(*_):
        log.append("once")
        handle.remove()

    handle = register(optimizer, kind, once)
    with register(optimizer, kind, lambda *_: log.append("after")):
        call(optimizer, kind)
        call(optimizer, kind)
    assert log == ["once", "after", "after"]


@pytest.mark.parametrize("kind", [*STEP, *DICTS, *GLOBAL])
def test_a_hook_that_registers_another(kind):
    """The new one runs from the next time on."""
    optimizer, _ = trained()
    log, handles = [], []

    def registering(*_):
        log.append("first")
        if not handles:
            handles.append(register(optimizer, kind, lambda *_: log.append("second")))

    with register(optimizer, kind, registering):
        call(optimizer, kind)
        call(optimizer, kind)
    for handle in handles:
        handle.remove()
    assert log == ["first", "first", "second"]


@pytest.mark.parametrize("others", [False, True])
def test_a_post_hook_registered_during_the_step(others):
    """By the closure, say: it runs after this very step, as in PyTorch, whatever other hooks there are."""
    optimizer, _ = trained()
    log = []
    if others:
        optimizer.register_step_pre_hook(lambda *_: None)
    optimizer.step(lambda: optimizer.register_step_post_hook(lambda *_: log.append("post")))
    assert log == ["post"]


class Hook:
    def __call__(self, *_):
        return None


@pytest.mark.usefixtures("no_collector")
def test_a_handle_outlives_its_optimizer():
    """It holds neither the optimizer nor the hook, and what hangs on that."""
    optimizer, _ = trained()
    hook = Hook()
    handle = optimizer.register_step_pre_hook(hook)
    gone = weakref.ref(optimizer), weakref.ref(hook)
    del optimizer, _, hook
    assert [each() for each in gone] == [None, None]
    handle.remove()
    with handle:
        pass


@pytest.mark.usefixtures("no_collector")
def test_a_removed_hook_is_let_go():
    optimizer, _ = trained()
    for kind in (*STEP, *DICTS, *GLOBAL):
        hook = Hook()
        gone = weakref.ref(hook)
        handle = register(optimizer, kind, hook)
        del hook
        assert gone() is not None
        call(optimizer, kind)
        handle.remove()
        assert gone() is None, kind
