# SPDX-License-Identifier: BSD-2-Clause
"""One update for Dragon's native interface: gradients and variables come in pairs, new ones at any time."""

import collections
import functools
import heapq
import weakref
from typing import (
    Any,
    Deque,
    Dict,
    Iterable,
    List,
    MutableMapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from dragon_optim import hyper, parameters, plan
from dragon_optim._dragon import collective, graphs, native, tensors, workspace
from dragon_optim.slots import Slot, SlotTable

_MAX_GRAPHS = 8  # of the eager updates of one optimizer, and as many kinds of operators


class _Row:
    """A row of hyper-parameters: that of a weight decay, as long as a pair goes by it."""

    def __init__(self, index: int, free: List[int]) -> None:
        self.index = index
        self._free = free  # a heap: where it goes when nobody holds it any more

    def __del__(self) -> None:
        heapq.heappush(self._free, self.index)


class Pair(NamedTuple):
    """A gradient and the variable that it is for."""

    grad: Any
    variable: Any
    slot: Slot
    row: _Row


class _PairEdges(plan.Edges):
    """Edges of an update whose gradients are the caller's."""

    def __init__(self, update: "NativeUpdate", pairs: Sequence[Pair]) -> None:
        super().__init__(update.table, update.hyper, summed=False)
        self._sources = {pair.slot.index: native.name(pair.grad) for pair in pairs}

    def source(self, slot: Slot) -> str:
        return self._sources[slot.index]


class NativeUpdate:
    """The states of an optimizer of the native interface, and the operators that update them.

    Parameters
    ----------
    kind : str
        The update operator.
    numbers : sequence of float
        The hyper-parameters, in the order of the operator.
    states : tuple of str
        The states that they need.
    weight_decay : int
        The place of the weight decay in `numbers`: a variable may bring its own.
    """

    def __init__(
        self, kind: str, numbers: Sequence[float], states: Tuple[str, ...], weight_decay: int
    ) -> None:
        self.workspace = workspace.current()
        self.table = SlotTable(self.workspace)
        self.hyper = graphs.HostArray(self.workspace, (1, len(numbers)), "float64")
        self.hyper.view[0] = numbers
        self.states = states
        self.turn = self.table.turn
        self._kind = kind
        self._place = native.place()
        self._weight_decay = weight_decay
        self._params: Dict[int, Any] = {}  # of the slots, by identity
        self._known: Dict[Any, _Recorded] = {}  # eager updates that come again and again
        self._structures: Set[Any] = set()  # of eager updates whose operators Dragon keeps
        self._recent: Deque[Any] = collections.deque(maxlen=_MAX_GRAPHS)
        # Weight decay of a variable's own -> row. One that changes all the time would leave a row for each.
        self._rows: MutableMapping[Optional[float], _Row] = weakref.WeakValueDictionary()
        self._free_rows: List[int] = []
        self._first_row = self._rows[None] = _Row(0, self._free_rows)  # held here: the dictionary is weak

    def put(self, numbers: Sequence[float], states: Tuple[str, ...]) -> None:
        """Take other hyper-parameters from now on, also in functions that were built before."""
        with self.turn:
            self.hyper.view[:] = numbers
            for own, row in self._rows.items():
                if own is not None:
                    self.hyper.view[row.index, self._weight_decay] = own
            self.states = states

    def go_to(self, place: plan.Place) -> None:
        """Let all variables and their states be where Dragon runs now: its native interface has no moves."""
        if place == self._place:
            return
        parameters.check_place(place, "apply_gradients()")
        self._place = place
        for slot in self.table.slots:
            native.follow(slot.param, place)
        self.table.move_states()

    # From what the caller gives to pairs. Raises before anything has changed.

    def guard(self) -> None:
        """Raise if the workspace is not the current one, or was cleared."""
        workspace.check_current(self.workspace, "apply_gradients()")
        self.hyper.view  # noqa: B018  raises when the workspace was cleared

    def pairs(
        self, given: Sequence[Tuple[Any, Any]], decays: Sequence[Optional[float]], eager: bool
    ) -> List[Pair]:
        """Return the pairs that have a gradient; with `eager`, one with data that fits its variable.

        `decays` are the weight decays that the variables bring along.
        """
        params = [self._params.get(tensors.identity(variable)) for _, variable in given]
        if any(param is None for param in params):  # what was updated before needs no second look
            params = self._checked_params(given)
        present = []
        for number, (grad, variable) in enumerate(given):
            if grad is not None and self._is_present(grad, variable, number, eager):
                present.append(number)
        return [
            Pair(*given[number], self._slot(params[number]), self._row(decays[number])) for number in present
        ]

    def _checked_params(self, given: Sequence[Tuple[Any, Any]]) -> List[Any]:
        for number, (_, variable) in enumerate(given):
            workspace.check_tensor(variable, self.workspace, f"variable {number}")
        params = [native.as_parameter(variable, self._place) for _, variable in given]
        parameters.check(params, self.workspace)
        return params

    def _is_present(self, grad: Any, variable: Any, number: int, eager: bool) -> bool:
        workspace.check_home(grad, self.workspace, f"the gradient of variable {number}")
        if not eager:
            return True
        if not native.has_data(grad):
            return False
        if native.kind(grad) != native.kind(variable):
            raise ValueError(
                f"the gradient of variable {number} is {native.kind(grad)}, but the variable is "
                f"{native.kind(variable)}. Nothing was changed"
            )
        return True

    def _slot(self, param: Any) -> Slot:
        slot = self.table.add(param)
        self._params[tensors.identity(param)] = slot.param
        self.table.trainable.view[slot.index] = 1
        return slot

    def _row(self, own: Optional[float]) -> _Row:
        row = self._rows.get(own)
        if row is None:
            rows, columns = self.hyper.view.shape
            if not self._free_rows:
                self.hyper.resize((2 * rows, columns))
                self._free_rows += range(rows, 2 * rows)
            row = self._rows[own] = _Row(heapq.heappop(self._free_rows), self._free_rows)
            self.hyper.view[row.index] = self.hyper.view[0]
            self.hyper.view[row.index, self._weight_decay] = own
        return row

    def find(self, variable: Any) -> Optional[Slot]:
        """Return the slot of a variable that was updated before."""
        if not native.is_tensor(variable):
            return None
        return self.table.find(native.as_parameter(variable, self._place))

    def forget(self, variable: Any) -> None:
        """Clear the states of a variable."""
        with self.turn:
            self.guard()
            slot = self.find(variable)
            if slot is not None:
                self.table.clear(slot)

    # From pairs to operators.

    def operators(self, pairs: Sequence[Pair]) -> List[Any]:
        """Return the operators of an update: the checks, the mean over a process group, the updates."""
        parts: List[Tuple[_PairEdges, plan.Segment]] = []
        for wave in plan.waves(pairs, lambda pair: pair.slot):
            edges = _PairEdges(self, wave)
            plans = [
                plan.GroupPlan(tuple(pair.slot for pair in wave if pair.row.index == row), self.states, True)
                for row in range(1 + max((pair.row.index for pair in wave), default=0))
            ]
            parts += [(edges, part) for part in plan.segments(plans, [pair.slot for pair in wave])]
        means = self._means(pairs)
        if len(parts) == 1 and not means:  # it can check by itself
            edges, part = parts[0]
            return [edges.update(self._kind, part, checked=False)]
        checks = [edges.check(self._kind, [part], absent=False) for edges, part in parts]
        updates = [edges.update(self._kind, part) for edges, part in parts]
        return checks + means + updates

    def _means(self, pairs: Sequence[Pair]) -> List[Any]:
        process_group = collective.group()
        if process_group is None or not pairs:
            return []
        for pair in pairs:
            if pair.slot.param.dtype == "float16":
                raise RuntimeError("apply_gradients() cannot reduce float16 gradients in a process group")
        means = []
        for part in plan.by_place(pairs, lambda pair: pair.slot):
            names = list(dict.fromkeys(native.name(pair.grad) for pair in part))
            means.append(collective.all_reduce(process_group, names, part[0].slot.param.device, "MEAN"))
        return means

    def run(self, grads_and_vars: Iterable[Any]) -> None:
        """Update the variables now."""
        with self.turn:
            self.guard()
            given = _checked_pairs(grads_and_vars)
            decays = _own_weight_decays(given)
            self.go_to(native.place())
            fingerprint = native.fingerprint(given, decays)
            key = fingerprint and (self._place, fingerprint)
            known = self._known.get(key)
            if known is not None and known.is_computed():
                known.run(self)
                return
            pairs = self.pairs(given, decays, eager=True)
            if key is not None and len(pairs) == len(given) and self._is_worth_a_graph(pairs, decays):
                self._known[key] = _Recorded(pairs, self._place)
                self._known[key].run(self)
            else:
                operators = self.operators(pairs)
                native.run_each(self.workspace, operators, self._is_worth_keeping(pairs))

    def _is_worth_a_graph(self, pairs: Sequence[Pair], decays: Sequence[Optional[float]]) -> bool:
        """Whether the same pairs were met before. Dragon never frees a graph, so only few get one.

        The gradients go by their names: nobody holds the tensors, and where one has died comes another.
        """
        if len(self._known) >= _MAX_GRAPHS:
            return False
        met = tuple((native.name(pair.grad), pair.slot.index, decay) for pair, decay in zip(pairs, decays))
        if met in self._recent:
            return True
        self._recent.append(met)
        return False

    def _is_worth_keeping(self, pairs: Sequence[Pair]) -> bool:
        """Whether Dragon may keep the operators of this update, which it does for ever: only a few."""
        structure = (
            self.states,
            self._place,
            tuple((pair.slot.index, pair.row.index, pair.slot.param.dtype) for pair in pairs),
        )
        if structure not in self._structures and len(self._structures) < _MAX_GRAPHS:
            self._structures.add(structure)
        return structure in self._structures

    def build(self, grads_and_vars: Iterable[Any]) -> Any:
        """Return what updates the variables each time a function runs. It keeps this object alive."""
        with self.turn:
            self.guard()
            given = _checked_pairs(grads_and_vars)
            self.go_to(native.place())
            pairs = self.pairs(given, _own_weight_decays(given), eager=False)
            return native.Execution(functools.partial(_Recorded(pairs, self._place).run_computed, self))


class _Recorded:
    """An update of the same pairs again and again: a graph for each set of states that was asked for.

    It holds the gradients and the variables, and so their names. It does not hold the `NativeUpdate`, which
    holds it: such a cycle would keep the states until Python's collector looks for cycles.
    """

    def __init__(self, pairs: Sequence[Pair], place: plan.Place) -> None:
        self._pairs = pairs
        self._place = place  # where the function runs that it is a part of, whoever calls it
        self._graphs: Dict[Any, graphs.Graph] = {}

    def is_computed(self) -> bool:
        """Whether all gradients have data."""
        return all(native.has_data(pair.grad) for pair in self._pairs)

    def run_computed(self, update: NativeUpdate) -> None:
        """Update the variables, from the gradients that a function has just computed."""
        with update.turn:
            update.guard()
            if not self.is_computed():
                raise RuntimeError(
                    "a gradient in a function was not computed: return from the function the loss that it "
                    "is of, and the gradient too if it is more than what tape.gradient() gave. Nothing was "
                    "changed"
                )
            self.run(update)

    def run(self, update: NativeUpdate) -> None:
        """Update the variables."""
        if not self._pairs:
            return
        update.go_to(self._place)
        params = [pair.slot.param for pair in self._pairs]
        process_group = collective.group()
        ranks = None if process_group is None else str(process_group.arguments)
        kinds = tuple((param.dtype, tensors.place(param)) for param in params)
        key = (update.states, kinds, ranks, update.table.generation)
        if key not in self._graphs:
            parameters.check(params, update.workspace)
            self._graphs[key] = graphs.Graph(update.workspace, update.operators(self._pairs))
        self._graphs[key].run()


def _checked_pairs(grads_and_vars: Iterable[Any]) -> List[Tuple[Any, Any]]:
    if native.is_tensor(grads_and_vars) or not isinstance(grads_and_vars, Iterable):
        raise TypeError(
            "grads_and_vars must be an iterable of pairs (gradient, variable), but got "
            + parameters.type_name(grads_and_vars)
        )
    given = list(grads_and_vars)
    for number, pair in enumerate(given):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(
                f"grads_and_vars[{number}] must be a pair (gradient, variable), but got "
                + parameters.brief(pair)
            )
        for what, value in zip(("gradient", "variable"), pair):
            if not (native.is_tensor(value) or (value is None and what == "gradient")):
                raise TypeError(
                    f"the {what} of grads_and_vars[{number}] must be a Dragon tensor, but got "
                    + parameters.brief(value)
                )
    return [(grad, variable) for grad, variable in given]


def _own_weight_decays(given: Sequence[Tuple[Any, Any]]) -> List[Optional[float]]:
    return [_own_weight_decay(variable, number) for number, (_, variable) in enumerate(given)]


def _own_weight_decay(variable: Any, number: int) -> Optional[float]:
    own = native.explicit_weight_decay(variable)
    if own is None:
        return None
    decay = own if type(own) is float else hyper.as_number(f"the weight_decay of variable {number}", own)
    if not decay >= 0:
        raise ValueError(f"Invalid weight_decay value: {own} (of variable {number}; need weight_decay >= 0)")
    return decay
