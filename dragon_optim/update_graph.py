# SPDX-License-Identifier: BSD-2-Clause
"""The update of an optimizer as a graph of its own: to print, to store, and to run anywhere in Dragon.

The graph has the operators of a step, with names that mean something outside of this process, and none of
this process's tensors: their values go beside it, as arrays.
"""

from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy

from dragon_optim import parameters, plan
from dragon_optim._dragon import graphs, tensors
from dragon_optim.engine import Engine
from dragon_optim.groups import Group
from dragon_optim.slots import Slot

HYPER, MASK, STEPS = "optimizer/hyper", "optimizer/mask", "optimizer/steps"
GRADIENT = "grad"


class Exportable:
    """The method by which the update of an optimizer leaves it."""

    operator_type: Optional[str]
    known_states: Tuple[str, ...]
    param_groups: List[Dict[str, Any]]
    _engine: Engine

    def update_graph(self) -> Tuple[Any, Dict[str, numpy.ndarray]]:
        """Return the update that `step` would run now, as a graph and the values of its tensors.

        The graph is a Dragon ``GraphDef``. It can be printed, stored (``SerializeToString()``), and run in
        any process that imports this package; what it needs is in the arrays. Run on them, it gives the bits
        of `step`. Calling this changes nothing. See :doc:`exported_graph`.

        Returns
        -------
        graph : GraphDef
            The check and the updates of all groups. Its ``input`` names every tensor that it reads, its
            ``output`` those that it writes: parameters, states, step counts.
        arrays : dict of str to numpy.ndarray
            Copies of the values, by the names in the graph: ``{parameter}``, ``{parameter}/grad``,
            ``{parameter}/square_avg`` and the other states, and ``optimizer/hyper``, ``optimizer/mask``,
            ``optimizer/steps``. A parameter goes by its own name (``param_names``), or else by its place:
            ``param_groups/0/params/1``. A gradient or a state that does not exist has no array.

        Raises
        ------
        ValueError
            If a hyper-parameter in a group is out of range, or a gradient does not fit its parameter.
        RuntimeError
            As `step`.
        NotImplementedError
            If the class names no operator.

        Notes
        -----
        All parameters are part of the graph, also those without a gradient: their gradient tensor stays
        empty, and the update leaves them alone until it is fed. In an open round of `sum_grad` the gradients
        are the sums of that round. In a process group they are those of this rank, not the mean.

        Examples
        --------
        >>> from dragon.vm import torch
        >>> import dragon_optim
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> graph, arrays = dragon_optim.RMSprop([("weight", weight)], lr=0.1).update_graph()
        >>> [operator.type for operator in graph.op]
        ['DragonOptimCheck', 'DragonOptimRMSprop']
        >>> sorted(arrays)
        ['optimizer/hyper', 'optimizer/mask', 'optimizer/steps', 'weight']
        """
        if self.operator_type is None:
            raise NotImplementedError(
                f"{type(self).__name__} names no operator: set operator_type, or override update_graph()"
            )
        engine, groups = self._engine, self.param_groups
        with engine.turn:
            engine.guard("update_graph()")
            engine.sync(groups)
            plans = engine.watched.plans
            edges = _ExportedEdges(engine, _names(groups, plans, self.known_states))
            parameters.check([slot.param for slot in edges.slots], engine.workspace, allow_non_leaf=True)
            arrays = edges.arrays()
            operators = list(_operators(edges, plans, self.operator_type)) if edges.slots else []
        written = list(dict.fromkeys(each for operator in operators for each in operator.output))
        read = [each for operator in operators for each in operator.input]
        used = dict.fromkeys([*read, *written])
        # A state out of use (momentum was switched off) is not in the graph.
        kept = {name: array for name, array in arrays.items() if name in used}
        return graphs.definition(type(self).__name__, operators, used, written), kept


def _operators(edges: "_ExportedEdges", plans: Sequence[plan.GroupPlan], kind: str) -> Iterator[Any]:
    unique = plan.once(plans, edges.slots)
    for number, parts in enumerate(plan.by_place(unique, lambda part: part.slots[0])):
        check = edges.check(kind, parts, absent=False)
        check.name = f"check/{number}" if number else "check"
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
        super().__init__(engine.table, engine.watched.hyper, engine.round_open)
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
