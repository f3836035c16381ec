# SPDX-License-Identifier: BSD-2-Clause
"""A step that stays on Dragon's tape: parameters carry it back to all that the step was given.

The update operator is a function: its results are new tensors. A parameter, which is a Python object that a
model holds, becomes the new tensor; so does each state. The arithmetic is that of the ordinary step.
"""

import weakref
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim import hyper, parameters, plan
from dragon_optim._dragon import graphs, library, names, tensors, versions, workspace
from dragon_optim.slots import Slot

if TYPE_CHECKING:
    from dragon_optim.engine import Engine

Gradients = Mapping[Tensor, Tensor]


class Operator(NamedTuple):
    """The differentiable form of an update operator; see ``csrc/differentiable_op.cc`` for its edges."""

    kind: str

    def register(self) -> None:
        """Make the operator known to Dragon's tape, or raise where there is none of that name."""
        library.check_operator(self.kind)
        versions.register(self.kind, ("scalars", "states"))


class _Version(NamedTuple):
    """What a parameter becomes in a step, before it does."""

    twin: Tensor  # the parameter as it was
    param: Tensor
    states: Dict[str, Tensor]
    steps: int


def check_gradients(engine: "Engine", gradients: Gradients, in_group: bool) -> None:
    """Raise unless `step` can take these gradients in the place of ``.grad``."""
    if not engine.watched.differentiable:
        raise ValueError(
            "step() takes gradients only with differentiable=True; without, it reads each parameter's .grad"
        )
    if not isinstance(gradients, Mapping):
        raise TypeError(
            "gradients must be a dict from parameters to Tensors, but got " + parameters.type_name(gradients)
        )
    if in_group:
        raise RuntimeError(
            "step(): gradients cannot be averaged in a process group when they are given as expressions, "
            "since Dragon records no collective; let backward() compute them."
        )
    if engine.round_open:
        raise RuntimeError(
            "step(): gradients are given, but sums of sum_grad() wait too; "
            "abandon them by zero_grad(drop_sums=True)."
        )
    for param, gradient in gradients.items():
        if engine.table.find(param) not in engine.slots:
            raise ValueError("gradients hold a key that is no parameter of this optimizer")
        if not isinstance(gradient, Tensor):
            raise TypeError(f"a gradient must be a Tensor, but got {parameters.type_name(gradient)}")
        workspace.check_tensor(gradient, engine.workspace, "a gradient given to step()")


class Step:
    """One step of an optimizer whose groups say ``differentiable``.

    Parameters
    ----------
    engine : Engine
        Whose step it is.
    operator : Operator
        The function that computes it.
    summed : bool
        Whether it goes from the sums of this round.
    gradients : mapping, optional
        From parameters to gradients, in the place of ``.grad``.
    """

    def __init__(
        self, engine: "Engine", operator: Operator, summed: bool, gradients: Optional[Gradients]
    ) -> None:
        self._engine = engine
        self._operator = operator
        self._summed = summed
        self._gradients = self._take_gradients(gradients)
        self._versions: Dict[int, _Version] = {}  # by index of the slot

    def _take_gradients(self, given: Optional[Gradients]) -> Dict[int, Tensor]:
        """The gradients of the parameters that take part, by index of the slot."""
        table = self._engine.table
        if given is not None:
            slots = {param: table.find(param) for param in given}
            return {slot.index: given[param] for param, slot in slots.items() if slot is not None}
        found = {}
        for slot in self._engine.taking(self._summed):
            mask = table.round if self._summed else table.trainable
            if mask.view[slot.index]:
                source = slot.sum if self._summed else versions.gradient(slot.param)
                if source is not None and tensors.has_data(source):
                    found[slot.index] = source
        return found

    def run(self) -> None:
        """Make the step. If it raises, nothing has changed."""
        engine = self._engine
        if any(versions.is_hidden(slot.param) for slot in engine.slots):
            raise RuntimeError(_HIDDEN)
        consumed = forget_consumed(engine.slots)
        slots = [slot for slot in engine.slots if slot.index in self._gradients]
        if not slots:
            if consumed:
                raise RuntimeError(_CONSUMED)
            return
        self._check(slots)
        for part in plan.segments(engine.watched.plans, slots):
            self._apply(part)
        for slot in slots:
            self._commit(slot, self._versions[slot.index])
        engine.table.follow()

    def _check(self, slots: Sequence[Slot]) -> None:
        """Let the operator that stands before every step find what is wrong."""
        engine = self._engine
        mask = engine.table.round.view
        mask[:] = 0
        for slot in slots:
            mask[slot.index] = 1
        given = {index: tensors.name(each) for index, each in self._gradients.items()}
        graphs.run_once(engine.workspace, engine.check_operators(self._summed, slots, given=given))
        # A backward pass overwrites gradients in place, and the tape may be read long after it.
        for index, each in self._gradients.items():
            if not versions.is_on_tape(each):
                self._gradients[index] = versions.copy(engine.workspace, each)

    def _apply(self, part: plan.Segment) -> None:
        """Compute what the parameters of one operator become."""
        scalars, hyper = self._hyper(part.group)
        before = [self._before(slot, part.states) for slot in part.slots]
        params = [each.param for each in before]
        states = [[each.states[name] for each in before] for name in part.states]
        inputs = [hyper, *scalars.values(), *params, *[self._gradients[slot.index] for slot in part.slots]]
        for each in states:
            inputs += each
        results = versions.apply(
            self._operator.kind,
            inputs,
            len(params) * (1 + len(states)),
            scalars=tuple(scalars),
            states=part.states,
        )
        for place, (slot, old) in enumerate(zip(part.slots, before)):
            made = results[place :: len(params)]
            new_states = dict(zip(part.states, made[1:]))
            self._versions[slot.index] = _Version(old.twin, made[0], new_states, old.steps + 1)

    def _before(self, slot: Slot, states: Sequence[str]) -> _Version:
        """A parameter as the operator finds it: changed already, where it stands twice in its group."""
        if slot.index in self._versions:
            return self._versions[slot.index]
        table = self._engine.table
        twin = versions.stand_in(slot.param)
        found = {}
        for name in states:
            state = slot.states.get(name)
            if state is None or not tensors.has_data(state):  # starts in this step
                state = names.tensor_pool(table.workspace).new(slot.param.device)
            found[name] = state
        return _Version(twin, twin, found, 0)

    def _hyper(self, group: int) -> Tuple[Dict[str, Tensor], Tensor]:
        """The hyper-parameters of a group: those that a gradient flows to, and all as numbers.

        The numbers stand in a tensor of this step: the tape may be read when the group has others.
        """
        engine = self._engine
        scalars = {}
        if versions.is_recording():
            for key in engine.watched.keys:
                value = engine.watched.value(group, key)
                if isinstance(value, Tensor) and versions.is_on_tape(value):
                    scalars[key] = value
        hyper = names.tensor_pool(engine.workspace).new(engine.slots[0].param.device)
        graphs.tensor_from(numpy.array(engine.watched.numbers(group)), hyper)
        return scalars, hyper

    def _commit(self, slot: Slot, version: _Version) -> None:
        table = self._engine.table
        recorded = versions.history(version.param)
        if recorded is not None and versions.history(version.twin) is None:
            slot.origin = version.twin
        slot.history = None if recorded is None else weakref.ref(recorded)
        versions.move(slot.param, version.twin, version.param)
        for name, state in version.states.items():
            table.replace_state(slot, name, state)
        table.steps.view[slot.index] += version.steps


