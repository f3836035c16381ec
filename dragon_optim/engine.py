# SPDX-License-Identifier: BSD-2-Clause
"""One step: the graphs of an optimizer, made when something has changed and run.

The way of a step that was made before is a comparison of the groups with what was seen last, and one
``run_graph``.
"""

import weakref
from typing import Any, Callable, ContextManager, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

import numpy

from dragon_optim import differentiable, hyper, parameters, plan
from dragon_optim._dragon import (
    collective,
    graphs,
    library,
    recording,
    stock,
    tape,
    tensors,
    versions,
    workspace,
)
from dragon_optim.groups import Group, WatchedGroups
from dragon_optim.process_group import Reduction
from dragon_optim.slots import Slot, SlotTable

Part = Tuple[Sequence[Slot], Callable[[Sequence[Slot]], List[Any]]]  # of a step: slots, and their operators


class Engine:
    """The slots and the graphs of one optimizer.

    Parameters
    ----------
    kind : str
        The update operator.
    fields, refused, states
        See `WatchedGroups`.
    function : differentiable.Operator, optional
        The update as an operator that Dragon's tape can record.
    """

    def __init__(
        self,
        kind: str,
        fields: Sequence[hyper.Field],
        refused: Sequence[hyper.Refused],
        states: Callable[[Dict[str, float]], Tuple[str, ...]],
        function: Optional[differentiable.Operator] = None,
    ) -> None:
        if kind and not library.has_operator(kind):
            raise ValueError(f"Dragon has no operator {kind!r}: load the library that registers it first")
        if function is not None:
            function.register()
        self.workspace = workspace.current()
        self.table = SlotTable(self.workspace)
        self.turn = self.table.turn
        self._kind = kind
        self._function = function
        self._groups = WatchedGroups(self.table, fields, refused, states)
        self._zero_mode = graphs.HostArray(self.workspace, 1, "int64")
        self._reduction = Reduction()
        self._waiting: List[Slot] = []  # slots whose gradient never existed yet
        self._waiting_of: Sequence[Slot] = ()  # the slots that they are among
        # The slots that have joined, by the graph that they are in. Mostly one batch. Parameters that join
        # one after another (layers unfrozen, experts chosen) get graphs of their own, each at least twice as
        # large as the next. Dragon never frees a graph: one of all for each that joins would be n squared.
        self._batches: List[List[Slot]] = []
        self._joined_slots: Optional[Tuple[List[str], numpy.ndarray]] = None  # of all batches
        self._graphs: Dict[Any, Optional[graphs.Graph]] = {}  # by structure
        self._current: Dict[Any, List[graphs.Graph]] = {}  # by key, while nothing changes
        self._current_of: Any = None  # the revisions that they are for
        self._generation = 0
        self._summed_passes = 0  # backward passes that sum_grad() has seen
        self.round_open = False  # whether sums wait for a step
        self.optimizer: Callable[[], Any] = lambda: None  # a weak reference

    def attach(self, optimizer: Any) -> None:
        """Belong to an optimizer."""
        self.optimizer = weakref.ref(optimizer)
        stock.note(optimizer)

    def guard(self, what: str) -> None:
        """Raise if the workspace is not the current one, or was cleared."""
        workspace.check_current(self.workspace, what)
        tape.check_not_traced(what)
        self._groups.hyper.view  # noqa: B018  raises when the workspace was cleared

    def sync(self, groups: Sequence[Group]) -> None:
        """Take over what the user changed in the groups. Raises before anything is taken over."""
        self._groups.sync(groups)

    def check_params(self, groups: Sequence[Group]) -> None:
        """Raise unless every group holds a list of parameters."""
        self._groups.check_params(groups)

    def _join(self) -> None:
        """Take up the gradients that exist by now. Only parameters that never had one are looked at."""
        if self._waiting_of is not self._groups.slots:
            self._waiting_of = self._groups.slots
            self._waiting = [slot for slot in self._groups.slots if not slot.joined]
            self._batches = [[slot for slot in self._groups.slots if slot.joined]]
            self._joined_slots = None
            self._current.clear()
        if self._waiting:
            flags = tensors.require_grad([slot.param for slot in self._waiting])
            candidates = [slot for slot, flag in zip(self._waiting, flags) if flag]  # no frozen backbone
            exist = tensors.have_data(self.workspace, [slot.grad_name for slot in candidates])
            self.join([slot for slot, each in zip(candidates, exist) if each])

    def join(self, slots: Sequence[Slot]) -> None:
        """Make gradients edges of the graphs that are made from now on. Their tensors must exist."""
        if not slots:
            return
        for slot in slots:
            slot.joined = True
        self._waiting = [slot for slot in self._waiting if not slot.joined]
        self._batches.append(list(slots))
        while len(self._batches) > 1 and len(self._batches[-2]) < 2 * len(self._batches[-1]):
            last = self._batches.pop()
            self._batches[-1] = self._batches[-1] + last
        self._current.clear()
        self._joined_slots = None

    # What a recorded step asks of the groups.

    @property
    def is_differentiable(self) -> bool:
        """Whether steps are recorded by Dragon's tape."""
        return self._groups.differentiable

    @property
    def plans(self) -> Sequence[plan.GroupPlan]:
        """What decides the operators of each group."""
        return self._groups.plans

    @property
    def keys(self) -> Sequence[str]:
        """The hyper-parameters that the operator reads, in its order."""
        return self._groups.keys

    def value(self, group: int, key: str) -> Any:
        """What the user wrote for a hyper-parameter of a group."""
        return self._groups.value(group, key)

    def numbers(self, group: int) -> Tuple[float, ...]:
        """The hyper-parameters of a group, checked."""
        return self._groups.numbers(group)

    def as_leaves(self, groups: Sequence[Group]) -> ContextManager[None]:
        """Let backward passes stop at the parameters; see `Optimizer.as_leaves`."""
        return versions.as_leaves(differentiable.recorded_parameters(groups))

    # Graphs, made once for each structure.

    @property
    def slots(self) -> Sequence[Slot]:
        """The slots of all groups, each once."""
        return self._groups.slots

    @property
    def hyper(self) -> graphs.HostArray:
        """The hyper-parameters, a row for each group."""
        return self._groups.hyper

    def edges(self, summed: bool, given: Optional[Mapping[int, str]] = None) -> plan.Edges:
        """What the operators of an update share."""
        return plan.Edges(self.table, self._groups.hyper, summed, given)

    def run(self, key: Any, parts: Callable[[], Iterable[Part]]) -> None:
        """Run graphs one after another; `key` says which.

        When a structure is met first, `parts` gives the slots of each graph, and what makes its operators
        from them: it may make none. Where parameters become other tensors in each step, no structure is met
        twice, and no graph is made.
        """
        if self._groups.differentiable:
            for slots, make in parts():
                graphs.run_once(self.workspace, make(slots))
            return
        if self._generation != self.table.generation:
            self._generation = self.table.generation
            self._graphs.clear()
            self._current.clear()
        revisions = (self._groups.revision, self.table.revision)
        if self._current_of != revisions:
            self._current_of = revisions
            self._current.clear()
        current = self._current.get(key)
        if current is None:
            found = [self._graph(key, *part) for part in parts()]
            current = self._current[key] = [graph for graph in found if graph is not None]
        for graph in current:
            graph.run()

    def _graph(
        self, key: Any, slots: Sequence[Slot], make: Callable[[Sequence[Slot]], List[Any]]
    ) -> Optional[graphs.Graph]:
        """Return the graph of these slots; None if it would have no operators."""
        kinds = tuple((slot.index, slot.param.dtype, plan.place(slot)) for slot in slots)
        structure = (key, make.__name__, kinds, self._groups.structure())
        if structure not in self._graphs:
            # Dtypes and devices may have changed since the parameters were taken.
            parameters.check([slot.param for slot in slots], self.workspace, allow_non_leaf=True)
            operators = make(slots)
            self._graphs[structure] = graphs.Graph(self.workspace, operators) if operators else None
        return self._graphs[structure]

    def taking(self, summed: bool) -> List[Slot]:
        """The slots whose gradients (sums) are edges."""
        return [slot for slot in self.slots if (slot.sum is not None if summed else slot.joined)]

    def check_operators(
        self,
        summed: bool,
        slots: Sequence[Slot],
        absent: bool = False,
        given: Optional[Mapping[int, str]] = None,
    ) -> List[Any]:
        """The operators that find what is wrong with a step; with `absent`, also without a gradient.

        `given` names gradients in the place of ``.grad``, by index of the slot.
        """
        if not slots:
            return []
        unique = plan.once(self._groups.plans, slots)
        edges = self.edges(summed, given)
        return [
            edges.check(self._kind, parts, absent)
            for parts in plan.by_place(unique, lambda part: part.slots[0])
        ]

    def _update_operators(self, summed: bool, slots: Sequence[Slot]) -> List[Any]:
        parts = plan.segments(self._groups.plans, slots)
        return [self.edges(summed).update(self._kind, part) for part in parts]

    def _update_parts(self, summed: bool) -> List[Part]:
        def check(slots: Sequence[Slot]) -> List[Any]:
            return self.check_operators(summed, slots)

        def update(slots: Sequence[Slot]) -> List[Any]:
            return self._update_operators(summed, slots)

        def step(slots: Sequence[Slot]) -> List[Any]:
            return check(slots) + update(slots)

        batches = self._batches
        if summed:  # another rank of a process group may have a sum where this one never had a gradient
            batches = [*batches, [slot for slot in self.slots if not slot.joined]]
            batches = [[slot for slot in batch if slot.sum is not None] for batch in batches]
            batches = [batch for batch in batches if batch]
        if len(batches) == 1:
            return [(batches[0], step)]
        return [(batch, check) for batch in batches] + [(batch, update) for batch in batches]

    def _batch_parts(self, make: Callable[[Sequence[Slot]], List[Any]]) -> List[Part]:
        return [(batch, make) for batch in self._batches]

    # What a captured function must know: see graph.py.

    def flags(self) -> List[graphs.HostArray]:
        """The arrays that Python writes before a graph runs, to steer it."""
        return [self.table.trainable, self.table.round, self.table.fresh, self._zero_mode]

    def hyper_values(self) -> bytes:
        """All hyper-parameters."""
        return self._groups.hyper.view.tobytes()

    def situation(self) -> Tuple[Any, ...]:
        """What decides the graphs that the next calls run. For after `prepare`."""
        table = self.table
        return (
            self._groups.revision,
            table.revision - table.sums_made,
            table.generation,
            len(self._waiting),
            table.trainable.view.tobytes(),
            table.summed.view.tobytes() if self.round_open else b"",
        )

    def not_summed_yet(self, last_passes: Dict[str, int]) -> Tuple[bool, ...]:
        """Which gradients the next sum_grad() would add, by the last backward pass of each leaf."""
        return tuple(last_passes.get(slot.name, 0) > self._summed_passes for slot in self.slots)

    def catch_up(self, summed: bool) -> None:
        """Take note in Python of what a graph did. `summed`: sum_grad() was part of it, just now."""
        if summed:
            self._summed_passes = tape.passes(self.workspace)
        self.round_open = bool(self.table.summed.view.any())

    # The three things that an optimizer does.

    def step(
        self,
        groups: Callable[[], Sequence[Group]],
        before: Callable[[], None],
        gradients: Optional[differentiable.Gradients] = None,
    ) -> None:
        """Update every parameter that has a gradient, or a sum in this round. All or nothing.

        `before` runs first (the closure): also what it raises on one rank must be heard by the others. It
        may change the groups, so these are asked for afterwards. `gradients` stand in the place of ``.grad``.
        """

        def prepare() -> None:
            self.guard("step()")
            before()
            self.prepare(groups(), "step()")
            if self._groups.differentiable and self._function is None:
                raise NotImplementedError(
                    f"differentiable=True: {self._kind} has no form that Dragon's tape can record"
                )
            if gradients is not None:
                differentiable.check_gradients(self, gradients, collective.group() is not None)

        with self.turn:
            self._step(prepare, gradients)

    def _step(self, prepare: Callable[[], None], gradients: Optional[differentiable.Gradients]) -> None:
        process_group = collective.group()
        if process_group is not None:
            recording.notify(self.workspace, "reduced", self)
            with recording.own_work(self.workspace):
                summed = self._reduction.reduce(self, process_group, prepare)
        else:
            prepare()
            summed = self.round_open
        if summed:
            self.open_masked_round()
        if self._groups.differentiable and self._function is not None:
            differentiable.Step(self, self._function, summed, gradients).run()
        else:
            self.run(("step", summed), lambda: self._update_parts(summed))
        if summed:
            self.end_round()

    def prepare(self, groups: Sequence[Group], what: str) -> None:
        """Everything before the first graph of a call runs."""
        self.guard(what)
        self.look(groups)

    def look(self, groups: Sequence[Group]) -> None:
        """The part of `prepare` that is left where somebody else has guarded the workspace."""
        with recording.own_work(self.workspace):
            self.sync(groups)
        self._join()
        recording.notify(self.workspace, "prepared", self)

    def open_masked_round(self) -> None:
        """Let a step from sums take the trainable parameters that were summed."""
        self.table.round.view[:] = self.table.trainable.view & self.table.summed.view

    def end_round(self) -> None:
        """Forget the sums. Their memory stays for the next round."""
        self.table.summed.view[:] = 0
        self.round_open = False
        recording.notify(self.workspace, "round_ended", self)

    def sum_grad(self, groups: Sequence[Group]) -> None:
        """Add the gradients of the parameters that a backward pass has reached since the last call."""
        with self.turn:
            self._sum_grad(groups)

    def _sum_grad(self, groups: Sequence[Group]) -> None:
        self.prepare(groups, "sum_grad()")
        names, indices = self._joined()
        fresh = self.table.fresh.view
        fresh[:] = 0
        fresh[indices] = tape.reached_since(self.workspace, names, self._summed_passes)
        fresh &= self.table.trainable.view
        if not fresh.any():
            return
        self.run("sum_grad", self._sum_parts)
        self._summed_passes = tape.passes(self.workspace)
        self.round_open = bool(self.table.summed.view.any())
        recording.notify(self.workspace, "summed", self)

    def _joined(self) -> Tuple[List[str], numpy.ndarray]:
        """The names and the indices of the slots whose gradients are edges."""
        if self._joined_slots is None:
            slots = self.taking(summed=False)
            self._joined_slots = (
                [slot.name for slot in slots],
                numpy.array([slot.index for slot in slots], int),
            )
        return self._joined_slots

    def _sum_parts(self) -> List[Part]:
        def check_grad(slots: Sequence[Slot]) -> List[Any]:
            parts = plan.by_place(slots, lambda slot: slot)
            return [plan.accumulate(self.table, part, only_check=True) for part in parts]

        def sum_grad(slots: Sequence[Slot]) -> List[Any]:
            parts = plan.by_place(slots, lambda slot: slot)
            sums = [plan.accumulate(self.table, part, only_check=False) for part in parts]
            return sums if len(parts) <= 1 else check_grad(slots) + sums

        checks = self._batch_parts(check_grad) if len(self._batches) > 1 else []
        return checks + self._batch_parts(sum_grad)  # all checks before the first sum

    def zero_grad(self, groups: Sequence[Group], set_to_none: bool) -> None:
        """Fill the gradients with zeros, or take them away."""
        with self.turn:
            self._zero_grad(groups, set_to_none)

    def _zero_grad(self, groups: Sequence[Group], set_to_none: bool) -> None:
        self.prepare(groups, "zero_grad()")
        self._zero_mode.view[0] = bool(set_to_none)

        self.run("zero_grad", self._zero_parts)

    def _zero_parts(self) -> List[Part]:
        def zero_grad(slots: Sequence[Slot]) -> List[Any]:
            parts = plan.by_place(slots, lambda slot: slot)
            return [plan.zero_grad(self._zero_mode, part) for part in parts]

        return self._batch_parts(zero_grad)
