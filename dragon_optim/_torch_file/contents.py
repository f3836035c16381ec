# SPDX-License-Identifier: BSD-2-Clause
"""What a pickle has built: which tensors are in it and where, and putting Dragon's in their places."""

import collections
from typing import Any, Dict, Iterator, List, Optional

from dragon_optim._torch_file import limits
from dragon_optim._torch_file.errors import CheckpointError, shown
from dragon_optim._torch_file.names import is_dtype
from dragon_optim._torch_file.nesting import Walk, go_through
from dragon_optim._torch_file.stored import Name, Storage, StoredTensor

_CONTAINERS = (dict, collections.OrderedDict, list, tuple)


class Contents:
    """The object that a pickle has built within this budget."""

    def __init__(self, root: Any, budget: limits.Budget) -> None:
        self.tensors: List[StoredTensor] = []
        self.widened: Dict[str, List[str]] = {}
        """Where tensors stand whose dtype Dragon lacks, by that dtype and the one that they get."""
        self._bytes = 0
        self._budget = budget
        self._containers: List[Any] = []  # inner ones first
        self._replaced: Dict[int, Any] = {}  # by the identity of what goes
        self._root = [root]  # in a list, so that it can be replaced, too
        self._walk = Walk("checkpoint", CheckpointError)
        go_through(root, self._collect)

    def _collect(self, value: Any) -> Optional[Iterator[Any]]:
        if type(value) in _CONTAINERS:
            return self._values(value)
        self._leaf(value)
        return None

    def _values(self, container: Any) -> Iterator[Any]:
        if not self._walk.enter(container):
            return
        if isinstance(container, dict):
            for key, value in container.items():
                self._walk.step(f"[{shown(key)}]")
                yield value
            if hasattr(container, "_metadata"):
                self._walk.step("._metadata")
                yield container._metadata
        else:
            for i, value in enumerate(container):
                self._walk.step(f"[{i}]")
                yield value
        self._walk.leave()
        self._containers.append(container)

    def _leaf(self, value: Any) -> None:
        if type(value) is StoredTensor:
            if id(value) not in self._replaced:
                self._replaced[id(value)] = None  # until there is a tensor
                self.tensors.append(value)
                self._count(value)
        elif type(value) is Name and is_dtype(value.module, value.name):
            self._replaced[id(value)] = value.name  # what Dragon's dtypes are
        elif type(value) is Name:
            raise CheckpointError(f"{self._walk.path()} is {value}, which is no plain value.")
        elif type(value) is Storage:
            raise CheckpointError(f"{self._walk.path()} is a bare storage; only tensors can be loaded.")

    def _count(self, tensor: StoredTensor) -> None:
        """Raise if the tensors would take much more memory than the file has bytes."""
        dtype = tensor.dtype
        self._bytes += max(tensor.allocated() * dtype.loaded_itemsize, limits.TENSOR)
        if self._bytes > self._budget.limit:
            if len(self.tensors) * limits.TENSOR > self._budget.limit // 2:
                raise self._budget.small_tensors()
            raise CheckpointError(
                f"up to {self._walk.path()} the tensors would take {shown(self._bytes)} bytes. "
                f"{self._budget.rule()}. It holds views that repeat few numbers: save copies of them."
            )
        if dtype.loaded != dtype.name:
            self.widened.setdefault(f"{dtype.name} to {dtype.loaded}", []).append(self._walk.path())

    def replaced(self, made: List[Any]) -> Any:
        """Return the object with these in the places of `tensors`."""
        for tensor, new in zip(self.tensors, made):
            self._replaced[id(tensor)] = new
        for container in self._containers:
            self._replace_values(container)
        self._replace_values(self._root)
        return self._root[0]

    def _replace_values(self, container: Any) -> None:
        if isinstance(container, dict):
            for key, value in container.items():
                container[key] = self._new(value)
            if hasattr(container, "_metadata"):
                container._metadata = self._new(container._metadata)
        elif isinstance(container, list):
            container[:] = map(self._new, container)
        elif any(id(value) in self._replaced for value in container):
            self._replaced[id(container)] = tuple(map(self._new, container))

    def _new(self, value: Any) -> Any:
        return self._replaced.get(id(value), value)
