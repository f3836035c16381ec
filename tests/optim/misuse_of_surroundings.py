# SPDX-License-Identifier: BSD-2-Clause
"""Misuses from around the optimizer: workspaces, threads, closures, and other optimizers."""

from __future__ import annotations

import gc
import itertools
import os

from dragon.core.framework import workspace
from dragon.vm import torch

import dragon_optim
from tests.optim.elsewhere import in_thread
from tests.optim.forked_cases import Table
from tests.optim.support import backward, parameter, snapshot
from tests.optim.unreadable import reset_tensor

CASES = Table()
misuse = CASES.case

METHODS = ("step", "sum_grad", "zero_grad")  # of stock optimizers too


# --- workspaces and threads -----------------------------------------------------------------------


def _add_group(optimizer):
    optimizer.add_param_group({"params": [parameter([1.0])]})


CALLS = {
    **{name: lambda o, name=name: getattr(o, name)() for name in (*METHODS, "update_graph")},
    "add_param_group": _add_group,
}

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
    yield lambda: dragon_optim.RMSprop([stranger])


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
    yield lambda: dragon_optim.RMSprop([orphan])


@misuse(RuntimeError, "has no data")
def parameter_that_was_reset(w):
    empty = parameter([1.0])
    empty._impl.Reset()
    yield lambda: dragon_optim.RMSprop([empty])


@misuse(None, goes_on=False)
def printed_after_the_workspace_was_cleared(w):
    """Dragon ends the process when it prints an empty tensor."""
    w.group["lr"] = torch.tensor(0.1)
    workspace.get_workspace().clear()
    yield lambda: repr(w.optimizer)


@misuse(TypeError, "^lr must be a number, but got .*without|^lr must be a number, but got .*no data")
def hyper_parameter_that_cannot_be_printed(w):
    """The message names the value, and Dragon ends the process when it prints this one."""
    w.group["lr"] = [reset_tensor()]
    yield w.optimizer.step


@misuse(None)
def unknown_key_that_cannot_be_printed(w):
    w.group["mine"] = {"a": (1, [reset_tensor()])}
    yield lambda: repr(w.optimizer)


@misuse(RuntimeError, "workspace that is gone")
def state_of_a_dead_workspaces_parameter_that_joins(w):
    other = workspace.Workspace()
    with other.as_default():
        param = torch.nn.Parameter(torch.ones(3))
    w.optimizer.state[param] = {"step": 3}
    del other
    gc.collect()
    yield lambda: w.optimizer.add_param_group({"params": [param]})


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


# --- other optimizers on the same parameters ------------------------------------------------------


@misuse(None, goes_on=False)
def every_order_of_our_calls_and_of_stock(w):
    """Stock's zero_grad() ends the process where it finds an empty gradient: we must leave none."""

    def act():
        weight = parameter([1.0, 2.0])
        ours, stock = dragon_optim.RMSprop([weight]), torch.optim.RMSprop([weight])
        calls = [getattr(each, name) for each in (ours, stock) for name in METHODS] + [
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
