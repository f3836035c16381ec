# SPDX-License-Identifier: BSD-2-Clause
"""Which gradients the next step will read, and the graphs that clip or unscale them, made once."""

from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Set, Tuple

from dragon.vm.torch.core.cpp import device as Device
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon import (
    graphs,
    leaf_gradients,
    library,
    names,
    replay,
    stock,
    tape,
    tensors,
    workspace,
)
from dragon_optim._threads import OneAtATime
from dragon_optim._warnings import warn
from dragon_optim.engine import Engine
from dragon_optim.optimizer import Optimizer

_ATTRIBUTE = "_dragon_optim_clipping"  # of a workspace
# A device, and the names of tensors on it.
OnDevice = Tuple[Device, List[str]]
_MAX_EDGES = 1 << 16  # in all graphs together: Dragon never frees one


def home_of(given: Sequence[Tensor], name: str, what: str) -> workspace.Workspace:
    """Return the current workspace. Raise unless all tensors live in it; `name` each of them is."""
    home = workspace.current()
    tape.check_not_traced(what)
    leaf_gradients.check_homes(home, given, name)
    return home


def places_of(given: Sequence[Tensor], name: str) -> List[Tuple[str, int]]:
    """Return the device of each tensor, its type and index. Raise unless we have operators for all."""
    places = list(map(tensors.place, given))
    for kind, index in dict.fromkeys(places):
        if kind != "cpu" and kind not in library.devices():
            position = places.index((kind, index))
            raise RuntimeError(
                f"{name} {position} is on {given[position].device}, for which this dragon_optim was not "
                "built: move the model by `model.cpu()`."
            )
    return places


def next_gradients(
    home: workspace.Workspace,
    params: Sequence[Tensor],
    known: Set[str],
    what: str,
    optimizers: Optional[Sequence[Any]] = None,
) -> List[str]:
    """Return the names of what the next step of these parameters will read, each once.

    That is ``.grad``, and after `sum_grad` of the optimizer that holds a parameter its sum, if it has one.
    `known` is for `leaf_gradients.of`. `optimizers` are those that may step next; None: all that there are.
    """
    found = leaf_gradients.of(home, params, known)
    for position, name in _sums(home, params, what, optimizers).items():
        # What `requires_grad = False` hides stays hidden.
        found[position] = name if params[position].requires_grad else None
    return [name for name in dict.fromkeys(found) if name is not None]


# What an optimizer in a round will read of the parameters that it holds, by position; None: nothing.
_Sums = Dict[int, Optional[str]]


def _sums(
    home: workspace.Workspace, params: Sequence[Tensor], what: str, optimizers: Optional[Sequence[Any]]
) -> _Sums:
    """What the rounds of these optimizers will read."""
    found: _Sums = {}
    for sums in _open_rounds(home, params, what, stock.living() if optimizers is None else optimizers):
        for position, name in sums.items():
            if name is not None and found.get(position) is not None:
                raise RuntimeError(
                    f"parameter {position} has sums of gradients in two optimizers, and {what} cannot know "
                    "which of them steps next: end the round of one, by its step() or "
                    "zero_grad(drop_sums=True)."
                )
            found[position] = name or found.get(position)
    return found


def _open_rounds(
    home: workspace.Workspace, params: Sequence[Tensor], what: str, optimizers: Sequence[Any]
) -> Iterator[_Sums]:
    watching = leaf_gradients.recorder(home)
    for optimizer in optimizers:
        if isinstance(optimizer, Optimizer):
            engine = vars(optimizer).get("_engine")
            if engine is None or engine.workspace is not home or not engine.table.summed.is_alive:
                continue
            if not (engine.round_open or watching):
                continue
            yield _our_sums(engine, optimizer, params, watching, what)
        else:
            if not (getattr(optimizer, "_sums_grad", False) or watching):
                continue
            if not stock.lives_in(optimizer, home):
                continue
            yield _stock_sums(home, optimizer, params, watching)


def _our_sums(
    engine: Engine, optimizer: Optimizer, params: Sequence[Tensor], watching: Any, what: str
) -> _Sums:
    sums: _Sums = {}
    slots = [(position, engine.table.find(param)) for position, param in enumerate(params)]
    held = [(position, slot) for position, slot in slots if slot is not None and slot.in_group]
    if watching is not None and held:
        engine.look(optimizer.param_groups)  # it takes part: a replay must find it as it is
    if not engine.round_open or not held:
        return sums
    flags = engine.table.summed.view
    for position, slot in held:
        sums[position] = tensors.name(slot.sum) if slot.sum is not None and flags[slot.index] else None
    if engine.awaits_sum([slot.name for _, slot in held]):
        warn(
            f"a backward pass came after the last sum_grad(): {what} takes the sums of this round, as step() "
            "will. Call sum_grad() first to have that pass in them."
        )
    return sums


