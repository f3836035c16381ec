# SPDX-License-Identifier: BSD-2-Clause
"""Several calls into Dragon that no signal can divide.

What a signal's handler raises, as Ctrl-C does, is raised between two instructions of Python: where the
signal came during a long call into Dragon, right behind that call. Between two graphs of a step it would
leave half a step. So such calls are made by functions of C alone: it is raised before the first of them, or
after the last.
"""

import collections
import functools
import operator
from typing import Any, Callable, Iterable, List, Sequence

from dragon.core.framework import config

from dragon_optim._dragon.workspace import Workspace

_call = operator.methodcaller("__call__")


def graphs(workspace: Workspace, names: Sequence[str], then: Sequence[Callable[[], Any]] = ()) -> None:
    """Run graphs, and what goes with them. `then` must be functions of C, too, or bound by ``partial``."""
    if "run_graph" in vars(workspace):  # somebody stands in front of it and must see each: a recorder
        for name in names:
            workspace.run_graph(name)
        _make([*then])
    else:
        run = workspace._impl.RunGraph
        _make([*(functools.partial(run, name, "", "") for name in names), *then])


def operators(
    workspace: Workspace, definitions: Iterable[Any], then: Sequence[Callable[[], Any]] = ()
) -> None:
    """Run operators that belong to no graph, and what goes with them."""
    if "run_operator" in vars(workspace):
        for each in definitions:
            workspace.run_operator(each)
        _make([*then])
    else:
        run, verbose = workspace._impl.RunOperator, config.config().graph_verbosity > 0
        serialized = [each.SerializePartialToString() for each in definitions]
        _make([*(functools.partial(run, each, verbose) for each in serialized), *then])


def _make(calls: List[Callable[[], Any]]) -> None:
    collections.deque(map(_call, calls), maxlen=0)
