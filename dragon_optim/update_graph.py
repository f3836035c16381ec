# SPDX-License-Identifier: BSD-2-Clause
"""The update of an optimizer as a graph of its own: to print, to store, and to run anywhere in Dragon.

The graph has the operators of a step, with names that mean something outside of this process, and none of
this process's tensors: their values go beside it, as arrays.
"""

from typing import Any, Dict, Iterator, List, Sequence, Tuple

import numpy

from dragon_optim import parameters, plan
from dragon_optim._dragon import graphs, tensors
from dragon_optim.engine import Engine
from dragon_optim.groups import Group
from dragon_optim.slots import Slot

HYPER, MASK, STEPS = "optimizer/hyper", "optimizer/mask", "optimizer/steps"
GRADIENT = "grad"


def export(engine: Engine, groups: Sequence[Group], kind: str, states: Sequence[str], name: str) -> Any:
    """Return the update that the next step would run: the graph, and the values of its tensors.

    Parameters
    ----------
    engine : Engine
        Of the optimizer.
    groups : list of dict
        Its parameter groups.
    kind : str
        Its update operator.
    states : sequence of str
        Every state that it can have.
    name : str
        Of the graph.
    """
    with engine.turn:
        engine.guard("update_graph()")
        engine.sync(groups)
        edges = _ExportedEdges(engine, _names(groups, engine.plans, states))
        parameters.check([slot.param for slot in edges.slots], engine.workspace, allow_non_leaf=True)
        arrays = edges.arrays()
        operators = list(_operators(edges, engine.plans, kind)) if edges.slots else []
    written = list(dict.fromkeys(each for operator in operators for each in operator.output))
    read = [each for operator in operators for each in operator.input]
    used = dict.fromkeys([*read, *written])
    # A state out of use (momentum was switched off) is not in the graph.
    return graphs.definition(name, operators, used, written), {
        each: array for each, array in arrays.items() if each in used
    }


def _operators(edges: "_ExportedEdges", plans: Sequence[plan.GroupPlan], kind: str) -> Iterator[Any]:
    check = edges.check(plan.once(plans, edges.slots), absent=False)
    check.name = "check"
    yield check
    for number, part in enumerate(plan.segments(plans, edges.slots)):
        update = edges.update(kind, part)
        update.name = f"update/{number}/param_groups/{part.group}"
        yield update


def _names(groups: Sequence[Group], plans: Sequence[plan.GroupPlan], states: Sequence[str]) -> Dict[int, str]:
    """The name of each parameter, by its slot: the user's, or its place where those would not do."""
    places: Dict[int, str] = {}
    given: Dict[int, str] = {}
    for number, (group, each) in enumerate(zip(groups, plans)):
        names = group.get("param_names")
        if not isinstance(names, (list, tuple)) or len(names) != len(each.slots):
            names = [""] * len(each.slots)
        for position, (slot, name) in enumerate(zip(each.slots, names)):
            if slot.index not in places:
                places[slot.index] = f"param_groups/{number}/params/{position}"
                given[slot.index] = name
    if all(isinstance(name, str) and name for name in given.values()):
        suffixes = ("", *(f"/{state}" for state in (GRADIENT, *states)))
        every = [name + suffix for name in given.values() for suffix in suffixes] + [HYPER, MASK, STEPS]
        if len(set(every)) == len(every):
            return given
    return places


class _ExportedEdges(plan.Edges):
    """Edges of the next step, under names of their own. Slots are numbered by the order of the parameters."""

    def __init__(self, engine: Engine, names: Dict[int, str]) -> None:
        super().__init__(engine.table, engine.hyper, engine.round_open)
        self.slots: List[Slot] = list(engine.slots)
        self._names = names
        self._indices = {slot.index: number for number, slot in enumerate(self.slots)}

    def controls(self) -> Tuple[str, str, str]:
        return HYPER, MASK, STEPS

    def index(self, slot: Slot) -> int:
        return self._indices[slot.index]

    def target(self, slot: Slot) -> str:
        return self._names[slot.index]

    def source(self, slot: Slot) -> str:
        return f"{self.target(slot)}/{GRADIENT}"

    def state(self, slot: Slot, name: str) -> str:
        return f"{self.target(slot)}/{name}"

    def arrays(self) -> Dict[str, numpy.ndarray]:
        """The values of all tensors that have some, copied."""
        table = self.table
        mask = table.trainable.view & table.summed.view if self.summed else table.trainable.view
        at = [slot.index for slot in self.slots]
        found = {}
        for slot in self.slots:
            found[self.target(slot)] = tensors.array(slot.param)
            if mask[slot.index] and self._has_gradient(slot):
                found[self.source(slot)] = self._gradient(slot)
            for name, tensor in slot.states.items():
                if tensors.has_data(tensor):
                    found[self.state(slot, name)] = tensors.array(tensor)
        found[HYPER] = self.hyper.view.copy()
        found[MASK] = mask[at]
        found[STEPS] = table.steps.view[at]
        return found

    def _has_gradient(self, slot: Slot) -> bool:
        if self.summed:
            return slot.sum is not None
        return tensors.have_data(slot.workspace, [slot.grad_name])[0]

    def _gradient(self, slot: Slot) -> numpy.ndarray:
        array = (
            tensors.array(slot.sum) if self.summed else tensors.array_named(slot.workspace, slot.grad_name)
        )
        wanted = slot.arithmetic_dtype if self.summed else slot.param.dtype
        if array.dtype != wanted or array.shape != tuple(slot.param.shape):
            raise ValueError(
                f"the gradient of {self.target(slot)} is {array.dtype} of shape {array.shape}, but the "
                f"parameter is {slot.param.dtype} of shape {tuple(slot.param.shape)}; compute it anew by "
                "backward(), or clear it by zero_grad(set_to_none=True)."
            )
        return array
