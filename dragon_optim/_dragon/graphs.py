# SPDX-License-Identifier: BSD-2-Clause
"""Building a graph of operators, running it, and the small tensors that steer it."""

import hashlib
from typing import Any, Callable, Iterable, Optional, Sequence

import numpy
from dragon.core.framework import proto_util
from dragon.core.proto import dragon_pb2
from dragon.vm.torch.core.cpp import device as Device
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon import names, running
from dragon_optim._dragon.workspace import Workspace

_KNOWN = "_dragon_optim_graphs"  # attribute of a workspace: digest of the operators -> name of their graph
_DEFINITIONS = "_dragon_optim_definitions"  # the same: name of a graph -> its definition, serialized


def operator(
    kind: str, inputs: Sequence[str], outputs: Sequence[str], device: Device, **arguments: Any
) -> Any:
    """Return the definition of an operator. Edges are names of tensors.

    An empty list is left out: Dragon cannot tell the type of its elements, and our operators read a missing
    one as empty.
    """
    kept = {
        key: value for key, value in arguments.items() if not (isinstance(value, (list, tuple)) and not value)
    }
    return proto_util.make_operator_def(
        kind, inputs, outputs, device_option=proto_util.get_device_option(device.type, device.index), **kept
    )


def definition(name: str, operators: Sequence[Any], inputs: Iterable[str], outputs: Iterable[str]) -> Any:
    """Return the definition of a graph: Dragon's protobuf message, a copy of these operators in it."""
    return dragon_pb2.GraphDef(name=name, op=operators, input=inputs, output=outputs)


def create(workspace: Workspace, definition: Any, what: str) -> str:
    """Make a graph of a definition without a name, and return its name.

    Dragon never frees a graph (2 to 4 KB for each parameter of an update). One that somebody dead has left
    behind, of the same operators over the same tensors, is used again.
    """
    digest = hashlib.sha256(definition.SerializeToString(deterministic=True)).digest()
    known = workspace.__dict__.setdefault(_KNOWN, {})
    # After workspace.clear() they are gone, and running one would end the process.
    if known.get(digest) not in workspace._impl.graphs:
        definition.name = names.unique_name(workspace, what)
        for number, each in enumerate(definition.op):
            each.name = each.name or f"{definition.name}/{number}"
        known[digest] = workspace.create_graph(definition)
    return known[digest]


class Graph:
    """A graph that a workspace keeps and can run again and again.

    It is made when the structure of a step changes, not in a step.
    """

    def __init__(self, workspace: Workspace, operators: Sequence[Any]) -> None:
        definition = dragon_pb2.GraphDef()
        definition.op.extend(operators)
        self._workspace = workspace
        self.name = create(workspace, definition, "Graph")
        definitions = workspace.__dict__.setdefault(_DEFINITIONS, {})
        if self.name not in definitions:
            definitions[self.name] = definition.SerializeToString()

    def run(self) -> None:
        """Run it. An operator that throws becomes a Python exception."""
        self._workspace.run_graph(self.name)


def run_all(workspace: Workspace, graphs: Sequence[Graph], then: Sequence[Callable[[], Any]] = ()) -> None:
    """Run graphs, and what goes with them, as a whole: see running.py."""
    if len(graphs) == 1 and not then:
        graphs[0].run()
    else:
        running.graphs(workspace, [each.name for each in graphs], then)


def run_once(workspace: Workspace, operators: Sequence[Any], then: Sequence[Callable[[], Any]] = ()) -> None:
    """Run operators whose tensors will be others the next time: graphs of them would only pile up."""
    if then:
        running.operators(workspace, operators, then)
        return
    for each in operators:
        workspace.run_operator(each)


def definition_of(workspace: Workspace, name: str) -> Optional[Any]:
    """Return the definition of a graph that `Graph` made."""
    serialized = workspace.__dict__.get(_DEFINITIONS, {}).get(name)
    return None if serialized is None else dragon_pb2.GraphDef.FromString(serialized)


class HostArray:
    """A tensor in main memory that Python writes through a numpy view: 0.3 us, where a feed costs 3."""

    def __init__(self, workspace: Workspace, shape: Any, dtype: str) -> None:
        self._impl: Any = None
        self.tensor: Tensor = names.tensor_pool(workspace).new(Device("cpu"))
        self._view: numpy.ndarray = self._feed(numpy.zeros(shape, dtype))

    def _feed(self, array: numpy.ndarray) -> numpy.ndarray:
        self._impl = self.tensor._impl
        self._impl.FromNumpy(array, True)
        return self._impl.ToNumpy()

    @property
    def view(self) -> numpy.ndarray:
        """The values. After ``workspace.clear()`` the view dangles: then this raises."""
        if not self.is_alive:
            raise RuntimeError(
                "the Dragon workspace of this optimizer was cleared, and its state with it: make the "
                "parameters and the optimizer anew."
            )
        return self._view

    @property
    def is_alive(self) -> bool:
        """False once the workspace was cleared."""
        return bool(self._impl.size == self._view.size)

    @property
    def name(self) -> str:
        """Of the tensor: an edge of a graph."""
        return self._impl.name

    def resize(self, shape: Any) -> None:
        """Take a new shape; what fits both keeps its values. Views taken before are dead."""
        array = numpy.zeros(shape, self._view.dtype)
        common = tuple(slice(min(old, new)) for old, new in zip(self.view.shape, array.shape))
        array[common] = self._view[common]
        self._view = self._feed(array)


def tensor_from(array: numpy.ndarray, tensor: Tensor) -> None:
    """Copy an array, or a numpy scalar (at which Dragon itself ends the process), into a tensor."""
    tensor._impl.FromNumpy(numpy.array(array, order="C"), True)
