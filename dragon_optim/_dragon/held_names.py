# SPDX-License-Identifier: BSD-2-Clause
"""Names that a recording holds as long as its graph lives."""

from typing import Sequence, Set

from dragon_optim._dragon import names
from dragon_optim._dragon.workspace import Workspace

PREFIX = names.PRIVATE  # of every name that is made while something is recorded


class HeldNames(Workspace.HandlePool):
    """Hands out names of their own kind, and keeps each until `give_back`, even if its tensor has died.

    A graph goes on writing to its tensors, and gradient operators find what a forward one saved under the
    name of that one.
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        self._alive: Set[str] = set()
        self._dead: Set[str] = set()
        self._derived: Set[str] = set()
        self._closed = False

    def create(self, key: str) -> str:
        """Make a name."""
        name: str = names.dragon_pool(self._weak_parent()).create(PREFIX + key)
        self._alive.add(name)
        return name

    def create_ours(self, key: str) -> str:
        """Make a name that no Python object holds."""
        name = self.create(key)
        self.release(name)
        return name

    def release(self, handle: str) -> None:
        """The tensor or operator of this name is gone."""
        if handle in self._alive:
            self._alive.discard(handle)
            self._dead.add(handle)
            if self._closed:
                self._reset()
        elif handle not in self._dead:
            workspace = self._weak_parent()
            if workspace is not None:
                names.dragon_pool(workspace).release(handle)

    def derive(self, tensors: Sequence[str]) -> None:
        """Take note of tensors that operators make beside those of `create`: gradients of intermediates."""
        self._derived.update(name for name in tensors if name.startswith(PREFIX))

    def kept_tensors(self) -> Set[str]:
        """The names of the tensors that somebody still refers to."""
        workspace = self._weak_parent()
        return {name for name in self._alive if workspace.get_tensor(name) is not None}

    def give_back(self) -> None:
        """Free what is dead; what is alive still is freed when it dies."""
        if self._weak_parent() is None:
            return
        self._closed = True
        # The others are names of operators, which nobody releases when no backward pass went through them.
        tensors = self.kept_tensors()
        self._dead |= self._alive - tensors
        self._alive = tensors
        self._reset()

    def _reset(self) -> None:
        workspace = self._weak_parent()
        if workspace is None:
            return
        alive = tuple(name + "_" for name in self._alive)
        freed = {name for name in self._derived if not name.startswith(alive) and name not in self._alive}
        for name in sorted(freed | self._dead):
            tensor = workspace.get_tensor(name)
            if tensor is not None:
                tensor.Reset()
        self._derived -= freed
        for name in self._dead:
            names.use_again(workspace, name)
        self._dead = set()
