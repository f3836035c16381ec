# SPDX-License-Identifier: BSD-2-Clause
"""What a copied optimizer can do: deep, shallow, and of a subclass."""

from __future__ import annotations

import copy

import pytest
from dragon.vm.torch.core.optim.optimizer import required

import dragon_optim
from tests.optim.copied import params_of, step
from tests.optim.states import trained
from tests.optim.support import backward, parameter, values


def test_groups_can_be_added(way):
    original, _ = trained(momentum=0.9)
    made = way(original)
    q = parameter([1.0])
    made.add_param_group({"params": [q], "lr": 0.5})
    assert (made.param_groups[1]["momentum"], made.param_groups[1]["lr"]) == (0.9, 0.5)
    assert len(original.param_groups) == 1
    backward(q, 1.0)
    made.step()
    assert made.state[q]["step"] == 1
    with pytest.raises(ValueError, match="more than one parameter group"):
        made.add_param_group({"params": params_of(made)[:1]})


def test_options_that_every_group_must_set(way):
    """Dragon's marker is known by identity: a copy of the marker marks nothing."""
    original = dragon_optim.Optimizer([{"params": [parameter([1.0])], "lr": 0.5}], {"lr": required})
    made = way(original)
    with pytest.raises(ValueError, match="didn't specify a value of required optimization parameter lr"):
        made.add_param_group({"params": [parameter([1.0])]})


def test_state_dicts_go_both_ways(way):
    original, _ = trained(momentum=0.9)
    made = way(original)
    step(made, 0, 2)
    original.load_state_dict(made.state_dict())
    made.load_state_dict(original.state_dict())
    assert [each.state[params_of(each)[0]]["step"] for each in (original, made)] == [3, 3]


def test_hooks_stay_behind(way):
    """As in PyTorch; and the copy takes its own."""
    original, _ = trained()
    log = []
    for register in (original.register_step_pre_hook, original.register_step_post_hook):
        register(lambda *_: log.append("original"))
    made = way(original)
    made.step(), made.state_dict(), made.load_state_dict(made.state_dict())
    assert log == []
    for kind in ("step", "state_dict", "load_state_dict"):
        for when in ("pre", "post"):
            name = f"register_{kind}_{when}_hook"
            getattr(made, name)(lambda *_, name=name: log.append(name))
    made.step(), made.load_state_dict(made.state_dict())
    assert len(log) == len(set(log)) == 6
    original.step()
    assert log[6:] == ["original"] * 2


def test_a_handle_among_the_attributes(way):
    """A subclass that keeps one can be copied; the copy's handle takes nothing out of the original."""
    original, _ = trained()
    log = []
    original.handle = original.register_step_pre_hook(lambda *_: log.append("ran"))
    made = way(original)
    made.handle.remove()
    original.step()
    assert log == ["ran"]
    original.handle.remove()
    original.step()
    assert log == ["ran"]


def test_a_step_of_the_instance_stays_behind(way):
    """A scheduler put it there, and it steps the original."""
    original, p = trained()
    inner = original.step
    original.step = lambda *args: inner(*args)
    made = way(original)
    (q,) = params_of(made)
    backward(q, 1.0)
    made.step()
    assert (original.state[p]["step"], made.state[q]["step"]) == (1, 2)


def test_set_state_keeps_the_hooks_that_are_there():
    """As PyTorch's, which older subclasses call to load."""
    optimizer, p = trained()
    log = []
    optimizer.register_step_pre_hook(lambda *_: log.append("ran"))
    optimizer.__setstate__(optimizer.__getstate__())
    optimizer.step()
    assert log == ["ran"]
    assert optimizer.state[p]["step"] == 2


# --- subclasses -----------------------------------------------------------------------------------


class Mine(dragon_optim.RMSprop):
    """As timm's Lookahead and others: state of its own beside that of the base."""

    def __init__(self, params, **options):
        super().__init__(params, **options)
        self.steps_taken = 0
        self.slow = {param: param * 1.0 for param in params_of(self)}
        self.first = params_of(self)[0]
        self.me = self
        self._hidden = [self.defaults, self.param_groups]

    def step(self, closure=None):
        self.steps_taken += 1
        return super().step(closure)


class Remembers(dragon_optim.RMSprop):
    """PyTorch's way to bring an older pickle up to date."""

    def __setstate__(self, state):
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("new_key", 1)


def test_attributes_of_a_subclass(way):
    p = parameter([1.0, 2.0])
    original = Mine([p], momentum=0.9)
    backward(p, 1.0)
    original.step()
    made = way(original)
    (q,) = params_of(made)
    assert made.steps_taken == 1
    assert made.first is q
    assert made.me is made
    assert next(iter(made.slow)) is q
    assert values(made.slow[q]).tolist() == [1.0, 2.0]
    assert made._hidden[0] is made.defaults
    assert made._hidden[1] is made.param_groups
    made.step()
    assert (made.steps_taken, original.steps_taken) == (2, 1)


def test_a_subclass_that_updates_what_it_is_given(way):
    original = Remembers([parameter([1.0])])
    made = way(original)
    assert made.param_groups[0]["new_key"] == 1
    assert "new_key" not in original.param_groups[0]
    made.step()


def test_a_subclass_without_an_operator(way):
    made = way(dragon_optim.Optimizer([parameter([1.0])], {"mine": 5}, clip_norm=2))
    assert (made.defaults["mine"], made.defaults["clip_norm"]) == (5, 2)
    with pytest.raises(NotImplementedError, match="names no operator"):
        made.step()


# --- shallow copies -------------------------------------------------------------------------------


def test_a_shallow_copy_shares_groups_and_state():
    """As PyTorch's. Steps through either are steps of one optimizer."""
    original, p = trained(momentum=0.9)
    twin = copy.copy(original)
    assert type(twin) is type(original)
    assert twin.param_groups is original.param_groups
    twin.step()
    original.step()
    assert original.state[p]["step"] == twin.state[p]["step"] == 3
    reference, q = trained(momentum=0.9)
    reference.step(), reference.step()
    assert values(p).tobytes() == values(q).tobytes()


def test_hooks_of_a_shallow_copy_are_its_own():
    original, _ = trained()
    log = []
    original.register_step_pre_hook(lambda *_: log.append("original"))
    twin = copy.copy(original)
    twin.register_step_pre_hook(lambda *_: log.append("twin"))
    twin.step()
    assert log == ["twin"]
    original.step()
    assert log == ["twin", "original"]


def test_a_shallow_copy_has_no_step_of_the_instance():
    """PyTorch's has none: a scheduler's would run the hooks of the original."""
    original, p = trained()
    log, inner = [], original.step

    def counted():
        log.append("counted")
        return inner()

    original.step = counted
    twin = copy.copy(original)
    twin.step()
    assert log == []
    assert original.state[p]["step"] == 2
