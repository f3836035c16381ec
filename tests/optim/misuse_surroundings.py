# SPDX-License-Identifier: BSD-2-Clause
"""Misuses from around the optimizer: workspaces, threads, closures, `state`, models, other optimizers.

They join the table of `misuse_cases.py`.
"""

from __future__ import annotations

import gc
import itertools
import os

import numpy as np
from dragon.core.framework import workspace
from dragon.vm import torch

import dragon_optim
from tests.optim.misuse_cases import CASES, make, misuse
from tests.optim.support import backward, feed_gradient, in_thread, parameter, serve, snapshot

__all__ = ["CASES"]

METHODS = ("step", "sum_grad", "zero_grad")


# --- workspaces and threads -----------------------------------------------------------------------


def _add_group(optimizer):
    optimizer.add_param_group({"params": [parameter([1.0])]})


CALLS = {**{name: lambda o, name=name: getattr(o, name)() for name in METHODS}, "add_param_group": _add_group}

for _name, _call in CALLS.items():

    @misuse(RuntimeError, "another Dragon workspace", name=f"{_name}-in-another-workspace")
    def _(w, call=_call):
        def act():
            with workspace.Workspace().as_default():
                call(w.optimizer)

        yield act

    @misuse(RuntimeError, "another Dragon workspace", name=f"{_name}-in-another-thread")
    def _(w, call=_call):
        yield lambda: in_thread(lambda: call(w.optimizer))

    @misuse(RuntimeError, "workspace.* was cleared", name=f"{_name}-after-clear", goes_on=False)
    def _(w, call=_call):
        workspace.get_workspace().clear()
        yield lambda: call(w.optimizer)

    @misuse(RuntimeError, "another Dragon workspace", name=f"{_name}-after-reset_workspace", goes_on=False)
    def _(w, call=_call):
        workspace.reset_workspace()
        yield lambda: call(w.optimizer)


@misuse(None)
def step_in_a_thread_that_takes_the_workspace_along(w):
    home = workspace.get_workspace()

    def work():
        with home.as_default():
            w.optimizer.step()

    yield lambda: in_thread(work)


@misuse(None, goes_on=False)
def new_optimizers_after_clear(w):
    workspace.get_workspace().clear()
    yield type(w)


@misuse(None, goes_on=False)
def new_optimizers_after_reset_workspace(w):
    workspace.reset_workspace()
    yield type(w)


@misuse(None, goes_on=False)
def optimizer_dropped_after_reset_workspace(w):
    """The optimizer is the last to hold the workspace, and its tensors must go first."""

    def act():
        for _ in range(5):
            fresh = type(w)()
            workspace.reset_workspace()
            fresh.p = fresh.q = fresh.groups = None
            del fresh
            gc.collect()

    yield act


@misuse(RuntimeError, "parameter 0 belongs to another Dragon workspace")
def parameter_of_another_workspace(w):
    other = workspace.Workspace()
    with other.as_default():
        stranger = parameter([1.0])
    yield make([stranger])


@misuse(RuntimeError, "parameter 2 belongs to another Dragon workspace")
def group_grown_by_a_parameter_of_another_workspace(w):
    other = workspace.Workspace()
    with other.as_default():
        w.group["params"].append(parameter([1.0]))
    yield w.optimizer.step


@misuse(RuntimeError, "parameter 0 belongs to a Dragon workspace that is gone")
def parameter_of_a_dead_workspace(w):
    other = workspace.Workspace()
    with other.as_default():
        orphan = parameter([1.0])
    del other
    gc.collect()
    yield make([orphan])


@misuse(RuntimeError, "has no data")
def parameter_that_was_reset(w):
    empty = parameter([1.0])
    empty._impl.Reset()
    yield make([empty])


@misuse(None, goes_on=False)
def printed_after_the_workspace_was_cleared(w):
    """Dragon ends the process when it prints an empty tensor."""
    w.group["lr"] = torch.tensor(0.1)
    workspace.get_workspace().clear()
    yield lambda: repr(w.optimizer)


# --- closures -------------------------------------------------------------------------------------


@misuse(ZeroDivisionError)
def closure_that_raises(w):
    yield lambda: w.optimizer.step(lambda: 1 / 0)


