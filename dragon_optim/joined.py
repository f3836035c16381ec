# SPDX-License-Identifier: BSD-2-Clause
"""Which gradients are edges of an optimizer's graphs: those of the parameters that have joined."""

from typing import List, Optional, Sequence, Tuple

import numpy

from dragon_optim._dragon import tensors
from dragon_optim._dragon.workspace import Workspace
from dragon_optim.slots import Slot


class Joined:
    """The slots that have joined, in batches that share a graph.

    Mostly one batch. Parameters that join one after another (layers unfrozen, experts chosen) get graphs of
    their own, each at least twice as large as the next. Dragon never frees a graph: one of all for each that
    joins would be n squared.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.batches: List[List[Slot]] = []
        self.revision = 0  # raised when `batches` has changed
        self._workspace = workspace
        self._among: Sequence[Slot] = ()  # the slots of all groups
        self._waiting: List[Slot] = []  # those of them whose gradient never existed yet
        self._leaves: Optional[Tuple[List[str], numpy.ndarray]] = None

    @property
    def waiting(self) -> int:
        """How many parameters have not joined."""
        return len(self._waiting)

    def look(self, slots: Sequence[Slot]) -> None:
        """Take up the gradients that exist by now. Only parameters that never had one are looked at."""
        if self._among is not slots:
            self._among = slots
            self._waiting = [slot for slot in slots if not slot.joined]
            self._put([[slot for slot in slots if slot.joined]])
        if self._waiting:
            flags = tensors.require_grad([slot.param for slot in self._waiting])
            candidates = [slot for slot, flag in zip(self._waiting, flags) if flag]  # no frozen backbone
            exist = tensors.have_data(self._workspace, [slot.grad_name for slot in candidates])
            self.add([slot for slot, each in zip(candidates, exist) if each])

    def add(self, slots: Sequence[Slot]) -> None:
        """Make gradients edges of the graphs that are made from now on. Their tensors must exist."""
        if not slots:
            return
        for slot in slots:
            slot.joined = True
        self._waiting = [slot for slot in self._waiting if not slot.joined]
        batches = [*self.batches, list(slots)]
        while len(batches) > 1 and len(batches[-2]) < 2 * len(batches[-1]):
            last = batches.pop()
            batches[-1] = batches[-1] + last
        self._put(batches)

    def _put(self, batches: List[List[Slot]]) -> None:
        self.batches = batches
        self.revision += 1
        self._leaves = None

    def leaves(self) -> Tuple[List[str], numpy.ndarray]:
        """The names and the indices of the slots."""
        if self._leaves is None:
            slots = [slot for slot in self._among if slot.joined]
            self._leaves = (
                [slot.name for slot in slots],
                numpy.array([slot.index for slot in slots], int),
            )
        return self._leaves
