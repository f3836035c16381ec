# SPDX-License-Identifier: BSD-2-Clause
"""Misuses of `differentiable=True`."""

from __future__ import annotations

import threading

import dragon
import numpy as np
from dragon.core.framework import workspace
from dragon.vm import torch

import dragon_optim
from tests.optim.forked_cases import Table
from tests.optim.support import backward, feed_gradient, parameter, snapshot
from tests.optim.unreadable import reset_tensor
from tests.optim.unrolled import tensor

CASES = Table()
misuse = CASES.case


class Recorded:
    """A differentiable optimizer after two recorded steps."""

    def __init__(self, p=None, **options):
        self.p = parameter([1.0, 2.0, 3.0]) if p is None else p
        self.lr = tensor(0.1, dtype="float32")
        self.optimizer = dragon_optim.RMSprop(
            [self.p], lr=self.lr, momentum=0.5, differentiable=True, **options
        )
        for _ in range(2):
            self.good_step()

    def good_step(self):
        with self.optimizer.as_leaves():
            backward(self.p, 1.0)
        self.optimizer.step()

    def check(self, before):
        """Nothing has changed, and the history goes on."""
        assert snapshot(self.optimizer, self.p) == before
        assert not self.p.is_leaf
        self.good_step()
        self.p.sum().backward()
        assert self.lr.grad is not None


def recorded_case(exception, match, name, arrange):
    """A case that `arrange`s something with a recorded optimizer, and yields what that returns."""

    @misuse(exception, match, name=name)
    def _(w):
        r = Recorded()
        before = snapshot(r.optimizer, r.p)
        yield arrange(r)
        r.check(before)


def stepped(r, gradients):
    return lambda: r.optimizer.step(gradients=gradients)


GOOD = np.ones(3, "float32")
_GRADIENTS = {
    "list": (lambda r: [tensor(GOOD)], TypeError, "gradients must be a dict"),
    "array": (lambda r: {r.p: GOOD}, TypeError, "a gradient must be a Tensor, but got numpy.ndarray"),
    "none": (lambda r: {r.p: None}, TypeError, "a gradient must be a Tensor"),
    "stranger": (lambda r: {parameter(GOOD): tensor(GOOD)}, ValueError, "no parameter of this optimizer"),
    "name": (lambda r: {"weight": tensor(GOOD)}, ValueError, "no parameter of this optimizer"),
    "shape": (
        lambda r: {r.p: tensor([1.0], dtype="float32")},
        ValueError,
        r"the gradient of parameter 0 of group 0 is float32 of shape \(1,\)",
    ),
    "dtype": (
        lambda r: {r.p: tensor(GOOD)},
        ValueError,
        "the gradient of parameter 0 of group 0 is float64",
    ),
    "reset": (lambda r: {r.p: reset_tensor()}, RuntimeError, "a gradient given to step.* has no data"),
    "foreign": (lambda r: {r.p: _foreign()}, RuntimeError, "belongs to another Dragon workspace"),
}


def _foreign():
    other = workspace.Workspace()
    with other.as_default():
        made = torch.ones(3)
    made.kept_alive = other
    return made


for _name, (_make, _exception, _match) in _GRADIENTS.items():
    recorded_case(_exception, _match, f"gradients-{_name}", lambda r, make=_make: stepped(r, make(r)))


def _set(r, key, value):
    r.optimizer.param_groups[0][key] = value
    return r.optimizer.step


@misuse(ValueError, "gradients only with differentiable=True")
def gradients_for_an_ordinary_step(w):
    yield lambda: w.optimizer.step(gradients={w.p: torch.ones(3)})


@misuse(RuntimeError, "gradients are given, but sums")
def gradients_while_sums_wait(w):
    r = Recorded()
    with r.optimizer.as_leaves():
        backward(r.p, 1.0)
    r.optimizer.sum_grad()
    yield stepped(r, {r.p: torch.ones(3)})


for _key, _value, _match in [
    ("momentum", 0.0, "momentum is 0, which turns it off"),
    ("clip_norm", 0.0, "clip_norm is 0"),
    ("clip_value", 0.0, "clip_value is 0"),
    ("centered", 1.0, "centered cannot be differentiated"),
    ("initial_square_avg", 1.0, "initial_square_avg cannot be differentiated"),
    ("lr", -1.0, "Invalid learning rate"),
    ("lr", [0.1, 0.2], "lr must be 1-element"),
]:

    @misuse(ValueError, _match, name=f"a-tensor-of-{_key}-{_value}")
    def _(w, key=_key, value=_value):
        p = parameter(GOOD)
        optimizer = dragon_optim.RMSprop([p], differentiable=True)
        backward(p, 1.0)
        optimizer.param_groups[0][key] = tensor(value)
        before = snapshot(optimizer, p)
        yield optimizer.step
        assert snapshot(optimizer, p) == before
        optimizer.param_groups[0][key] = 0.5
        optimizer.step()