@misuse(TypeError, "'int' object is not callable")
def closure_that_is_not_callable(w):
    yield lambda: w.optimizer.step(5)


@misuse(RuntimeError, "workspace.* was cleared", goes_on=False)
def closure_that_clears_the_workspace(w):
    def act():
        w.optimizer.step(workspace.get_workspace().clear)

    workspace.get_workspace().clear()
    yield act


# --- state ----------------------------------------------------------------------------------------

_WRONG_STATES = {
    "shape": (lambda: np.ones(4), ValueError, r"square_avg must have the shape of its parameter, \(3,\)"),
    "scalar": (lambda: 1.0, ValueError, "square_avg must have the shape"),
    "None": (lambda: None, ValueError, "square_avg"),
    "complex": (lambda: np.ones(3, "complex64"), TypeError, "square_avg must hold real numbers"),
    "strings": (lambda: ["a", "b", "c"], TypeError, "square_avg must hold real numbers"),
    "reset-tensor": (lambda: _reset_tensor(), RuntimeError, "no data"),
    "dead-tensor": (lambda: _dead_tensor(), RuntimeError, "workspace that is gone"),
}
_WRONG_STEPS = {
    "negative": (lambda: -1, ValueError, "Invalid step value: -1"),
    "fraction": (lambda: 1.5, TypeError, "step must be a whole number"),
    "nan": (lambda: float("nan"), TypeError, "step must be a whole number"),
    "string": (lambda: "1", TypeError, "step must be a whole number"),
    "huge": (lambda: 2**70, OverflowError, ""),
    "reset-tensor": (lambda: _reset_tensor(), RuntimeError, "no data"),
}


def _reset_tensor():
    tensor = torch.ones(3)
    tensor._impl.Reset()
    return tensor


def _dead_tensor():
    other = workspace.Workspace()
    with other.as_default():
        return torch.ones(3)


for _key, _table in {"square_avg": _WRONG_STATES, "step": _WRONG_STEPS}.items():
    for _what, (_value, _exception, _match) in _table.items():

        @misuse(_exception, _match, name=f"state-{_key}-{_what}")
        def _(w, key=_key, value=_value):
            value = value()
            yield lambda: w.optimizer.state[w.p].__setitem__(key, value)

        @misuse(_exception, _match, name=f"state-entry-with-{_key}-{_what}")
        def _(w, key=_key, value=_value):
            entry = {"momentum_buffer": np.zeros(3), key: value()}
            yield lambda: w.optimizer.state.__setitem__(w.p, entry)

        @misuse(_exception, _match, name=f"whole-state-with-{_key}-{_what}")
        def _(w, key=_key, value=_value):
            new = {w.q: {}, w.p: {key: value()}}
            yield lambda: setattr(w.optimizer, "state", new)


@misuse(TypeError, "state of a parameter must be a mapping, but got int")
def state_entry_that_is_no_mapping(w):
    yield lambda: w.optimizer.state.__setitem__(w.p, 5)


@misuse(KeyError, "variance")
def state_that_does_not_exist(w):
    yield lambda: w.optimizer.state[w.p].__delitem__("variance")


@misuse(ValueError, r"a state of parameter 0 of group 0 is float32 of shape \(7,\).*del optimizer.state")
def state_tensor_changed_behind_our_back(w):
    w.optimizer.state[w.p]["grad_avg"]._impl.FromNumpy(np.ones(7, "float32"), True)
    yield w.optimizer.step
    del w.optimizer.state[w.p]["grad_avg"]


@misuse(None)
def one_state_deleted(w):
    yield lambda: w.optimizer.state.__delitem__(w.p)
    w.optimizer.step()  # so that there is a step count again


# --- models that change ---------------------------------------------------------------------------


def _convert(dtype):
    return lambda w: w.p._impl.FromNumpy(np.array(w.p.numpy(), dtype), True)