def _stock_sums(home: workspace.Workspace, optimizer: Any, params: Sequence[Tensor], watching: Any) -> _Sums:
    sums: _Sums = {}
    held = {tensors.identity(param) for group in optimizer.param_groups for param in group["params"]}
    positions = [position for position, param in enumerate(params) if tensors.identity(param) in held]
    if watching is not None and positions:
        watching.note_stock(optimizer)
    if optimizer._sums_grad:
        for position in positions:
            sums[position] = leaf_gradients.of_stock_sum(home, params[position])
    return sums


def end_rounds(home: workspace.Workspace, params: Sequence[Tensor]) -> None:
    """End the rounds of all optimizers that have sums of these parameters, which live in `home`."""
    identities = set(map(tensors.identity, params))
    for optimizer in stock.living():
        if _holds_any(optimizer, identities):
            end_round(home, optimizer)


def end_round(home: workspace.Workspace, optimizer: Any) -> None:
    """Let an optimizer forget its sums, as its step would do."""
    if isinstance(optimizer, Optimizer):
        optimizer._engine.abandon_round()
    else:
        stock.end_round(optimizer, home)


def _holds_any(optimizer: Any, identities: Set[int]) -> bool:
    groups = vars(optimizer).get("param_groups", ())
    return any(tensors.identity(param) in identities for group in groups for param in group.get("params", ()))


