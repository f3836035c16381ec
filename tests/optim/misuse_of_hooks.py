# SPDX-License-Identifier: BSD-2-Clause
"""Misuses of hooks and of copies: what a hook must not return or break, and what cannot be copied."""

from __future__ import annotations

import copy
import functools
import gc
import pickle
import threading
from collections import OrderedDict

import numpy as np
from dragon.core.framework import workspace
from dragon.vm import torch

import dragon_optim
from tests.optim.forked_cases import Table
from tests.optim.support import backward, parameter
from tests.optim.unreadable import never_filled, reset_tensor

CASES = Table()
misuse = CASES.case


class _Printing:
    """A hook whose repr prints a tensor that cannot be printed."""

    def __init__(self):
        self.tensor = reset_tensor()

    def __call__(self, *_):
        return 5

    def __repr__(self):
        return f"Printing({self.tensor})"


# --- what a step pre-hook returns -----------------------------------------------------------------

_WORDS = r"must return None or a tuple of \(new_args, new_kwargs\), but got "

_WRONG_RETURNS: dict = {
    "number": lambda: 5,
    "list": lambda: [(), {}],
    "triple": lambda: ((), {}, ()),
    "reset-tensor": reset_tensor,
    "list-of-a-reset-tensor": lambda: [reset_tensor()],
    "triple-of-reset-tensors": lambda: (reset_tensor(), {"t": reset_tensor()}, [reset_tensor()]),
    "set-of-a-reset-tensor": lambda: {reset_tensor()},
    "ordered-dict-of-a-reset-tensor": lambda: OrderedDict(t=reset_tensor()),
    "key-that-is-a-reset-tensor": lambda: {reset_tensor(): 1},
    "object-that-prints-a-reset-tensor": _Printing,
}

for _what, _value in _WRONG_RETURNS.items():

    @misuse(RuntimeError, _WORDS, name=f"pre-hook-returns-{_what}")
    def _(w, value=_value):
        handle = w.optimizer.register_step_pre_hook(lambda *_: value())
        yield w.optimizer.step
        handle.remove()


_HOOKS = {
    "partial": lambda: functools.partial(lambda tensor, *_: 5, reset_tensor()),
    "object": _Printing,
    "method": lambda: _Printing().__call__,
}

for _what, _value in _HOOKS.items():

    @misuse(RuntimeError, _WORDS, name=f"wrong-pre-hook-that-cannot-be-printed-{_what}")
    def _(w, value=_value):
        """The message must name the hook without printing what it holds."""
        handle = w.optimizer.register_step_pre_hook(value())
        yield w.optimizer.step
        handle.remove()


_WRONG_CALLS: dict = {
    "no-sequence": ((5, {}), TypeError, "must be a tuple"),
    "no-dict": (((), 5), TypeError, ""),
    "no-optimizer": (((), {}), TypeError, ""),
    "unknown-keyword": (None, TypeError, "wrong"),
}

for _what, (_value, _exception, _match) in _WRONG_CALLS.items():

    @misuse(_exception, _match, name=f"pre-hook-calls-with-{_what}")
    def _(w, value=_value):
        handle = w.optimizer.register_step_pre_hook(lambda owner, *_: value or ((owner,), {"wrong": 1}))
        yield w.optimizer.step
        handle.remove()


@misuse(TypeError, "hook must be callable, but got dragon.vm.torch.Tensor")
def tensor_as_a_hook(w):
    """The message must not print it."""
    tensor = reset_tensor()
    yield lambda: w.optimizer.register_step_pre_hook(tensor)


# --- what a hook does -----------------------------------------------------------------------------


@misuse(RuntimeError, "was cleared")
def pre_hook_clears_the_workspace(w):
    with workspace.Workspace().as_default():
        param = parameter([1.0])
        optimizer = dragon_optim.RMSprop([param])
        optimizer.register_step_pre_hook(lambda *_: workspace.get_workspace().clear())
        yield optimizer.step


@misuse(ValueError, "Invalid learning rate: -1")
def pre_hook_sets_a_wrong_value(w):
    handle = w.optimizer.register_step_pre_hook(lambda owner, *_: owner.param_groups[0].update(lr=-1))
    yield w.optimizer.step
    handle.remove()


@misuse(TypeError, "must be a list of Tensors")
def pre_hook_breaks_the_parameters(w):
    handle = w.optimizer.register_step_pre_hook(lambda owner, *_: owner.param_groups[0].update(params="p"))
    yield w.optimizer.step
    handle.remove()


@misuse(None)
def pre_hook_drops_a_parameter(w):
    """And its gradient with it, while its step is under way."""

    def drop(owner, *_):
        owner.param_groups[0]["params"] = owner.param_groups[0]["params"][:1]
        del owner.state[w.q]
        gc.collect()

    handle = w.optimizer.register_step_pre_hook(drop)
    yield w.optimizer.step
    handle.remove()


@misuse(None)
def hook_lets_the_optimizer_go(w):
    """The only reference that is left is that of the call."""
    holder = [dragon_optim.RMSprop([w.p])]

    def let_go(*_):
        holder.clear()
        gc.collect()

    holder[0].register_step_pre_hook(let_go)
    yield lambda: holder[0].step()