for _dtype in ("float16", "float64", "int32"):

    @misuse(RuntimeError, f"parameter 0 .* {_dtype}.*float32", name=f"step-after-conversion-to-{_dtype}")
    def _(w, dtype=_dtype):
        """`.half()` and `.double()` convert in place."""
        _convert(dtype)(w)
        yield w.optimizer.step
        _convert("float32")(w)

    @misuse(None, name=f"conversion-to-{_dtype}-and-a-new-start", goes_on=False)
    def _(w, dtype=_dtype):
        if dtype == "int32":
            dtype = "float64"
        _convert(dtype)(w)
        del w.optimizer.state[w.p]
        feed_gradient(w.p, np.ones(3, dtype))
        yield w.optimizer.step
        assert w.optimizer.state[w.p]["step"] == 1


@misuse(TypeError, "parameter 0 is int32", goes_on=False)
def first_step_after_conversion_to_int32(w):
    weight = parameter([1.0])
    optimizer = dragon_optim.RMSprop([weight])
    backward(weight, 1.0)
    weight._impl.FromNumpy(np.ones(1, "int32"), True)
    yield optimizer.step


@misuse(RuntimeError, "has no data", goes_on=False)
def first_step_of_a_parameter_that_was_reset(w):
    weight = parameter([1.0])
    optimizer = dragon_optim.RMSprop([weight])
    backward(weight, 1.0)
    weight._impl.Reset()
    yield optimizer.step


@misuse(ValueError, r"a state of parameter 0.* shape \(3,\).*shape \(2, 2\)")
def parameter_that_takes_another_shape(w):
    w.p._impl.FromNumpy(np.ones((2, 2), "float32"), True)
    feed_gradient(w.p, np.ones((2, 2), "float32"))
    yield w.optimizer.step
    w.p._impl.FromNumpy(np.ones(3, "float32"), True)


@misuse(None, goes_on=False)
def many_tiny_parameters(w):
    params = [parameter(float(i % 7)) for i in range(8193)]
    optimizer = dragon_optim.RMSprop(params, lr=1.0, alpha=0.75, eps=0.0)
    for param in params:
        feed_gradient(param, np.ones((), "float32"))
    yield optimizer.step
    assert [float(param.numpy()) for param in params] == [i % 7 - 2.0 for i in range(8193)]


# --- other optimizers on the same parameters ------------------------------------------------------

_OURS = ("step", "sum_grad", "zero_grad")


@misuse(None, goes_on=False)
def every_order_of_our_calls_and_of_stock(w):
    """Stock's zero_grad() ends the process where it finds an empty gradient: we must leave none."""

    def act():
        weight = parameter([1.0, 2.0])
        ours, stock = dragon_optim.RMSprop([weight]), torch.optim.RMSprop([weight])
        calls = [getattr(each, name) for each in (ours, stock) for name in _OURS] + [
            lambda: backward(weight, 1.0)
        ]
        for order in itertools.product(calls, repeat=3):
            backward(weight, 1.0)
            for call in order:
                call()

    yield act


@misuse(None, goes_on=False)
def our_calls_without_gradients_then_stock(w):
    weights = [parameter([1.0]), parameter([2.0])]
    ours, stock = dragon_optim.RMSprop(weights), torch.optim.RMSprop(weights)
    ours.step(), ours.sum_grad(), ours.zero_grad(), ours.zero_grad(True), ours.step()
    yield lambda: (stock.zero_grad(), stock.step())


@misuse(None, goes_on=False)
def model_rebuilt_for_a_stock_optimizer(w):
    """Ours leaves an empty gradient behind, at which stock would end the process if it were inherited."""

    def act():
        for _ in range(3):
            weight = parameter([1.0])
            optimizer = dragon_optim.RMSprop([weight])
            backward(weight, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            del weight, optimizer
            weight = parameter([1.0])
            stock = torch.optim.SGD([weight], lr=0.1)
            stock.zero_grad()
            backward(weight, 1.0)
            stock.step()
            stock.zero_grad()
            del weight, stock

    yield act


@misuse(None)
def step_in_a_forked_child(w):
    def act():
        pid = os.fork()
        if pid == 0:
            before = snapshot(w.optimizer, w.p)
            w.optimizer.step()
            os._exit(0 if snapshot(w.optimizer, w.p) != before else 3)
        assert os.waitpid(pid, 0)[1] == 0

    yield act


if __name__ == "__main__":
    serve(CASES)
