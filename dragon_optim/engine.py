# SPDX-License-Identifier: BSD-2-Clause
"""What an optimizer does: a step, ``sum_grad()`` and ``zero_grad()``, from the guards to the graphs that run.

The way of a step that was made before is a comparison of the groups with what was seen last, and one
``run_graph``.
"""

import functools
import weakref
from typing import Any, Callable, ContextManager, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from dragon_optim import differentiable, hyper, plan
from dragon_optim._dragon import (
    collective,
    graphs,
    library,
    recording,
    stock,
    tape,
    versions,
    workspace,
)
from dragon_optim.graph_cache import GraphCache, Part
from dragon_optim.groups import Group, WatchedGroups
from dragon_optim.joined import Joined
from dragon_optim.process_group import Reduction
from dragon_optim.slots import Slot, SlotTable


class Engine:
    """The groups, the slots and the graphs of one optimizer.

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
        if kind:
            library.check_operator(kind)
        if function is not None:
            function.register()
        self.workspace = workspace.current()
        self.table = SlotTable(self.workspace)
        self.turn = self.table.turn
        self._kind = kind
        self._function = function
        self.watched = WatchedGroups(self.table, fields, refused, states)
        self.joined = Joined(self.workspace)
        self.cache = GraphCache(self.table, self.watched, self.joined)
        self._zero_mode = graphs.HostArray(self.workspace, 1, "int64")
        self._reduction = Reduction()
        self._summed_passes = 0  # backward passes that sum_grad() has seen
        self._round_open = False
        self.optimizer: Callable[[], Any] = lambda: None  # a weak reference

    @property
    def round_open(self) -> bool:
        """Whether sums wait for a step."""
        # The step that takes them away may have been interrupted when it was done.
        return self._round_open and bool(self.table.summed.view.any())

    def attach(self, optimizer: Any) -> None:
        """Belong to an optimizer."""
        self.optimizer = weakref.ref(optimizer)
        stock.note(optimizer)

    def guard(self, what: str) -> None:
        """Raise if the workspace is not the current one, or was cleared."""
        workspace.check_current(self.workspace, what)
        tape.check_not_traced(what)
        self.watched.hyper.view  # noqa: B018  raises when the workspace was cleared

    def sync(self, groups: Sequence[Group]) -> None:
        """Take over what the user changed in the groups. Raises before anything is taken over."""
        self.watched.sync(groups)

    def check_params(self, groups: Sequence[Group]) -> None:
        """Raise unless every group holds a list of parameters."""
        self.watched.check_params(groups)

    def as_leaves(self, groups: Sequence[Group]) -> ContextManager[None]:
        """Let backward passes stop at the parameters; see `Optimizer.as_leaves`."""
        return versions.as_leaves(differentiable.recorded_parameters(groups))

    @property
    def slots(self) -> Sequence[Slot]:
        """The slots of all groups, each once."""
        return self.watched.slots

    def edges(self, summed: bool, given: Optional[Mapping[int, str]] = None) -> plan.Edges:
        """What the operators of an update share."""
        return plan.Edges(self.table, self.watched.hyper, summed, given)

    def run(
        self, key: Any, parts: Callable[[], Iterable[Part]], then: Sequence[Callable[[], Any]] = ()
    ) -> None:
        """Run the graphs of `parts`; see `GraphCache.run`.

        Where parameters become other tensors in each step, no structure is met twice, and no graph is made.
        """
        if not self.watched.differentiable:
            self.cache.run(key, parts, then)
            return
        for slots, make in parts():
            graphs.run_once(self.workspace, make(slots))
        for each in then:
            each()

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
        unique = plan.once(self.watched.plans, slots)
        edges = self.edges(summed, given)
        return [
            edges.check(self._kind, parts, absent)
            for parts in plan.by_place(unique, lambda part: part.slots[0])
        ]

    def _update_operators(self, summed: bool, slots: Sequence[Slot]) -> List[Any]:
        parts = plan.segments(self.watched.plans, slots)
        return [self.edges(summed).update(self._kind, part) for part in parts]

    def _update_parts(self, summed: bool) -> List[Part]:
        def check(slots: Sequence[Slot]) -> List[Any]:
            return self.check_operators(summed, slots)

        def update(slots: Sequence[Slot]) -> List[Any]:
            return self._update_operators(summed, slots)

        def step(slots: Sequence[Slot]) -> List[Any]:
            return check(slots) + update(slots)

        batches = self.joined.batches
        if summed:  # another rank of a process group may have a sum where this one never had a gradient
            batches = [*batches, [slot for slot in self.slots if not slot.joined]]
            batches = [[slot for slot in batch if slot.sum is not None] for batch in batches]
            batches = [batch for batch in batches if batch]
        if len(batches) == 1:
            return [(batches[0], step)]
        return [(batch, check) for batch in batches] + [(batch, update) for batch in batches]

    def _batch_parts(self, make: Callable[[Sequence[Slot]], List[Any]]) -> List[Part]:
        return [(batch, make) for batch in self.joined.batches]

    # What a captured function must know: see graph.py.

    def flags(self) -> List[graphs.HostArray]:
        """The arrays that Python writes before a graph runs, to steer it."""
        return [self.table.trainable, self.table.round, self.table.fresh, self._zero_mode]

    def hyper_values(self) -> bytes:
        """All hyper-parameters."""
        return self.watched.hyper.view.tobytes()

    def situation(self) -> Tuple[Any, ...]:
        """What decides the graphs that the next calls run. For after `prepare`."""
        table = self.table
        return (
            self.watched.revision,
            table.revision - table.sums_made,
            table.generation,
            self.joined.waiting,
            table.trainable.view.tobytes(),
            table.summed.view.tobytes() if self.round_open else b"",
        )

    def not_summed_yet(self, last_passes: Dict[str, int]) -> Tuple[bool, ...]:
        """Which gradients the next sum_grad() would add, by the last backward pass of each leaf."""
        return tuple(last_passes.get(slot.name, 0) > self._summed_passes for slot in self.slots)

    def awaits_sum(self, leaves: Sequence[str]) -> bool:
        """Whether a backward pass has reached one of these leaves since the last sum_grad()."""
        return bool(tape.reached_since(self.workspace, leaves, self._summed_passes).any())

    def catch_up(self, summed: bool) -> None:
        """Take note in Python of what a graph did. `summed`: sum_grad() was part of it, just now."""
        if summed:
            self._summed_passes = tape.passes(self.workspace)
        self._round_open = bool(self.table.summed.view.any())

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
            if self.watched.differentiable and self._function is None:
                raise NotImplementedError(
                    f"differentiable=True: {self._kind} has no form that Dragon's tape can record"
                )
            if self.watched.unscale != 1 and not self.can_unscale:
                raise RuntimeError("differentiable was switched on by a hook inside of GradScaler.step()")
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
        if self.watched.differentiable and self._function is not None:
            differentiable.Step(self, self._function, summed, gradients).run()
        else:
            end = [functools.partial(self.table.summed.view.fill, 0)] if summed else []
            self.run(("step", summed), lambda: self._update_parts(summed), end)
        if summed:
            self.end_round()

    @property
    def can_unscale(self) -> bool:
        """Whether the update itself multiplies gradients; a recorded step reads the user's numbers."""
        return bool(self._kind) and self.watched.can_unscale and not self.watched.differentiable

    def unscaling(self, factor: float, step: Callable[[], Any]) -> Any:
        """Call `step`, and let it multiply gradients by `factor`, besides ``grad_scale``.

        No context manager: what a signal's handler raises on the way in or out of one would leave the factor
        to the steps that come after.
        """
        with self.turn:
            before = self.watched.unscale  # of a step that calls this one in a hook
            try:
                self.watched.unscale = factor
                return step()
            finally:
                self.watched.unscale = before

    def prepare(self, groups: Sequence[Group], what: str) -> None:
        """Everything before the first graph of a call runs."""
        self.guard(what)
        self.look(groups)

    def look(self, groups: Sequence[Group]) -> None:
        """The part of `prepare` that is left where somebody else has guarded the workspace."""
        with recording.own_work(self.workspace):
            self.sync(groups)
        self.joined.look(self.watched.slots)
        recording.notify(self.workspace, "prepared", self)

    def open_masked_round(self) -> None:
        """Let a step from sums take the trainable parameters that were summed."""
        self.table.round.view[:] = self.table.trainable.view & self.table.summed.view

    def end_round(self) -> None:
        """Forget the sums. Their memory stays for the next round."""
        self.table.summed.view[:] = 0
        self._round_open = False
        recording.notify(self.workspace, "round_ended", self)

    def abandon_round(self) -> None:
        """End the round, if there is one, without a step."""
        with self.turn:
            if self.round_open:
                self.end_round()

    def sum_grad(self, groups: Sequence[Group]) -> None:
        """Add the gradients of the parameters that a backward pass has reached since the last call."""
        with self.turn:
            self._sum_grad(groups)

    def _sum_grad(self, groups: Sequence[Group]) -> None:
        self.prepare(groups, "sum_grad()")
        names, indices = self.joined.leaves()
        fresh = self.table.fresh.view
        fresh[:] = 0
        fresh[indices] = tape.reached_since(self.workspace, names, self._summed_passes)
        fresh &= self.table.trainable.view
        if not fresh.any():
            return
        passes = tape.passes(self.workspace)
        noted = [
            functools.partial(setattr, self, "_summed_passes", passes),
            functools.partial(setattr, self, "_round_open", True),
        ]
        self.run("sum_grad", self._sum_parts, noted)
        recording.notify(self.workspace, "summed", self)

    def _sum_parts(self) -> List[Part]:
        def check_grad(slots: Sequence[Slot]) -> List[Any]:
            parts = plan.by_place(slots, lambda slot: slot)
            return [plan.accumulate(self.table, part, only_check=True) for part in parts]

        def sum_grad(slots: Sequence[Slot]) -> List[Any]:
            parts = plan.by_place(slots, lambda slot: slot)
            sums = [plan.accumulate(self.table, part, only_check=False) for part in parts]
            return sums if len(parts) <= 1 else check_grad(slots) + sums

        checks = self._batch_parts(check_grad) if len(self.joined.batches) > 1 else []
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
