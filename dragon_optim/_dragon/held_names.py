# SPDX-License-Identifier: BSD-2-Clause
"""Names that a recording holds as long as its graph lives."""

from collections import Counter
from typing import List, Sequence, Set

from dragon.vm.torch.core.tensor import Tensor

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
                self._reset(handle)
        elif handle not in self._dead:
            workspace = self._weak_parent()
            if workspace is not None:
                names.dragon_pool(workspace).release(handle)

    def derive(self, tensors: Sequence[str]) -> None:
        """Take note of tensors that operators make beside those of `create`: gradients of intermediates."""
        self._derived.update(name for name in tensors if name.startswith(PREFIX))

    def keeps_tensors(self, besides: Sequence[Tensor]) -> bool:
        """Whether somebody refers to a tensor of these names, also by an alias. `besides` do not count."""
        workspace = self._weak_parent()
        ours = Counter(tensor._impl.name for tensor in besides)
        return bool(self._living()) or any(
            names.is_held(workspace, name, ours[name]) for name in self._dead | self._derived
        )

    def _living(self) -> Set[str]:
        workspace = self._weak_parent()
        return {name for name in self._alive if workspace.get_tensor(name) is not None}

    def give_back(self, besides: List[Tensor]) -> None:
        """Free what is dead; what is alive still is freed when it dies. `besides` are let go of."""
        besides.clear()
        if self._weak_parent() is None:
            return
        self._closed = True
        # The others are names of operators, which nobody releases when no backward pass went through them.
        tensors = self._living()
        self._dead |= self._alive - tensors
        self._alive = tensors
        self._reset()

    def _reset(self, dying: str = "") -> None:
        workspace = self._weak_parent()
        if workspace is None:
            return
        alive = tuple(name + "_" for name in self._alive)
        freed = {name for name in self._derived if not name.startswith(alive) and name not in self._alive}
        held = set()
        for name in sorted(freed | self._dead):
            if names.is_held(workspace, name, besides=int(name == dying)):
                held.add(name)
                continue
            names.reset(workspace, name)
        self._derived -= freed
        for name in self._dead:
            if name in held or name + "_grad" in held:
                names.retire(workspace, name)
            else:
                names.use_again(workspace, name)
        self._dead = set()
