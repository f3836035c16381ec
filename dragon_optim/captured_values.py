# SPDX-License-Identifier: BSD-2-Clause
"""What goes into a captured function, and what comes out of it."""

from collections import OrderedDict
from typing import Any, Callable, Iterator, List

from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon import tensors, workspace
from dragon_optim.parameters import type_name

_CONSTANT = (type(None), bool, int, str)  # an argument of these types is recorded for each of its values


def look_at_argument(value: Any, home: workspace.Workspace, what: str, name: str) -> Any:
    """Return what a graph is made for where an argument is a constant. Raise for one that cannot be given."""
    if type(value) in _CONSTANT:
        return type(value), value
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{what} of {name} is {type_name(value)}, not a Dragon tensor, None, a bool, an int or a str: a "
            "replay could not follow it. Fix its value by functools.partial before you capture, or pass a "
            "torch.tensor(...)."
        )
    workspace.check_tensor(value, home, f"{what} of {name}")
    raise ValueError(
        f"{what} of {name} requires a gradient, which the copy in the graph would not hand back: pass "
        "x.detach(), or let the function use the leaf itself, not an argument."
    )


class Result:
    """What a function has returned: its tensors, and how they stand."""

    def __init__(self, value: Any, name: str) -> None:
        self._name = name
        self.tensors: List[Tensor] = []
        self._build = self._take(value)

    def rebuild(self, others: List[Tensor]) -> Any:
        """Return the same with other tensors."""
        return self._build(iter(others))

    def _take(self, value: Any) -> Callable[[Iterator[Tensor]], Any]:
        """Return what makes the same of other tensors."""
        kind = type(value)
        if isinstance(value, Tensor) and tensors.exists(value):
            self.tensors.append(value)
            return next
        if value is None:
            return lambda others: None
        if kind in (tuple, list):
            parts = [self._take(each) for each in value]
            return lambda others: kind([part(others) for part in parts])
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            parts = [self._take(each) for each in value]
            return lambda others: kind(*[part(others) for part in parts])
        if kind in (dict, OrderedDict):
            items = [(key, self._take(each)) for key, each in value.items()]
            return lambda others: kind([(key, part(others)) for key, part in items])
        what = "a Tensor() that was never filled" if isinstance(value, Tensor) else type_name(value)
        raise TypeError(
            f"{self._name} returned {what}; it may return None, a tensor, or tuples, lists and dicts of "
            "them, since a replay knows no other values"
        )
