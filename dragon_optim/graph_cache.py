# SPDX-License-Identifier: BSD-2-Clause
"""The graphs of one optimizer: made when a structure is met first, found again whenever it comes back."""

from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

from dragon_optim import parameters, plan
from dragon_optim._dragon import graphs
from dragon_optim.groups import WatchedGroups
from dragon_optim.joined import Joined
from dragon_optim.slots import Slot, SlotTable

# Of what one call runs: slots, and what makes their operators. Its name stands for it in the structure.
Part = Tuple[Sequence[Slot], Callable[[Sequence[Slot]], List[Any]]]


class GraphCache:
    """Graphs by structure, and those to run now by key.

    Parameters
    ----------
    table : SlotTable
        The slots that the graphs work on.
    groups : WatchedGroups
        The groups, whose plans decide the operators.
    joined : Joined
        Which gradients are edges.
    """

    def __init__(self, table: SlotTable, groups: WatchedGroups, joined: Joined) -> None:
        self._table = table
        self._groups = groups
        self._joined = joined
        self._graphs: Dict[Any, Optional[graphs.Graph]] = {}  # by structure
        self.current: Dict[Any, List[graphs.Graph]] = {}  # by key, while nothing changes
        self._current_of: Any = None  # the revisions that they are for
        self._generation = 0

    def run(
        self, key: Any, parts: Callable[[], Iterable[Part]], then: Sequence[Callable[[], Any]] = ()
    ) -> None:
        """Run graphs one after another; `key` says which. With `then`, what is done along with the last.

        When a structure is met first, `parts` gives the slots of each graph, and what makes its operators
        from them: it may make none.
        """
        if self._generation != self._table.generation:
            self._generation = self._table.generation
            self._graphs.clear()
            self.current.clear()
        revisions = (self._groups.revision, self._table.revision, self._joined.revision)
        if self._current_of != revisions:
            self._current_of = revisions
            self.current.clear()
        current = self.current.get(key)
        if current is None:
            found = [self._graph(key, *part) for part in parts()]
            current = self.current[key] = [graph for graph in found if graph is not None]
        graphs.run_all(self._table.workspace, current, then)

    def _graph(
        self, key: Any, slots: Sequence[Slot], make: Callable[[Sequence[Slot]], List[Any]]
    ) -> Optional[graphs.Graph]:
        """Return the graph of these slots; None if it would have no operators."""
        kinds = tuple((slot.index, slot.param.dtype, plan.place(slot)) for slot in slots)
        structure = (key, make.__name__, kinds, self._groups.structure())
        if structure not in self._graphs:
            # Dtypes and devices may have changed since the parameters were taken.
            parameters.check([slot.param for slot in slots], self._table.workspace, allow_non_leaf=True)
            operators = make(slots)
            self._graphs[structure] = graphs.Graph(self._table.workspace, operators) if operators else None
        return self._graphs[structure]
