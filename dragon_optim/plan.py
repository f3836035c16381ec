# SPDX-License-Identifier: BSD-2-Clause
"""From parameter groups to operators: which parameters one operator updates, and with which edges."""

from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
    TypeVar,
)

from dragon.vm.torch.core.cpp import device as Device

from dragon_optim._dragon import graphs, tensors
from dragon_optim.slots import Slot, SlotTable

_DTYPE_CODES = {"float16": 0, "float32": 1, "float64": 2}  # kernels/dtype.h
MASTER_PARAM = "master_param"

Place = Tuple[str, int]  # a device: its type and index

Member = TypeVar("Member")


class GroupPlan(NamedTuple):
    """What decides the operators of one group: all of it but the values of its hyper-parameters."""

    slots: Tuple[Slot, ...]  # in the order of the group's parameters, one for each occurrence
    states: Tuple[str, ...]
    foreach: bool


class Segment(NamedTuple):
    """The parameters that one update operator handles: of one group, dtype and device, each once."""

    group: int
    dtype: str
    states: Tuple[str, ...]
    members: Tuple[Tuple[int, Slot], ...]  # (position in the group, slot)

    @property
    def slots(self) -> List[Slot]:
        """The slots of its members."""
        return [slot for _, slot in self.members]


def place(slot: Slot) -> Place:
    """Where a parameter lies now."""
    return tensors.place(slot.param)


def by_place(members: Iterable[Member], slot_of: Callable[[Member], Slot]) -> List[List[Member]]:
    """Divide members by device: an operator moves to its own what lies elsewhere."""
    parts: Dict[Place, List[Member]] = {}
    for member in members:
        parts.setdefault(place(slot_of(member)), []).append(member)
    return list(parts.values())


def waves(members: Iterable[Member], slot_of: Callable[[Member], Slot]) -> List[List[Member]]:
    """Divide members so that no slot stands twice in a part: it is updated once for each of its members."""
    parts: List[List[Member]] = []
    seen: Dict[int, int] = {}
    for member in members:
        index = slot_of(member).index
        number = seen[index] = seen.get(index, -1) + 1
        if number == len(parts):
            parts.append([])
        parts[number].append(member)
    return parts


def segments(plans: Sequence[GroupPlan], slots: Iterable[Slot]) -> List[Segment]:
    """Return the segments of all groups, in running order, over these slots only."""
    wanted = {slot.index for slot in slots}
    result = []
    for group, plan in enumerate(plans):
        members = [member for member in enumerate(plan.slots) if member[1].index in wanted]
        for wave in waves(members, lambda member: member[1]):
            by_kind: Dict[Tuple[str, Place], List[Tuple[int, Slot]]] = {}
            for position, slot in wave:
                by_kind.setdefault((slot.param.dtype, place(slot)), []).append((position, slot))
            for (dtype, _), same in by_kind.items():
                states = plan.states + ((MASTER_PARAM,) if dtype == "float16" else ())
                parts = [same] if plan.foreach else [[member] for member in same]
                result += [Segment(group, dtype, states, tuple(part)) for part in parts]
    return result


def once(plans: Sequence[GroupPlan], slots: Iterable[Slot]) -> List[Segment]:
    """Return segments in which each of these slots stands once: what a check looks at."""
    unique: List[Segment] = []
    seen: Set[int] = set()
    for part in segments([each._replace(foreach=True) for each in plans], slots):
        if not seen.issuperset(slot.index for slot in part.slots):
            unique.append(part)
            seen.update(slot.index for slot in part.slots)
    return unique