def forget_consumed(slots: Sequence[Slot]) -> bool:
    """Cut what a backward pass has used up, and return whether there was any.

    Dragon goes back over a tape once and takes it from the tensors that it passes, so from the parameters,
    but not from the states that stand beside them at the end.
    """
    consumed = False
    gone: List[Any] = []  # tapes, which are alive as long as a state holds them
    for slot in slots:
        recorded = slot.history() if slot.history is not None else None
        if slot.history is not None and (recorded is None or versions.history(slot.param) is not recorded):
            slot.history = None
            consumed = True
            gone.append(recorded)
    ids = {id(each) for each in gone if each is not None}
    for slot in slots if ids else ():
        if id(versions.history(slot.param)) in ids:  # the pass has reached another parameter of its step
            versions.cut(slot.param)
            slot.history = None
        for state in slot.states.values():
            if id(versions.history(state)) in ids:
                versions.constant(state)
    return consumed


def detach(slots: Sequence[Slot]) -> None:
    """Make leaves of the parameters and constants of their states."""
    for slot in slots:
        slot.history = None
        for each in (slot.param, *slot.states.values()):
            versions.note_end(each)
        versions.cut(slot.param)
        for state in slot.states.values():
            versions.constant(state)


def recorded_parameters(groups: Any) -> List[Tensor]:
    """The parameters, each once, of the groups whose steps are recorded. Passes over what is no group."""
    found: Dict[int, Tensor] = {}
    for group in groups if isinstance(groups, (list, tuple)) else []:
        if isinstance(group, dict) and _is_on_tape(group):
            params = group.get("params", ())
            for each in params if isinstance(params, (list, tuple)) else ():
                if isinstance(each, Tensor):
                    found[id(each)] = each
    return list(found.values())


def _is_on_tape(group: Mapping[str, Any]) -> bool:
    try:
        return bool(hyper.as_mode("differentiable", group.get("differentiable")))
    except ValueError:
        return False  # the step says what is wrong with it


_HIDDEN = (
    "step(): the history of a parameter is hidden by as_leaves(), in a closure or a `with` block, and the "
    "step would be recorded as if there were none. Let only backward() stand in the block, and call step() "
    "after it. Nothing was changed."
)

_CONSUMED = (
    "step(): no parameter has a gradient, since the last backward pass went on, through the parameters, to "
    "what their steps were given. To have gradients at the parameters and keep what is recorded, call "
    "backward() inside `with optimizer.as_leaves():` or in the closure of step(); to have both at once, call "
    "retain_grad() on the parameters."
)
