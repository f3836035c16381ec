# SPDX-License-Identifier: BSD-2-Clause
"""Expressions of what a parameter was, before a recorded step made another tensor of it.

Dragon's tape names the tensors that an operator has read, but holds the objects, and a parameter moves from
tensor to tensor. While its history goes on, a backward pass comes from the object to all that it was. When it
has ended, the name is nobody's or another's: what flows back would be lost, or end the process. So a backward
pass is looked at before it begins, as PyTorch does by version counters.
"""

import functools
from typing import Any, Dict, Iterable, List, Sequence, Set

from dragon.core.framework.tapes import OrderedTape
from dragon.vm.torch.core.autograd.function import Function
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon import wrapping
from dragon_optim._dragon.workspace import Workspace, current

_ATTRIBUTE = "_dragon_optim_left_behind"
_FROZEN = "_dragon_optim_frozen"  # attribute of a parameter


class _Ends:
    """When, counted in operators on tapes, names of one workspace ceased to mean what they had meant."""

    def __init__(self) -> None:
        self.moved: Dict[str, int] = {}  # the parameter is another tensor; 0: and no gradient flowed to it
        self.over: Dict[str, int] = {}  # and nothing leads there any more: the tensor is gone, or detached


def _ends(workspace: Workspace) -> _Ends:
    found: _Ends = workspace.__dict__.setdefault(_ATTRIBUTE, _Ends())
    return found


def _now() -> int:
    """A number between those of the operators recorded so far and of those to come."""
    return next(OrderedTape._element_index)


def note_move(workspace: Workspace, tensor: Tensor) -> None:
    """A parameter, which was this tensor, has become another."""
    _ends(workspace).moved[tensor._impl.name] = _now() if tensor._requires_grad else 0


def note_frozen(tensor: Tensor) -> None:
    """A parameter that asked for no gradient is on the tape, as long as its history goes on."""
    tensor.__dict__[_FROZEN] = True


def freeze_again(tensor: Tensor) -> None:
    """The history of a tensor has ended."""
    if tensor.__dict__.pop(_FROZEN, False):
        tensor._requires_grad = False


def note_end(workspace: Workspace, name: str) -> None:
    """What was recorded of this tensor leads nowhere any more."""
    _ends(workspace).over[name] = _now()


def note_release(workspace: Workspace, name: str) -> None:
    """The last owner of a name is gone."""
    ends = workspace.__dict__.get(_ATTRIBUTE)
    if ends is not None and name in ends.moved:
        del ends.moved[name]
        ends.over[name] = _now()


class _WayBack:
    """What a backward pass will come by."""

    def __init__(self, outputs: Iterable[Tensor]) -> None:
        # Dragon lets go of each tape when it has found the operators on it, but the names of their results
        # must be theirs until the pass is over.
        self.tapes: List[OrderedTape] = []
        self.leaves: Set[str] = set()
        self.used_up: List[Tensor] = []  # whose history the pass ends
        seen: Set[int] = set()
        waiting = list(outputs)
        while waiting:
            each = waiting.pop()
            if id(each) in seen:
                continue
            seen.add(id(each))
            if each._tape is not None:
                self.tapes.append(each._tape)
                self.used_up.append(each)
                waiting.extend(each._tape.get_sources())
            elif each._requires_grad:
                self.leaves.add(each._impl.name)

    def check(self, ends: _Ends) -> None:
        """Raise where it leads to a tensor that its parameter has left behind."""
        operators: Dict[int, Any] = {}
        for each in self.tapes:
            operators.update(each._elements)
        reached = set(self.leaves)
        for each in operators.values():
            reached.update(each.output)
        for number, each in operators.items():
            for name in each.input:
                lost = name not in reached and number < ends.moved.get(name, 0)
                if lost or number < ends.over.get(name, 0):
                    raise RuntimeError(_LEFT_BEHIND)


_LEFT_BEHIND = (
    "backward(): one of the tensors needed for gradient computation has been modified by an inplace "
    "operation: an expression was computed of a parameter, or of a state, that has become another tensor by "
    "a step with differentiable=True, and its history has ended since (by a backward pass through it, a step "
    "under torch.no_grad(), or detach_()). Call backward() before the history ends, or compute the "
    "expression anew. Nothing was changed."
)

_backward = Function.backward


@functools.wraps(_backward)
def _checked_backward(outputs: Sequence[Tensor], grad_outputs: Any, retain_graph: bool = False) -> Any:
    ends = current().__dict__.get(_ATTRIBUTE)
    if ends is None:
        return _backward(outputs, grad_outputs, retain_graph)
    outputs = list(outputs)
    way = _WayBack(outputs)
    way.check(ends)
    result = _backward(outputs, grad_outputs, retain_graph)
    for each in way.used_up:
        freeze_again(each)
    return result


def install() -> None:
    """Look at every backward pass from now on."""
    wrapping.install(Function, "backward", _checked_backward, static=True)