class Edges:
    """What every operator of an update shares, and the names of its edges.

    Parameters
    ----------
    table : SlotTable
        The states and the step counts.
    hyper : HostArray
        The hyper-parameters.
    summed : bool
        Whether gradients are the sums of this round.
    given : mapping of int to str, optional
        Gradients that the caller names, by index of the slot.
    """

    def __init__(
        self,
        table: SlotTable,
        hyper: graphs.HostArray,
        summed: bool,
        given: Optional[Mapping[int, str]] = None,
    ) -> None:
        self.table = table
        self.hyper = hyper
        self.summed = summed
        self.given = given or {}

    @property
    def mask(self) -> graphs.HostArray:
        """Which parameters take part."""
        return self.table.round if self.summed or self.given else self.table.trainable

    def controls(self) -> Tuple[str, str, str]:
        """The names of the hyper-parameters, the mask and the step counts."""
        return self.hyper.name, self.mask.name, self.table.steps.name

    def index(self, slot: Slot) -> int:
        """The place of a parameter in the mask and the step counts."""
        return slot.index

    def source(self, slot: Slot) -> str:
        """The name of the gradient, or of the sum in its place."""
        if self.given:
            return self.given[slot.index]
        return self.table.sum(slot).id if self.summed else slot.grad_name

    def target(self, slot: Slot) -> str:
        """The name of the parameter."""
        return slot.param.id

    def state(self, slot: Slot, name: str) -> str:
        """The name of one of its states."""
        return self.table.state(slot, name).id

    def operator(self, kind: str, parts: Sequence[Segment], **arguments: Any) -> Any:
        """Return a check or update operator over some segments: see csrc/segments.h for its edges."""
        members = [member for part in parts for member in part.members]
        hyper, mask, steps = self.controls()
        outputs: List[str] = []
        for part in parts:
            outputs += [self.target(slot) for slot in part.slots]
            for state in part.states:
                outputs += [self.state(slot, state) for slot in part.slots]
        return graphs.operator(
            kind,
            [hyper, mask] + [self.source(slot) for _, slot in members],
            [*outputs, steps],
            members[0][1].param.device,
            groups=[part.group for part in parts],
            sizes=[len(part.members) for part in parts],
            num_states=[len(part.states) for part in parts],
            dtypes=[_DTYPE_CODES[part.dtype] for part in parts],
            slots=[self.index(slot) for _, slot in members],
            hyper_size=self.hyper.view.size,
            summed=int(self.summed),
            **arguments,
        )

    def check(self, kind: str, parts: Sequence[Segment], absent: bool) -> Any:
        """Return the operator that finds what is wrong with updates of this kind before any is done."""
        return self.operator(
            "DragonOptimCheck",
            parts,
            positions=[position for part in parts for position, _ in part.members],
            absent=int(absent),
            update=kind,
            states=[state for part in parts for state in part.states],
        )

    def update(self, kind: str, part: Segment, checked: bool = True) -> Any:
        """Return the operator that updates one segment; with `checked`, a check stands before it."""
        return self.operator(kind, [part], states=list(part.states), checked=int(checked))


def accumulate(table: SlotTable, slots: Sequence[Slot], only_check: bool) -> Any:
    """Return the operator that adds gradients to their sums, or only looks whether it can."""
    return graphs.operator(
        "DragonOptimAccumulate",
        [table.fresh.name] + [slot.grad_name for slot in slots] + [slot.param.id for slot in slots],
        [table.sum(slot).id for slot in slots] + [table.summed.name],
        slots[0].param.device,
        slots=[slot.index for slot in slots],
        only_check=int(only_check),
    )


def zero_grad(mode: graphs.HostArray, slots: Sequence[Slot]) -> Any:
    """Return the operator that clears gradients."""
    return graphs.operator(
        "DragonOptimZeroGrad", [mode.name], [slot.grad_name for slot in slots], slots[0].param.device
    )


def numel(slot: Slot) -> int:
    """The elements of a parameter: the product of its dimensions, where a tensor's size leaves zeros out."""
    count: int = slot.param.shape.numel()
    return count


class Packing(NamedTuple):
    """The buffer in which the gradients of one dtype travel through a process group: see csrc/pack_ops.cc."""

    dtype: str
    slots: Tuple[Slot, ...]  # the layout, the same on all ranks
    buffer: Any  # a Dragon tensor
    present: graphs.HostArray  # 1 where some rank has the gradient

    def _arguments(self, listed: Sequence[Slot]) -> Dict[str, Any]:
        place = {slot.index: at for at, slot in enumerate(self.slots)}
        return {
            "dtype": _DTYPE_CODES[self.dtype],
            "sizes": [numel(slot) for slot in self.slots],
            "indices": [place[slot.index] for slot in listed],
        }

    @property
    def device(self) -> Device:
        """Where the buffer lies."""
        return self.slots[0].param.device

    def pack(self, edges: Edges, listed: Sequence[Slot]) -> Any:
        """Return the operator that copies what this rank has into the buffer."""
        return graphs.operator(
            "DragonOptimPack",
            [edges.mask.name] + [edges.source(slot) for slot in listed],
            [self.buffer.id],
            self.device,
            slots=[slot.index for slot in listed],
            **self._arguments(listed),
        )

    def find_present(self) -> Any:
        """Return the operator that finds in the means which gradients some rank has."""
        return graphs.operator(
            "DragonOptimPresent", [self.buffer.id], [self.present.name], self.device, **self._arguments([])
        )

    def unpack(self, edges: Edges, listed: Sequence[Slot]) -> Any:
        """Return the operator that copies the means back."""
        return graphs.operator(
            "DragonOptimUnpack",
            [self.present.name, self.buffer.id] + [slot.param.id for slot in listed],
            [edges.source(slot) for slot in listed],
            self.device,
            **self._arguments(listed),
        )