class Clipping:
    """The graphs of one workspace that measure, clip and unscale, and the tensors that steer them."""

    def __init__(self, home: workspace.Workspace) -> None:
        self.home = home
        self.turn = OneAtATime()
        self.known: Set[str] = set()  # gradients that there are
        self._limit = graphs.HostArray(home, 1, "float64")
        self._given_norm = graphs.HostArray(home, 1, "float64")
        self._factor = graphs.HostArray(home, 1, "float64")
        self._found = graphs.HostArray(home, 1, "int64")
        self._norms: Dict[Any, Tensor] = {}  # by the type and index of a device
        self._graphs: Dict[Any, graphs.Graph] = {}
        self._edges = 0  # of these graphs

    @property
    def is_alive(self) -> bool:
        """False once the workspace was cleared."""
        return self._limit.is_alive

    def total_norm(
        self, edges: Sequence[str], device: Device, order: float, error_if_nonfinite: bool
    ) -> Tensor:
        """Return the norm of some tensors, which are on this device."""
        return self._with_norm(edges, device, order, error_if_nonfinite, lambda norm: [])

    def clip_norm(
        self,
        edges: Sequence[str],
        device: Device,
        max_norm: float,
        order: float,
        error_if_nonfinite: bool,
        foreach: bool,
    ) -> Tensor:
        """Scale some tensors down to a norm; return the one that they had."""
        limit = self._number(self._limit, max_norm)
        return self._with_norm(
            edges,
            device,
            order,
            error_if_nonfinite,
            lambda norm: _each("DragonOptimClipNorm", [limit, norm], edges, device, foreach),
            foreach,
        )

    def clip_by_norm(
        self, edges: Sequence[str], device: Device, max_norm: float, norm: Any, foreach: bool
    ) -> None:
        """Scale some tensors by a norm that is given: a number, or the name of a tensor."""
        limit = self._number(self._limit, max_norm)
        if isinstance(norm, str):  # another one each time
            graphs.run_once(self.home, _each("DragonOptimClipNorm", [limit, norm], edges, device, foreach))
            return
        name = self._number(self._given_norm, norm)
        self._run(
            ("by norm", foreach, device.type, device.index),
            edges,
            lambda: _each("DragonOptimClipNorm", [limit, name], edges, device, foreach),
        )

    def clip_value(self, edges: Sequence[str], device: Device, limit: float, foreach: bool) -> None:
        """Bring every element of some tensors between -limit and limit."""
        name = self._number(self._limit, limit)
        self._run(
            ("value", foreach, device.type, device.index),
            edges,
            lambda: _each("DragonOptimClipValue", [name], edges, device, foreach),
        )

    def has_non_finite(self, lists: Sequence[OnDevice]) -> bool:
        """Whether an element of any of these tensors is infinite or NaN. Waits for a GPU."""
        self._found.view[0] = 0
        self._run(_key("non-finite", lists), _all(lists), lambda: self._find(lists))
        return bool(self._found.view[0])

    def unscale(
        self, lists: Sequence[OnDevice], factor: float, then: Sequence[Callable[[], Any]] = ()
    ) -> bool:
        """Multiply some tensors, all or none; return whether an element was infinite or NaN before.

        `then` is called where they were, in the same breath.
        """
        self._found.view[0] = 0
        self._factor.view[0] = factor

        def make() -> List[Any]:
            # What is wrong with any of them the first operators find.
            return self._find(lists) + [
                graphs.operator("DragonOptimScale", [self._factor.name, *edges], edges, device)
                for device, edges in lists
            ]

        self._run(_key("unscale", lists), _all(lists), make, then)
        return bool(self._found.view[0])

    def _find(self, lists: Sequence[OnDevice]) -> List[Any]:
        return [
            graphs.operator("DragonOptimFindNonFinite", edges, [self._found.name], device)
            for device, edges in lists
        ]

    def _number(self, array: graphs.HostArray, value: float) -> str:
        """The name of a tensor with this value. A recording has a tensor of its own for it."""
        watching = leaf_gradients.recorder(self.home)
        if watching is not None:
            return leaf_gradients.constant(watching, value)
        array.view[0] = value
        return array.name

    def _with_norm(
        self,
        edges: Sequence[str],
        device: Device,
        order: float,
        error_if_nonfinite: bool,
        then: Callable[[str], List[Any]],
        foreach: Optional[bool] = None,
    ) -> Tensor:
        recorded = leaf_gradients.recorder(self.home) is not None
        norm = leaf_gradients.new_result(self.home, device) if recorded else self._norm(device)

        def make() -> List[Any]:
            measure = graphs.operator(
                "DragonOptimTotalNorm",
                edges,
                [norm.id],
                device,
                order=repr(order),
                error_if_nonfinite=int(error_if_nonfinite),
            )
            return [measure, *then(norm.id)]

        key = ("norm", order, error_if_nonfinite, foreach, device.type, device.index)
        self._run(key, edges, make)
        return norm if recorded else replay.copy_for_user(self.home, norm)

    def _norm(self, device: Device) -> Tensor:
        """The tensor for norms on a device."""
        place = (device.type, device.index)
        if place not in self._norms:
            self._norms[place] = names.tensor_pool(self.home).new(device)
        return self._norms[place]

    def _run(
        self,
        key: Tuple[Any, ...],
        edges: Sequence[str],
        make: Callable[[], List[Any]],
        then: Sequence[Callable[[], Any]] = (),
    ) -> None:
        if leaf_gradients.recorder(self.home) is not None:
            graphs.run_once(self.home, make())
            return
        whole_key = (*key, *edges)
        graph = self._graphs.get(whole_key)
        if graph is None:
            operators = make()
            if self._edges > 0 and self._edges + len(edges) > _MAX_EDGES:
                graphs.run_once(self.home, operators, then)
                return
            graph = self._graphs[whole_key] = graphs.Graph(self.home, operators)
            self._edges += len(edges)
        graphs.run_all(self.home, [graph], then)


def _key(what: str, lists: Sequence[OnDevice]) -> Tuple[Any, ...]:
    return (what, *((device.type, device.index, len(edges)) for device, edges in lists))


def _all(lists: Sequence[OnDevice]) -> List[str]:
    return [name for _, edges in lists for name in edges]


def _each(kind: str, steering: List[str], edges: Sequence[str], device: Device, foreach: bool) -> List[Any]:
    """Return one operator for all tensors; or one for each, behind one that finds what is wrong with any."""

    def operator(part: Sequence[str], only_check: bool) -> Any:
        return graphs.operator(kind, [*steering, *part], part, device, only_check=int(only_check))

    if foreach or len(edges) < 2:
        return [operator(edges, only_check=False)]
    return [operator(edges, only_check=True), *(operator([edge], only_check=False) for edge in edges)]


def of(home: workspace.Workspace) -> Clipping:
    """What clips in a workspace. It is the workspace's attribute, for it holds tensors of it."""
    found = vars(home).get(_ATTRIBUTE)
    if found is None or not found.is_alive:
        found = vars(home)[_ATTRIBUTE] = Clipping(home)
    return found
