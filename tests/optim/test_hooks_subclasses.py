# SPDX-License-Identifier: BSD-2-Clause
"""Hooks around the `step()` of subclasses, and of an instance."""

from __future__ import annotations

import pytest

import dragon_optim
from tests.optim.states import trained
from tests.optim.support import backward, parameter


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
