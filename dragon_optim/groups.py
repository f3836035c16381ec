# SPDX-License-Identifier: BSD-2-Clause
"""What the user's ``param_groups`` hold, and what changed in them since the last look.

They are plain dicts and lists that anybody may write to at any time. So each call looks at them anew, but
only compares: what is the very object seen before needs no second check.
"""

import math
import operator
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from dragon.vm.torch.core.tensor import Tensor

from dragon_optim import hyper, parameters, plan
from dragon_optim._dragon import graphs, library, tensors
from dragon_optim.slots import Slot, SlotTable

Group = Dict[str, Any]

# PyTorch's words and PyTorch's kind of error.
FOREACH_AND_DIFFERENTIABLE = (
    "_foreach ops don't support autograd: give foreach=None or False with differentiable=True"
)


_GRAD_SCALE = "grad_scale"


class _Row(NamedTuple):
    """The hyper-parameters of one group."""

    values: Tuple[Any, ...]  # as the user wrote them
    numbers: Tuple[float, ...]  # as the operator reads them
    states: Tuple[str, ...]
    foreach: bool


class WatchedGroups:
    """The parameter groups as operators need them.

    Parameters
    ----------
    table : SlotTable
        Where parameters get their slots.
    fields : sequence of hyper.Field
        The hyper-parameters that the operator reads, in its order.
    refused : sequence of hyper.Refused
        The flags that no group may switch on.
    states : callable
        From the checked hyper-parameters of a group to the names of its states. May warn or raise. Not a
        method of the optimizer object: a cycle of references would keep its memory until Python's garbage
        collector looks for cycles.
    """

    def __init__(
        self,
        table: SlotTable,
        fields: Sequence[hyper.Field],
        refused: Sequence[hyper.Refused],
        states: Callable[[Dict[str, float]], Tuple[str, ...]],
    ) -> None:
        self._table = table
        self._fields = tuple(fields)
        self._refused = tuple(refused)
        self._states = states
        self.keys = [field.key for field in fields]
        self.hyper = graphs.HostArray(table.workspace, (1, max(1, len(self.keys))), "float64")
        self.plans: List[plan.GroupPlan] = []
        self.slots: List[Slot] = []  # of all groups, each once
        self.revision = 0  # raised when `plans` has changed
        self._params: List[Tensor] = []  # those of `slots`
        self._group_slots: List[Tuple[Slot, ...]] = []  # one for each occurrence of a parameter
        self._seen_params: List[Tuple[Tensor, ...]] = []
        self._seen_values: List[Tuple[Any, ...]] = []
        self._watched = (*self.keys, "foreach", "differentiable", *(field.key for field in refused))
        self._settled: List[Optional[Tuple[Any, ...]]] = []  # `_seen_values` where none can change in place
        self._numbers: List[Tuple[float, ...]] = []
        self._seen_trainable: List[bool] = []
        self._seen_moves = table.moves
        self._may_move = len(library.devices()) > 1
        self._seen_devices: List[Any] = []
        self.differentiable = False  # whether steps are recorded by Dragon's tape
        self.unscale = 1.0  # a factor of gradients besides grad_scale, while a loss scale asks for it
        self._written_unscale = 1.0

    def sync(self, groups: Sequence[Group]) -> None:
        """Take over what the user changed in the groups. Raises before anything is taken over."""
        self._table.follow()
        changed = self._params_changed(groups) or self._seen_moves != self._table.moves
        moved = self._may_move and (changed or self._are_elsewhere())
        if changed or moved:
            self.check_params(groups)
        rows = self._changed_rows(groups)
        if changed or rows:
            self._take(groups, changed, rows)
        if moved:
            self._table.move_states()
            self._seen_devices = tensors.devices(self._params)
            self.revision += 1
        if self.unscale != self._written_unscale:
            self._write_unscale()
        self._write_trainable()

    @property
    def can_unscale(self) -> bool:
        """Whether the operator multiplies gradients by a hyper-parameter."""
        return _GRAD_SCALE in self.keys

    def _write_unscale(self) -> None:
        column = self.keys.index(_GRAD_SCALE)
        self._written_unscale = math.nan  # until all rows have it: this may be interrupted
        for number, numbers in enumerate(self._numbers):
            self.hyper.view[number, column] = numbers[column] * self.unscale
        self._written_unscale = self.unscale

    def _take(self, groups: Sequence[Group], changed: bool, rows: Dict[int, _Row]) -> None:
        # What is compared with is taken last: if this is interrupted, all of it counts as changed.
        differentiable = self._differentiable(groups)
        if differentiable != self.differentiable and not changed:
            self.check_params(groups)  # the one mode takes parameters that the other does not
        state, claimed = self._table.state_of(), []
        if changed and state is not None:  # what the user has set for parameters that join now
            claimed = state.claimed_by([each for group in groups for each in group["params"]])
        if changed:
            self._take_params(groups)
        self._take_rows(rows)
        if differentiable != self.differentiable:
            self._switch(differentiable)
        self._seen_moves = self._table.moves
        if state is not None:
            state.hand_over(claimed)
        if changed:
            self._seen_params = [tuple(group["params"]) for group in groups]

    def _params_changed(self, groups: Sequence[Group]) -> bool:
        if not isinstance(groups, (list, tuple)) or len(groups) != len(self._seen_params):
            return True
        for group, seen in zip(groups, self._seen_params):
            params = group["params"] if isinstance(group, dict) and "params" in group else None
            if type(params) is not list or len(params) != len(seen):
                return True
            if not all(map(operator.is_, params, seen)):
                return True
        return False

    def _are_elsewhere(self) -> bool:
        """Whether a parameter was moved to another device, which it is in place."""
        devices = tensors.devices(self._params)
        if all(map(operator.is_, devices, self._seen_devices)):
            return False
        if devices != self._seen_devices:
            return True
        self._seen_devices = devices
        return False

    def check_params(self, groups: Sequence[Group]) -> None:
        """Raise unless every group is a dict that holds a list of parameters, none in two groups."""
        parameters.check_lists(groups)
        for number, group in enumerate(groups):
            on_tape = is_on_tape(group)
            parameters.check(group["params"], self._table.workspace, allow_non_leaf=on_tape)
            if on_tape:
                parameters.check_differentiable(group["params"], number)
        known = {tuple(map(id, params)) for params in self._seen_params}
        parameters.check_duplicates([group["params"] for group in groups], known)

    def _take_params(self, groups: Sequence[Group]) -> None:
        for group in groups:
            if type(group["params"]) is not list:
                group["params"] = list(group["params"])
        self._seen_params = []
        self._group_slots = [tuple(map(self._table.add, group["params"])) for group in groups]
        self.slots = list({slot.index: slot for slots in self._group_slots for slot in slots}.values())
        self._table.keep(self.slots)
        self._params = [slot.param for slot in self.slots]
        self._seen_trainable = []
        rows = max(1, len(groups))  # Dragon has no size 0
        if self.hyper.view.shape[0] != rows:
            self.hyper.resize((rows, self.hyper.view.shape[1]))

    def _changed_rows(self, groups: Sequence[Group]) -> Dict[int, _Row]:
        """For each group whose values may have changed: what they are now."""
        rows = {}
        for number, group in enumerate(groups):
            # A list: Python keeps up to 2000 dead tuples of each length.
            values = list(map(group.get, self._watched))
            settled = self._settled[number] if number < len(self._settled) else None
            # By identity: ``(0.1,) == (tensor,)`` is true in Dragon, whatever the tensor holds.
            if settled is not None and all(map(operator.is_, values, settled)):
                continue
            for key in self.keys:
                if key not in group:
                    raise KeyError(f"param_groups[{number}] lacks {key!r}; set it")
            numbers = hyper.row(self._fields, group)
            hyper.check_refused(self._refused, group)
            states = self._states_of(number, numbers)
            rows[number] = _Row(tuple(values), numbers, states, check_modes(group))
        return rows

    def _differentiable(self, groups: Sequence[Group]) -> bool:
        """Whether steps are recorded: in all groups, or in none."""
        flags = {is_on_tape(group) for group in groups}
        if len(flags) > 1:
            raise ValueError(
                "differentiable must be the same in all groups: a step is on Dragon's tape as a whole, or "
                "not at all. Make two optimizers."
            )
        return flags == {True}

    def _switch(self, differentiable: bool) -> None:
        if not differentiable:
            self._table.own_states()
        self._table.differentiable = self.differentiable = differentiable

    def value(self, number: int, key: str) -> Any:
        """What the user wrote for a hyper-parameter of a group."""
        return self._seen_values[number][self.keys.index(key)]

    def numbers(self, number: int) -> Tuple[float, ...]:
        """The hyper-parameters of a group as the operator reads them."""
        return self._numbers[number]

    def _states_of(self, number: int, numbers: Tuple[float, ...]) -> Tuple[str, ...]:
        """The states of a group. Asked (and warned of) anew when more than the learning rate has changed."""

        def key(row: Tuple[float, ...]) -> Tuple[float, ...]:
            return tuple(value for value, name in zip(row, self.keys) if name != "lr")

        if number < len(self._numbers) and key(numbers) == key(self._numbers[number]):
            return self.plans[number].states
        return self._states(dict(zip(self.keys, numbers)))

    def _take_rows(self, rows: Dict[int, _Row]) -> None:
        old_values, old_numbers = self._seen_values, self._numbers
        self._settled, self._numbers = [], []
        plans: List[plan.GroupPlan] = []
        values: List[Tuple[Any, ...]] = []
        numbers: List[Tuple[float, ...]] = []
        for number, slots in enumerate(self._group_slots):
            row = rows.get(number)
            source = self.plans[number] if row is None else row
            plans.append(plan.GroupPlan(slots, source.states, source.foreach))
            values.append(old_values[number] if row is None else row.values)
            numbers.append(old_numbers[number] if row is None else row.numbers)
            if row is not None:
                self.hyper.view[number, : len(row.numbers)] = row.numbers
                if self._written_unscale != 1:
                    self._written_unscale = math.nan  # it is 1 in this row now, and something else in others
        if self.plans != plans:
            self.revision += 1
        self.plans, self._seen_values, self._numbers = plans, values, numbers
        self._settled = [each if hyper.are_immutable(each) else None for each in values]

    def _write_trainable(self) -> None:
        # A parameter without requires_grad has no `.grad` in Dragon, whatever an earlier backward left there.
        trainable = tensors.require_grad(self._params)
        if trainable == self._seen_trainable:
            return
        view = self._table.trainable.view
        for slot, flag in zip(self.slots, trainable):
            view[slot.index] = bool(flag)
        self._seen_trainable = trainable

    def structure(self) -> Any:
        """What decides the operators of a step, as a key."""
        return tuple(
            (each.states, each.foreach, tuple(slot.index for slot in each.slots)) for each in self.plans
        )


def check_modes(group: Group) -> bool:
    """Raise for a wrong ``differentiable`` or ``foreach``. Return whether the group is one operator."""
    foreach = hyper.as_mode("foreach", group.get("foreach"))
    if is_on_tape(group) and foreach:
        raise AssertionError(FOREACH_AND_DIFFERENTIABLE)
    return foreach is not False


def is_on_tape(group: Group) -> bool:
    """Whether a group says ``differentiable``, or raise where it says something else."""
    return bool(hyper.as_mode("differentiable", group.get("differentiable")))
