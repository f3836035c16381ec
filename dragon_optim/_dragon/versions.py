# SPDX-License-Identifier: BSD-2-Clause
"""Tensors that go from version to version on Dragon's tape.

A tape names tensors, so what it has recorded must stay under its name. A step that is recorded therefore does
not write to a parameter: it makes a new tensor, and the Python object that is the parameter moves there. What
it was before goes on in a stand-in, which the tape holds.
"""

import contextlib
from typing import Any, Dict, Iterator, List, Optional, Sequence

from dragon.vm.torch.core.autograd import grad_mode
from dragon.vm.torch.core.autograd.function import Function
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon import graphs, left_behind, names, tape
from dragon_optim._dragon.workspace import Workspace, current


def is_recording() -> bool:
    """Whether Dragon records what is computed now: not under ``torch.no_grad()``."""
    return bool(grad_mode.is_grad_enabled())


def history(tensor: Tensor) -> Any:
    """The tape that a tensor comes from; None for a leaf."""
    return tensor._tape


def is_on_tape(tensor: Tensor) -> bool:
    """Whether a gradient can flow back through or to the tensor."""
    return tensor._tape is not None or bool(tensor._requires_grad)


def cut(tensor: Tensor) -> None:
    """Make a leaf of a tensor. What comes after it on the tape stays recorded."""
    tensor._tape = None
    left_behind.freeze_again(tensor)
    hidden = tensor.__dict__.get(_HIDDEN, [])
    hidden[:] = [None] * len(hidden)


def constant(tensor: Tensor) -> None:
    """Make a tensor one that no gradient flows to."""
    tensor._tape = None
    tensor._requires_grad = False


def note_end(tensor: Tensor) -> None:
    """Let no backward pass come to a tensor with a history from what was computed of it before."""
    if tensor._tape is not None or has_hidden_history(tensor):
        left_behind.note_end(current(), tensor._impl.name)


_HIDDEN = "_dragon_optim_hidden"  # attribute of a tensor: the tape that each block of `as_leaves` has hidden


def is_hidden(tensor: Tensor) -> bool:
    """Whether `as_leaves` hides the history of a tensor, if it has one."""
    return bool(tensor.__dict__.get(_HIDDEN))


def has_hidden_history(tensor: Tensor) -> bool:
    """Whether a tensor that looks like a leaf has a history, which `as_leaves` hides."""
    return any(tape_of_each is not None for tape_of_each in tensor.__dict__.get(_HIDDEN, []))


@contextlib.contextmanager
def as_leaves(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Let a backward pass stop at these tensors, and leave what lies before them on the tape."""
    for each in parameters:
        each.__dict__.setdefault(_HIDDEN, []).append(each._tape)
        each._tape = None
    try:
        yield
    finally:
        for each in parameters:
            tape_of_each = each.__dict__[_HIDDEN].pop()
            if not each.__dict__[_HIDDEN]:
                del each.__dict__[_HIDDEN]
            if each._tape is None:
                each._tape = tape_of_each


def register(kind: str, keys: Sequence[str]) -> None:
    """Tell Dragon the arguments of an operator that is applied by `apply`."""

    def arguments(**given: Any) -> Dict[str, Any]:
        # Dragon cannot tell the type of an empty list's elements; our operators read a missing one as empty.
        return {key: list(given[key]) for key in keys if given.get(key)}

    Function.register(kind, arguments)


def apply(kind: str, inputs: Sequence[Tensor], results: int, **arguments: Any) -> List[Tensor]:
    """Run an operator that writes to new tensors, and record it if Dragon records.

    The arguments must be few in their kinds: Dragon keeps an operator for each that it has seen.
    """
    home = current()
    with names.for_versions(home):
        made = Function.apply(kind, inputs[-1].device, list(inputs), outputs=[None] * results, **arguments)
    made = [made] if results == 1 else list(made)
    owners = [_Name(home, each._impl.name) for each in made]
    for each, owner in zip(made, owners):
        each._deleter = owner
    recorded = made[0]._tape  # of all results
    if recorded is not None:
        # The name of the operator too: Dragon gives it back after a backward pass, or never.
        recorded.dragon_optim_names = [*owners, *(_Handle(home, each) for each in recorded._handles)]
        recorded._handles = set()
    return made


class _Name:
    """The name of a version: owned by its tensor, and by the tape on which it is a result.

    Dragon's tape holds what goes into an operator, but not what comes out. The name of a result that nobody
    holds any more, such as a state of an optimizer that is gone, would go to a new tensor, and what flows
    back to that one would flow back to the operator.
    """

    __slots__ = ("_name", "_workspace")

    def __init__(self, workspace: Workspace, name: str) -> None:
        self._workspace = workspace
        self._name = name

    def release(self, name: str) -> None:
        """Do nothing: Dragon's ``Tensor.__del__`` calls this, and lets go of its reference next."""

    def __del__(self) -> None:
        names.give_back(self._workspace, self._name)


class _Handle:
    """The name of an operator, owned by the tape on which it stands."""

    __slots__ = ("_name", "_workspace")

    def __init__(self, workspace: Workspace, name: str) -> None:
        self._workspace = workspace
        self._name = name

    def __del__(self) -> None:
        names.give_handle_back(self._workspace, self._name)


def copy(workspace: Workspace, source: Tensor) -> Tensor:
    """Return a constant with the values of a tensor, which may be overwritten afterwards."""
    new = names.tensor_pool(workspace).new(source.device)
    graphs.tensor_from(source.numpy(), new)
    return new


def stand_in(param: Tensor) -> Tensor:
    """Return a second object for a parameter as it is now. It owns nothing before `move`."""
    twin = Tensor(device=param.device, impl=param._impl, requires_grad=param._requires_grad)
    twin._tape = param._tape
    return twin


def move(param: Tensor, twin: Tensor, version: Tensor) -> None:
    """Let the parameter be `version` from now on; what it was belongs to its stand-in."""
    twin._deleter = param._deleter
    if hasattr(param, "_wrapped_tensor"):  # the owner of the tensor that a Parameter was made of
        twin._wrapped_tensor = param._wrapped_tensor
        del param._wrapped_tensor
    param._impl, param._tape, param._deleter = version._impl, version._tape, version._deleter
    if version._tape is None:
        left_behind.freeze_again(param)
    elif not param._requires_grad:
        left_behind.note_frozen(param)
        param._requires_grad = True
    version._deleter = None
    left_behind.note_move(current(), twin)
    tape.note_move(current())


def gradient(tensor: Tensor) -> Optional[Tensor]:
    """The gradient that a backward pass has left at a tensor; None if there is none with data."""
    found: Optional[Tensor] = tensor.grad
    return found
