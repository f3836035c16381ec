# SPDX-License-Identifier: BSD-2-Clause
"""One step, from parameter groups to a graph that runs.

The way of a step that was made before: a comparison of the groups with what was seen last, and one
``run_graph``. Everything else in this file happens when something changed.
"""

import operator
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim import hyper, parameters, plan
from dragon_optim._dragon import collective, graphs, tape, workspace
from dragon_optim.process_group import Reduction
from dragon_optim.slots import Slot, SlotTable

Group = Dict[str, Any]


class _Row(NamedTuple):
    """The hyper-parameters of one group."""

    values: Tuple[Any, ...]  # as the user wrote them
    numbers: Tuple[float, ...]  # as the operator reads them
    states: Tuple[str, ...]
    foreach: bool


class Engine:
    """The slots, the hyper-parameters as numbers, and the graphs of one optimizer.

    Parameters
    ----------
    kind : str
        The update operator.
    fields : sequence of hyper.Field
        The hyper-parameters that the operator reads, in its order.
    states : callable
        From the checked hyper-parameters of a group to the names of its states. May warn or raise. Not a
        method of the optimizer object: a cycle of references would keep its memory until Python's garbage
        collector looks for cycles.
    """

    def __init__(
        self,
        kind: str,
        fields: Sequence[hyper.Field],
        states: Callable[[Dict[str, float]], Tuple[str, ...]],
    ) -> None:
        self.workspace = workspace.current()
        self.table = SlotTable(self.workspace)
        self._kind = kind
        self._fields = tuple(fields)
        self._states = states
        self._keys = [field.key for field in fields]
        self._hyper = graphs.HostArray(self.workspace, (1, max(1, len(self._keys))), "float64")
        self._plans: List[plan.GroupPlan] = []
        self._seen_params: List[Tuple[Tensor, ...]] = []
        self._seen_values: List[Tuple[Any, ...]] = []
        self._group_slots: List[Tuple[Slot, ...]] = []  # one for each occurrence of a parameter
        self._params: List[Tensor] = []  # of all groups, each once
        self._slots: List[Slot] = []  # theirs
        self._waiting: List[Slot] = []  # those whose gradient never existed yet
        self._seen_trainable: List[bool] = []
        self._graphs: Dict[Any, Optional[graphs.Graph]] = {}
        self._current: Dict[Any, Optional[graphs.Graph]] = {}
        self._generation = 0
        self._revision = 0
        self._summed_passes = 0  # backward passes that sum_grad() has seen
        self._zero_mode = graphs.HostArray(self.workspace, 1, "int64")
        self._reduction = Reduction()
        self.round_open = False  # whether sums wait for a step

    # What changed since the last call.

    def guard(self, what: str) -> None:
        """Raise if the workspace is not the current one, or was cleared."""
        workspace.check_current(self.workspace, what)
        self._hyper.view  # noqa: B018  raises when the workspace was cleared

    def sync(self, groups: Sequence[Group]) -> None:
        """Take over what the user changed in the groups. Raises before anything is taken over."""
        if not isinstance(groups, (list, tuple)):
            raise TypeError(f"param_groups must be a list of dicts, but got {parameters.type_name(groups)}")
        changed = self._params_changed(groups)
        if changed:
            self._check_params(groups)
        rows = self._changed_rows(groups)
        if changed:
            self._take_params(groups)
        if changed or rows:
            self._take_rows(rows)
        self._write_trainable()

    def _params_changed(self, groups: Sequence[Group]) -> bool:
        if len(groups) != len(self._seen_params):
            return True
        for group, seen in zip(groups, self._seen_params):
            params = group["params"] if isinstance(group, dict) and "params" in group else None
            if (
                type(params) is not list
                or len(params) != len(seen)
                or not all(map(operator.is_, params, seen))
            ):
                return True
        return False

    def _check_params(self, groups: Sequence[Group]) -> None:
        for number, group in enumerate(groups):
            if not isinstance(group, dict):
                raise TypeError(
                    f"param_groups[{number}] must be a dict, but got {parameters.type_name(group)}"
                )
            if "params" not in group:
                raise KeyError(f"param_groups[{number}] lacks 'params'; set it to a list of Tensors")
            if not isinstance(group["params"], (list, tuple)):
                raise TypeError(
                    f"param_groups[{number}]['params'] must be a list of Tensors, but got "
                    f"{parameters.type_name(group['params'])}"
                )
            parameters.check(group["params"], self.workspace)
        parameters.check_duplicates([group["params"] for group in groups])

    def _take_params(self, groups: Sequence[Group]) -> None:
        for group in groups:
            if type(group["params"]) is not list:
                group["params"] = list(group["params"])
        self._seen_params = [tuple(group["params"]) for group in groups]
        self._group_slots = [tuple(map(self.table.add, params)) for params in self._seen_params]
        self._slots = list({slot.index: slot for slots in self._group_slots for slot in slots}.values())
        self._params = [slot.param for slot in self._slots]
        self._waiting = [slot for slot in self._slots if not slot.joined]
        self._seen_trainable = []
        rows = max(1, len(groups))  # Dragon has no size 0
        if self._hyper.view.shape[0] != rows:
            self._hyper.resize((rows, self._hyper.view.shape[1]))

    def _changed_rows(self, groups: Sequence[Group]) -> Dict[int, _Row]:
        """For each group whose values may have changed: what they are now."""
        rows = {}
        for number, group in enumerate(groups):
            try:
                options = (group.get("foreach"), group.get("differentiable"))
                values = (*[group[key] for key in self._keys], *options)
            except KeyError as error:
                raise KeyError(f"param_groups[{number}] lacks {error}; set it") from None
            if number < len(self._seen_values) and hyper.is_unchanged(values, self._seen_values[number]):
                continue
            foreach, differentiable = options
            flag = isinstance(foreach, (bool, int, numpy.bool_)) and foreach in (0, 1)
            if not flag and foreach is not None:
                raise ValueError(
                    f"Invalid foreach value: {parameters.printable(foreach)} (need None, True or False)"
                )
            if differentiable:
                raise NotImplementedError(
                    "differentiable=True is not supported yet: the step is not recorded by Dragon's tape"
                )
            numbers = hyper.row(self._fields, group)
            states = self._states(dict(zip(self._keys, numbers)))
            rows[number] = _Row(values, numbers, states, foreach is None or bool(foreach))
        return rows

    def _take_rows(self, rows: Dict[int, _Row]) -> None:
        count = len(self._seen_params)
        old_plans, old_values = self._plans, self._seen_values
        self._plans, self._seen_values = [], []
        for number in range(count):
            row = rows.get(number)
            source = old_plans[number] if row is None else row
            self._plans.append(plan.GroupPlan(self._group_slots[number], source.states, source.foreach))
            self._seen_values.append(old_values[number] if row is None else row.values)
            if row is not None:
                self._hyper.view[number, : len(row.numbers)] = row.numbers
        if self._plans != old_plans:
            self._current.clear()

    def _write_trainable(self) -> None:
        # A parameter without requires_grad has no `.grad` in Dragon, whatever an earlier backward left
        # behind.
        trainable = [param._requires_grad for param in self._params]
        if trainable == self._seen_trainable:
            return
        view = self.table.trainable.view
        for slot, flag in zip(self._slots, trainable):
            view[slot.index] = bool(flag)
        self._seen_trainable = trainable

    def _join(self) -> None:
        """Take up the gradients that exist by now. Only parameters that never had one are looked at."""
        if self._waiting:
            gradients = [self.workspace.get_tensor(slot.grad_name) for slot in self._waiting]
            self.join(
                [slot for slot, each in zip(self._waiting, gradients) if each is not None and each.size > 0]
            )

    def join(self, slots: Sequence[Slot]) -> None:
        """Make gradients edges of the graphs that are made from now on. Their tensors must exist."""
        if not slots:
            return
        for slot in slots:
            slot.joined = True
        self._waiting = [slot for slot in self._waiting if not slot.joined]
        self._current.clear()

    # Graphs, made once for each structure.

    @property
    def slots(self) -> Sequence[Slot]:
        """The slots of all groups, each once."""
        return self._slots

    def edges(self, summed: bool) -> plan.Edges:
        """What the operators of an update share."""
        return plan.Edges(self.table, self._hyper, summed)

    def run(
        self, key: Any, get_slots: Callable[[], Sequence[Slot]], make: Callable[[], Sequence[Any]]
    ) -> None:
        """Run the graph of `key` over some slots.

        They are asked for when anything has changed. When a structure is met first, `make` gives the
        operators; it may give none.
        """
        if self._generation != self.table.generation:
            self._generation = self.table.generation
            self._graphs.clear()
            self._current.clear()
        if self._revision != self.table.revision:
            self._revision = self.table.revision
            self._current.clear()
        if key not in self._current:
            slots = get_slots()
            structure = (key, tuple((slot.index, slot.param.dtype) for slot in slots), self._structure())
            if structure not in self._graphs:
                # Dtypes and devices may have changed since the parameters were taken.
                parameters.check([slot.param for slot in slots], self.workspace, allow_non_leaf=True)
                operators = make()
                self._graphs[structure] = graphs.Graph(self.workspace, operators) if operators else None
            self._current[key] = self._graphs[structure]
        graph = self._current[key]
        if graph is not None:
            graph.run()

    def _structure(self) -> Any:
        return tuple(
            (each.states, each.foreach, tuple(slot.index for slot in each.slots)) for each in self._plans
        )

    def taking(self, summed: bool) -> List[Slot]:
        """The slots whose gradients (sums) are edges."""
        return [slot for slot in self._slots if (slot.sum is not None if summed else slot.joined)]

    def check_operators(self, summed: bool) -> List[Any]:
        """The operator that finds what is wrong with a step."""
        taking = {slot.index for slot in self.taking(summed)}
        if not taking:
            return []
        merged = [each._replace(foreach=True) for each in self._plans]
        parts = plan.segments(merged, lambda slot: slot.index in taking)
        unique: List[plan.Segment] = []
        seen: Set[int] = set()
        for part in parts:
            if not seen.issuperset(slot.index for slot in part.slots):
                unique.append(part)
                seen.update(slot.index for slot in part.slots)
        return [self.edges(summed).check(unique)]

    def _step_operators(self, summed: bool) -> List[Any]:
        taking = {slot.index for slot in self.taking(summed)}
        parts = plan.segments(self._plans, lambda slot: slot.index in taking)
        edges = self.edges(summed)
        return self.check_operators(summed) + [edges.update(self._kind, part) for part in parts]

    # The three things that an optimizer does.

    def step(self, groups: Callable[[], Sequence[Group]], before: Callable[[], None]) -> None:
        """Update every parameter that has a gradient, or a sum in this round. All or nothing.

        `before` runs first (the closure): also what it raises on one rank must be heard by the others. It
        may change the groups, so these are asked for afterwards.
        """

        def prepare() -> None:
            self.guard("step()")
            before()
            self.prepare(groups(), "step()")

        process_group = collective.group()
        if process_group is not None:
            summed = self._reduction.reduce(self, process_group, prepare)
        else:
            prepare()
            summed = self.round_open
        if summed:
            self.open_masked_round()
        self.run(("step", summed), lambda: self.taking(summed), lambda: self._step_operators(summed))
        if summed:
            self.end_round()

    def prepare(self, groups: Sequence[Group], what: str) -> None:
        """Everything before the first graph of a call runs."""
        self.guard(what)
        self.sync(groups)
        self._join()

    def open_masked_round(self) -> None:
        """Let a step from sums take the trainable parameters that were summed."""
        self.table.round.view[:] = self.table.trainable.view & self.table.summed.view

    def end_round(self) -> None:
        """Forget the sums. Their memory stays for the next round."""
        self.table.summed.view[:] = 0
        self.round_open = False

    def sum_grad(self, groups: Sequence[Group]) -> None:
        """Add the gradients of the parameters that a backward pass has reached since the last call."""
        self.prepare(groups, "sum_grad()")
        slots = self.taking(summed=False)
        reached = tape.reached_since(self.workspace, [slot.name for slot in slots], self._summed_passes)
        fresh = self.table.fresh.view
        fresh[:] = 0
        for slot, each in zip(slots, reached):
            fresh[slot.index] = each
        fresh &= self.table.trainable.view
        if not fresh.any():
            return
        self.run("sum_grad", lambda: slots, lambda: [plan.accumulate(self.table, slots)])
        self._summed_passes = tape.passes(self.workspace)
        self.round_open = bool(self.table.summed.view.any())

    def zero_grad(self, groups: Sequence[Group], set_to_none: bool) -> None:
        """Fill the gradients with zeros, or take them away."""
        self.prepare(groups, "zero_grad()")
        self._zero_mode.view[0] = bool(set_to_none)

        def operators() -> List[Any]:
            slots = self.taking(summed=False)
            return [plan.zero_grad(self._zero_mode, slots)] if slots else []

        self.run("zero_grad", lambda: self.taking(summed=False), operators)
