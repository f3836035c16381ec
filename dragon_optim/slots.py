# SPDX-License-Identifier: BSD-2-Clause
"""The parameters of an optimizer, each with its states: who owns which memory.

A parameter has a slot from the moment it joins a group until it has left its group and its state was cleared.
The slot holds the parameter, so that Dragon cannot give its name to another one while there is state for it.
"""

import heapq
import sys
from typing import Any, Callable, Container, Dict, List, Optional, Sequence

import numpy
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon import graphs, names, tape, tensors, versions
from dragon_optim._dragon.workspace import Workspace
from dragon_optim._threads import OneAtATime

# References to the tensor of a state: the dictionary, a variable, the argument of getrefcount. Any other is
# the user's: then the tensor is theirs.
_OURS = 3


class Slot:
    """One parameter, its states, and what the user keeps beside them."""

    __slots__ = (
        "extra",
        "grad_name",
        "history",
        "in_group",
        "index",
        "joined",
        "name",
        "origin",
        "param",
        "states",
        "sum",
        "view",
        "workspace",
    )

    def __init__(self, param: Tensor, index: int, workspace: Workspace) -> None:
        self.workspace = workspace  # outlives the parameter: slots are cleared in alphabetical order
        self.param = param
        self.index = index
        self.name: str = param.id
        self.grad_name = names.gradient_name(param)
        self.in_group = True
        self.joined = False  # whether its gradient is an edge of the graphs
        self.states: Dict[str, Tensor] = {}  # all that graphs know; those without memory are not in use yet
        self.sum: Optional[Tensor] = None  # what sum_grad() adds to
        self.extra: Dict[str, Any] = {}  # entries of `state` that are the user's own
        self.view: Callable[[], Any] = _nothing  # a weak reference to what `state` shows of it
        # Of a parameter on the tape: the leaf that its history begins at, and the tape of its last step.
        self.origin: Optional[Tensor] = None
        self.history: Optional[Callable[[], Any]] = None

    @property
    def arithmetic_dtype(self) -> str:
        """The dtype of its states."""
        return "float32" if self.param.dtype == "float16" else self.param.dtype

    def detach_view(self) -> None:
        """Let who has read `state` keep what it holds now, as a dict that PyTorch's state forgets is kept."""
        view, self.view = self.view(), _nothing
        if view is not None:
            view.detach()


def _nothing() -> None:
    return None


