# SPDX-License-Identifier: BSD-2-Clause
"""A step in a Dragon process group: gradients become their mean, by one collective for each dtype.

Ranks may differ in which gradients they have, and one of them may find an error. A collective that one rank
does not enter hangs all others, so before the large ones every rank enters a small one of fixed size and says
whether it can go on.
"""

import zlib
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy

from dragon_optim import plan
from dragon_optim._dragon import collective, graphs, names, tensors, workspace
from dragon_optim.slots import Slot

if TYPE_CHECKING:
    from dragon_optim.engine import Engine

_MAX_ELEMENTS = 2**31 - 1  # MPI counts in int


def together(process_group: Any, what: str, call: Callable[[], bool]) -> bool:
    """Call on every rank, and return whether it returned True on one of them.

    What it raises on one rank is raised on all. What was done on the others stays done.
    """
    error: Optional[BaseException] = None
    flag = False
    try:
        flag = call()
    except BaseException as caught:  # the other ranks wait: they must hear of it before it is raised
        error = caught
    agreement = collective.council(workspace.current(), process_group).agree(error is not None, 0, flag)
    if error is not None:
        raise error
    if agreement.failed:
        raise RuntimeError(f"{what}: another rank of the process group found an error; see its message.")
    return agreement.flagged


class Reduction:
    """The buffers and graphs by which one optimizer averages its gradients."""

    def __init__(self) -> None:
        self._packings: List[plan.Packing] = []
        self._layout_crc = 0
        self._made_for: Tuple[Sequence[Slot], List[Any]] = ((), [])  # slots, their dtypes and places
        self._order: numpy.ndarray = numpy.zeros(0, "int64")  # indices of the slots in the layout
        self._reduce_graphs: Dict[Any, graphs.Graph] = {}

    def reduce(self, engine: "Engine", process_group: Any, prepare: Callable[[], None]) -> bool:
        """Put the means in place of the gradients, or of the sums. Return whether the step goes from sums.

        Raises on all ranks if anything is wrong on one of them; nothing was changed then.
        """
        error: Optional[BaseException] = None
        summed, fingerprint = False, 0
        try:
            prepare()
            summed = engine.round_open
            self._take_layout(engine)
            fingerprint = self._fingerprint(engine)
            self._check_and_pack(engine, summed, engine.taking(summed))
        except BaseException as caught:  # the other ranks wait: they must hear of it before it is raised
            error = caught
        council = collective.council(workspace.current(), process_group)
        agreement = council.agree(error is not None, fingerprint, flag=summed)
        if error is not None:
            raise error
        self._check(agreement)
        if agreement.flagged and not summed:
            # Others have sums, this rank has none in this round: it adds nothing.
            self._check_and_pack(engine, True, [])
        if self._packings:  # an optimizer may be left without parameters; all of them are then
            self._all_reduce(engine, process_group)
            self._unpack(engine, agreement.flagged)
        return agreement.flagged

    @staticmethod
    def _check(agreement: collective.Agreement) -> None:
        if agreement.failed:
            raise RuntimeError(
                "step(): another rank of the process group found an error; see its message. Nothing was "
                "changed here."
            )
        if not agreement.same_layout:
            raise RuntimeError(
                "step(): the ranks of the process group hold different parameters (their number, shapes, "
                "dtypes or requires_grad); give every rank the same model. Nothing was changed."
            )

    def _fingerprint(self, engine: "Engine") -> int:
        """A number below 2**20 that tells one layout from another, and which parameters are frozen."""
        return zlib.crc32(engine.table.trainable.view[self._order].tobytes(), self._layout_crc) & 0xFFFFF

    def _take_layout(self, engine: "Engine") -> None:
        """Lay out one buffer for each dtype and device, over all parameters in their order."""
        slots = engine.slots
        kinds = [(slot.param.dtype, plan.place(slot)) for slot in slots]
        if slots is self._made_for[0] and kinds == self._made_for[1]:
            return
        self._made_for = ((), [])  # until the layout is taken over: it may be refused
        by_kind: Dict[Tuple[str, plan.Place], List[Slot]] = {}
        for slot, kind in zip(slots, kinds):
            by_kind.setdefault(kind, []).append(slot)
        if any(dtype == "float16" for dtype, _ in by_kind):
            raise RuntimeError(
                "step() cannot reduce float16 gradients in a process group; use float32 parameters."
            )
        for (dtype, _), members in by_kind.items():
            if sum(map(plan.numel, members)) + len(members) > _MAX_ELEMENTS:
                raise RuntimeError(
                    f"step(): the {dtype} parameters hold more than 2**31 elements, which MPI cannot count."
                )
        pool = names.tensor_pool(engine.workspace)
        self._packings = [
            plan.Packing(
                dtype,
                tuple(members),
                pool.new(members[0].param.device),
                graphs.HostArray(engine.workspace, len(members), "int64"),
            )
            for (dtype, _), members in by_kind.items()
        ]
        self._reduce_graphs.clear()
        laid_out = [slot for packing in self._packings for slot in packing.slots]
        shapes = [(slot.param.dtype, tuple(slot.param.shape)) for slot in laid_out]
        self._layout_crc = zlib.crc32(repr(shapes).encode())
        self._order = numpy.array([slot.index for slot in laid_out], "int64")
        self._made_for = (slots, kinds)

    def _buffers(self) -> Tuple[str, ...]:
        # A graph writes to the buffers it was made for: another layout has others.
        return tuple(name for packing in self._packings for name in (packing.buffer.id, packing.present.name))

    def _listed(self, packing: plan.Packing, slots: Sequence[Slot]) -> List[Slot]:
        wanted = {slot.index for slot in slots}
        return [slot for slot in packing.slots if slot.index in wanted]

    def _check_and_pack(self, engine: "Engine", summed: bool, slots: Sequence[Slot]) -> None:
        edges = engine.edges(summed)
        if summed:
            engine.open_masked_round()

        def operators(listed: Sequence[Slot]) -> List[Any]:
            packs = [packing.pack(edges, self._listed(packing, listed)) for packing in self._packings]
            return engine.check_operators(summed, listed, absent=True) + packs

        engine.run(("pack", summed, len(slots), self._buffers()), lambda: [(slots, operators)])

    def _all_reduce(self, engine: "Engine", process_group: Any) -> None:
        key = str(process_group.arguments)
        if key not in self._reduce_graphs:
            operators = [
                collective.all_reduce(process_group, [packing.buffer.id], packing.device, "MEAN")
                for packing in self._packings
            ] + [packing.find_present() for packing in self._packings]
            self._reduce_graphs[key] = graphs.Graph(engine.workspace, operators)
        self._reduce_graphs[key].run()

    def _unpack(self, engine: "Engine", summed: bool) -> None:
        somewhere = self._present_somewhere()
        for slot in somewhere:
            if summed:
                engine.table.sum(slot)
                engine.table.summed.view[slot.index] = 1
            elif not slot.joined:
                tensors.create(engine.workspace, slot.grad_name)
        engine.joined.add([slot for slot in somewhere if not (summed or slot.joined)])
        if not somewhere:
            return
        edges = engine.edges(summed)

        def operators(listed: Sequence[Slot]) -> List[Any]:
            return [packing.unpack(edges, self._listed(packing, listed)) for packing in self._packings]

        engine.run(("unpack", summed, self._buffers()), lambda: [(engine.taking(summed), operators)])

    def _present_somewhere(self) -> List[Slot]:
        present = []
        for packing in self._packings:
            present += [packing.slots[place] for place in numpy.flatnonzero(packing.present.view)]
        return present
