# SPDX-License-Identifier: BSD-2-Clause
"""Which leaves a backward pass has reached, and when.

Dragon overwrites a gradient in place and leaves no mark. The one place that knows is
``Workspace.run_backward``, which is handed the leaves of each pass.
"""

import functools
from itertools import repeat
from typing import Any, Dict, Sequence

import numpy
from dragon.core.framework import tapes

from dragon_optim._dragon import wrapping
from dragon_optim._dragon.workspace import Workspace


class _Record:
    """The backward passes of one workspace."""

    def __init__(self) -> None:
        self.passes = 0
        self.last_pass: Dict[str, int] = {}  # name of a leaf -> number of the last pass that reached it
        self.moves = 0  # parameters that have become another tensor


# The record is an attribute of the workspace: it is looked at for every tensor that dies, and a dictionary of
# weak keys would be slow.
_ATTRIBUTE = "_dragon_optim_tape"


def _record(workspace: Workspace) -> _Record:
    record = workspace.__dict__.get(_ATTRIBUTE)
    if record is None:
        record = workspace.__dict__[_ATTRIBUTE] = _Record()
    return record


def passes(workspace: Workspace) -> int:
    """How many backward passes have run."""
    return _record(workspace).passes


def move_counter(workspace: Workspace) -> _Record:
    """What counts, in its attribute `moves`, how often a parameter has become another tensor."""
    return _record(workspace)


def note_move(workspace: Workspace) -> None:
    """A parameter has become another tensor."""
    _record(workspace).moves += 1


def reached_since(workspace: Workspace, names: Sequence[str], number: int) -> numpy.ndarray:
    """For each leaf, whether a pass after the `number`-th one reached it."""
    last = _record(workspace).last_pass
    return numpy.fromiter(map(last.get, names, repeat(0)), "int64", len(names)) > number


def is_leaf(workspace: Workspace, name: str) -> bool:
    """Whether a pass ever reached this leaf."""
    return name in _record(workspace).last_pass


def last_passes(workspace: Workspace) -> Dict[str, int]:
    """For each leaf, the number of the last pass that reached it; a copy."""
    return dict(_record(workspace).last_pass)


def mark(workspace: Workspace, leaves: Sequence[str]) -> None:
    """Take note of a backward pass that has run as part of a graph."""
    if leaves:
        record = _record(workspace)
        record.passes += 1
        record.last_pass.update(dict.fromkeys(leaves, record.passes))


def forget(workspace: Workspace, name: str) -> None:
    """The leaf is dead."""
    _record(workspace).last_pass.pop(name, None)


def check_not_traced(what: str) -> None:
    """Raise under ``torch.jit.trace``: it runs the function twice and records no backward pass."""
    tape = tapes.get_tape()
    if tape is not None and hasattr(tape, "_tracing"):
        raise RuntimeError(
            f"{what} cannot be traced by torch.jit.trace: the trace holds no backward pass, and would go on "
            "with the gradients of its first run. Trace the forward part only, and train outside of it."
        )


_run_backward = Workspace.run_backward


@functools.wraps(_run_backward)
def _recorded_run_backward(
    self: Workspace, op_defs: Any, targets: Any, grad_targets: Any = None, sources: Any = None
) -> None:
    _run_backward(self, op_defs, targets, grad_targets, sources)
    mark(self, sources or ())


def install() -> None:
    """Record from now on, in every workspace."""
    wrapping.install(Workspace, "run_backward", _recorded_run_backward)