class SlotTable:
    """All slots of an optimizer, and the small arrays over them that operators read and write."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.state_of: Callable[[], Any] = _nothing  # a weak reference to `state`, if there is one
        self.turn = OneAtATime()  # held while graphs run, and while what they read or write changes
        self.slots: List[Slot] = []
        self._free_indices: List[int] = []  # a heap: those of slots that are gone
        # By id of Dragon's tensor object, which the parameter of the slot keeps alive.
        self._by_tensor: Dict[int, Slot] = {}
        # Raised whenever graphs have to be looked up anew: a state was cleared (its parameter may have
        # another dtype now), or a sum was made (it is an edge from now on).
        self.revision = 0
        self.sums_made = 0  # how often `revision` was raised for a sum
        # Raised whenever a graph would write to a tensor that a slot no longer holds.
        self.generation = 0
        # Whether steps are recorded: then no tensor of a state is ever written to, another takes its place.
        self.differentiable = False
        self._counter = tape.move_counter(workspace)
        self.moves = self._counter.moves  # of parameters to other tensors, as far as followed
        self.steps = graphs.HostArray(workspace, 1, "int64")
        self.trainable = graphs.HostArray(workspace, 1, "int64")  # 1: takes part in a step from gradients
        self.summed = graphs.HostArray(workspace, 1, "int64")  # 1: has a sum in this round
        self.round = graphs.HostArray(workspace, 1, "int64")  # 1: takes part in a step from sums
        self.fresh = graphs.HostArray(workspace, 1, "int64")  # 1: takes part in the next sum_grad()

    def arrays(self) -> List[graphs.HostArray]:
        """Every array over the slots."""
        return [self.steps, self.trainable, self.summed, self.round, self.fresh]

    def find(self, key: Any) -> Optional[Slot]:
        """Return the slot of a parameter. Two Parameters over one tensor have one slot."""
        self.follow()
        return self._by_tensor.get(tensors.identity(key)) if isinstance(key, Tensor) else None

    def follow(self) -> None:
        """Take note of parameters that have become other tensors, by a recorded step of any optimizer."""
        if self._counter.moves == self.moves:
            return
        self.moves = self._counter.moves
        for slot in self.slots:
            if slot.name != tensors.name(slot.param):
                slot.name = tensors.name(slot.param)
                slot.grad_name = names.gradient_name(slot.param)
                slot.joined = False
                self.generation += 1
        self._by_tensor = {tensors.identity(slot.param): slot for slot in self.slots}

    def add(self, param: Tensor) -> Slot:
        """Return the slot of a parameter, a new one if it has none."""
        slot = self.find(param)
        if slot is None:
            index = heapq.heappop(self._free_indices) if self._free_indices else len(self.slots)
            slot = Slot(param, index, self.workspace)
            if slot.index >= self.steps.view.size:
                for array in self.arrays():
                    array.resize(2 * (slot.index + 1))
            self.slots.append(slot)
            self._by_tensor[tensors.identity(param)] = slot
        return slot

    def keep(self, in_groups: Sequence[Slot]) -> None:
        """Take note of which slots the groups hold. The sums of the others go, and they too without state."""
        kept = {slot.index for slot in in_groups}
        for slot in list(self.slots):
            slot.in_group = slot.index in kept
            if not slot.in_group:
                if slot.sum is not None:
                    slot.sum = None
                    self.summed.view[slot.index] = 0
                    self.generation += 1
                self._remove_if_bare(slot)

    def is_bare(self, slot: Slot) -> bool:
        """Whether there is nothing to show of a parameter in `state`."""
        in_use = any(tensors.has_data(state) for state in slot.states.values())
        return not in_use and not slot.extra and self.steps.view[slot.index] == 0

    def _remove_if_bare(self, slot: Slot) -> None:
        if not self.is_bare(slot):
            return
        self.follow()
        slot.detach_view()  # another parameter will have its index
        self.slots.remove(slot)
        del self._by_tensor[tensors.identity(slot.param)]
        for array in self.arrays():
            array.view[slot.index] = 0
        heapq.heappush(self._free_indices, slot.index)
        self.generation += 1  # its index, and the names of its states, will be another's

    def state(self, slot: Slot, name: str) -> Tensor:
        """Return a state's tensor. A new one has no memory before the first gradient."""
        if name not in slot.states:
            slot.states[name] = names.tensor_pool(self.workspace).new(slot.param.device)
        return slot.states[name]

    def fits(self, slot: Slot, name: str, array: numpy.ndarray) -> bool:
        """Whether a state can take these values where it is: nobody else holds it, and it has their form."""
        tensor = slot.states.get(name)
        if self.differentiable or tensor is None or not tensors.has_data(tensor):
            return False  # the tensor that is there may be on a tape
        if slot.view() is not None or sys.getrefcount(tensor) > _OURS:
            return False
        return tensor.dtype == array.dtype.name and tuple(tensor.shape) == array.shape

    def filled(self, param: Tensor, array: numpy.ndarray) -> Tensor:
        """Return a tensor for a state of a parameter that is nobody's yet."""
        tensor = names.tensor_pool(self.workspace).new(param.device)
        graphs.tensor_from(array, tensor)
        return tensor

    def replace_state(self, slot: Slot, name: str, tensor: Tensor) -> None:
        """Let another tensor be a state."""
        slot.states[name] = tensor
        self.generation += 1

    def own_states(self) -> None:
        """Let every state be a tensor of our own again, which a step may write to."""
        for slot in self.slots:
            slot.origin = slot.history = None
            for name, tensor in list(slot.states.items()):
                if tensors.has_data(tensor):
                    self.replace_state(slot, name, versions.copy(self.workspace, tensor))

    def move_states(self) -> None:
        """Let the states, and the sums, go where their parameters are now."""
        for slot in self.slots:
            for tensor in (*slot.states.values(), *([] if slot.sum is None else [slot.sum])):
                tensors.move_with(tensor, slot.param)

    def sum(self, slot: Slot) -> Tensor:
        """Return the tensor that sum_grad() adds to."""
        if slot.sum is None:
            self.revision += 1
            self.sums_made += 1
            slot.sum = names.tensor_pool(self.workspace).new(slot.param.device)
        return slot.sum

    def drop_state(self, slot: Slot, name: str) -> None:
        """Forget a state. Its memory is given back, or stays with whoever holds the tensor."""
        tensor = slot.states[name]
        if sys.getrefcount(tensor) <= _OURS:
            tensors.reset(tensor)
            self.revision += 1
        else:
            del slot.states[name]
            self.generation += 1

    def clear(self, slot: Slot, besides: Container[str] = ()) -> None:
        """Forget all states of a parameter but some, its step count and the user's entries."""
        slot.detach_view()
        for name in list(slot.states):
            if name not in besides:
                self.drop_state(slot, name)
        slot.extra.clear()
        self.steps.view[slot.index] = 0
        if not slot.in_group and slot in self.slots:
            self._remove_if_bare(slot)