@misuse(RecursionError)
def load_hook_loads(w):
    """As in PyTorch; and the process survives it."""
    saved = w.optimizer.state_dict()
    handle = w.optimizer.register_load_state_dict_pre_hook(lambda owner, _: owner.load_state_dict(saved))
    yield lambda: w.optimizer.load_state_dict(saved)
    handle.remove()


_WRONG_LOADS: dict = {
    "number": (5, TypeError, "^state_dict must be a dict, but got .*int"),
    "empty-dict": ({}, KeyError, "param_groups"),
    "list": ([], TypeError, "^state_dict must be a dict"),
}

for _what, (_value, _exception, _match) in _WRONG_LOADS.items():

    @misuse(_exception, _match, name=f"load-pre-hook-returns-{_what}")
    def _(w, value=_value):
        handle = w.optimizer.register_load_state_dict_pre_hook(lambda *_: value)
        yield lambda: w.optimizer.load_state_dict(w.optimizer.state_dict())
        handle.remove()


# --- copies ---------------------------------------------------------------------------------------

_COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "pickle-protocol-0": lambda value: pickle.dumps(value, 0),
}


def _let_rest(tensor):
    """Dragon's own ``__del__`` reads the name of a dead tensor in memory that is gone."""
    while tensor is not None:
        tensor._deleter = None
        tensor = getattr(tensor, "_wrapped_tensor", None)


def _dead(make):
    with workspace.Workspace().as_default():
        return make()


_UNREADABLE: dict = {
    "reset": (reset_tensor, "has no data: its workspace was cleared, or the tensor was reset"),
    "never-filled": (never_filled, "has no data: it is a Tensor"),
    "dead": (lambda: _dead(lambda: torch.ones(3)), "workspace that is gone"),
    "dead-parameter": (lambda: _dead(lambda: parameter([1.0])), "workspace that is gone"),
    "copy-of-a-dead": (lambda: copy.copy(_dead(lambda: parameter([1.0]))), "workspace that is gone"),
    "copied-and-dead": (lambda: _dead(lambda: copy.copy(parameter([1.0]))), "workspace that is gone"),
}

for _how, _copy in _COPIES.items():
    for _what, (_value, _match) in _UNREADABLE.items():

        @misuse(RuntimeError, _match, name=f"{_how}-of-a-tensor-{_what}")
        def _(w, copying=_copy, value=_value):
            tensor = value()
            yield lambda: copying([tensor])
            _let_rest(tensor)

        @misuse(RuntimeError, _match, name=f"{_how}-of-an-optimizer-that-holds-a-tensor-{_what}")
        def _(w, copying=_copy, value=_value):
            w.optimizer.mine = value()
            yield lambda: copying(w.optimizer)
            _let_rest(w.optimizer.mine)
            del w.optimizer.mine

    @misuse(RuntimeError, "workspace of this optimizer was cleared", name=f"{_how}-of-a-cleared-optimizer")
    def _(w, copying=_copy):
        with workspace.Workspace().as_default():
            optimizer = dragon_optim.RMSprop([parameter([1.0])])
            optimizer.step()
            workspace.get_workspace().clear()
            yield lambda: copying(optimizer)

    @misuse(None, name=f"{_how}-of-an-optimizer-in-another-workspace")
    def _(w, copying=_copy):
        yield lambda: workspace_of_its_own(lambda: copying(w.optimizer))

    @misuse(
        pickle.PicklingError if _how.endswith("0") else TypeError,
        "lock",
        name=f"{_how}-of-an-unpicklable-subclass-attribute",
    )
    def _(w, copying=_copy):
        w.optimizer.lock = threading.Lock()
        yield lambda: copying(w.optimizer)
        del w.optimizer.lock

    @misuse(None, name=f"{_how}-of-the-state")
    def _(w, copying=_copy):
        """The mapping itself, and the entry of a parameter: plain dicts in PyTorch."""
        yield lambda: [copying(each) for each in (w.optimizer.state, w.optimizer.state[w.p])]

    @misuse(TypeError, "", name=f"{_how}-of-a-subclass-of-tensor")
    def _(w, copying=_copy):
        tensor = _Mine(np.ones(3, "float32"))
        yield lambda: copying(tensor)


class _Mine(torch.Tensor):
    pass


def workspace_of_its_own(function):
    with workspace.Workspace().as_default():
        return function()


@misuse(None)
def shallow_copies_of_what_has_no_data(w):
    tensors = [value() for value, _ in _UNREADABLE.values()]
    yield lambda: [copy.copy(tensor) for tensor in tensors]
    for tensor in tensors:
        _let_rest(tensor)


@misuse(None)
def shallow_copy_of_an_optimizer_outlives_it(w):
    p = parameter([1.0])
    optimizer = dragon_optim.RMSprop([p])
    backward(p, 1.0)
    twins = [copy.copy(optimizer)]
    del optimizer, p
    gc.collect()
    yield lambda: twins[0].step()


@misuse(None)
def copy_of_a_shallow_copy_of_a_parameter(w):
    """Which has no name of its own: neither may give it back."""
    p = parameter([1.0])
    twin = copy.copy(copy.copy(p))
    del p
    others = [parameter([float(i)]) for i in range(50)]
    yield lambda: copy.deepcopy(twin)
    assert [float(other.numpy()[0]) for other in others] == [float(i) for i in range(50)]
    assert twin.numpy().tolist() == [1.0]