@misuse(AssertionError, "^_foreach ops don't support autograd")
def with_foreach(w):
    yield lambda: dragon_optim.RMSprop([w.p], foreach=True, differentiable=True)


@misuse(AssertionError, "^_foreach ops don't support autograd")
def with_foreach_later(w):
    w.group.update(foreach=True, differentiable=True)
    yield w.optimizer.step


@misuse(ValueError, "^Invalid differentiable value: maybe")
def a_flag_that_is_none(w):
    yield lambda: dragon_optim.RMSprop([w.p], differentiable="maybe")


@misuse(ValueError, "differentiable must be the same in all groups")
def in_one_group_only(w):
    yield lambda: w.optimizer.add_param_group({"params": [parameter(GOOD)], "differentiable": True})


@misuse(TypeError, "parameter 0 of group 0 is float16, but differentiable=True needs")
def float16(w):
    yield lambda: dragon_optim.RMSprop([parameter(GOOD, "float16")], differentiable=True)


@misuse(TypeError, "parameter 0 of group 0 is float16")
def float16_later(w):
    r = Recorded()
    r.optimizer.detach_()
    r.p._impl.FromNumpy(np.ones(3, "float16"), True)
    feed_gradient(r.p, np.ones(3, "float16"))
    yield r.optimizer.step


@misuse(ValueError, "shares its memory with another Tensor object")
def two_objects_over_one_tensor(w):
    first = parameter(GOOD)
    yield lambda: dragon_optim.RMSprop([first, torch.nn.Parameter(first)], differentiable=True)


@misuse(ValueError, "can't optimize a non-leaf")
def a_parameter_on_the_tape_without_it(w):
    r = Recorded()
    yield lambda: dragon_optim.RMSprop([r.p])


@misuse(ValueError, "can't optimize a non-leaf")
def switched_off_in_the_middle_of_a_history(w):
    r = Recorded()
    yield _set(r, "differentiable", False)


@misuse(NotImplementedError, "differentiable=True: DragonOptimRMSprop has no form")
def an_operator_without_a_differentiable_form(w):
    class Plain(dragon_optim.RMSprop):
        differentiable_operator = None

    p = parameter(GOOD)
    optimizer = Plain([p], differentiable=True)
    backward(p, 1.0)
    yield optimizer.step


@misuse(RuntimeError, "no parameter has a gradient, since the last backward pass went on")
def a_backward_pass_through_the_history_and_no_gradient(w):
    r = Recorded()
    backward(r.p, 1.0)
    yield r.optimizer.step


@misuse(RuntimeError, "another Dragon workspace")
def another_workspace(w):
    r = Recorded()

    def elsewhere():
        with dragon.Workspace().as_default():
            r.optimizer.step()

    yield elsewhere


@misuse(RuntimeError, "another Dragon workspace")
def another_thread(w):
    r, caught = Recorded(), []

    def work():
        try:
            r.optimizer.step()
        except RuntimeError as error:
            caught.append(error)

    def elsewhere():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        raise caught[0]

    yield elsewhere


_STATES = {
    "shape": (lambda: tensor([1.0], dtype="float32"), "square_avg requires a gradient and so must have"),
    "dtype": (lambda: tensor(GOOD), "square_avg requires a gradient and so must have"),
}
for _name, (_make, _match) in _STATES.items():
    recorded_case(
        ValueError,
        _match,
        f"a-state-on-the-tape-of-another-{_name}",
        lambda r, make=_make: lambda: r.optimizer.state[r.p].__setitem__("square_avg", make()),
    )


@misuse(ValueError, "a state of parameter 0 of group 0")
def a_state_that_changed_its_shape(w):
    r = Recorded()
    r.optimizer.state[r.p]["square_avg"]._impl.FromNumpy(np.ones(7, "float32"), True)
    with r.optimizer.as_leaves():
        backward(r.p, 1.0)
    yield r.optimizer.step


@misuse(None)
def a_closure_that_raises_keeps_the_history(w):
    r = Recorded()
    before = snapshot(r.optimizer, r.p)

    def closure():
        raise ZeroDivisionError

    def step():
        try:
            r.optimizer.step(closure)
        except ZeroDivisionError:
            return
        raise AssertionError("no error")

    yield step
    r.check(before)
