# SPDX-License-Identifier: BSD-2-Clause
"""One graph from what a `Recorder` has seen: made, compared with others, fed and run."""

import hashlib
import sys
import weakref
from collections import Counter
from typing import Any, Dict, List, Sequence, Set

import numpy
from dragon.core.framework import proto_util
from dragon.core.proto import dragon_pb2
from dragon.vm.torch.core.cpp import device as Device
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon import graphs, names, tensors, workspace
from dragon_optim._dragon.held_names import PREFIX
from dragon_optim._dragon.recording import Recorder
from dragon_optim._dragon.workspace import Workspace

_OPTIONS: Dict[Any, bytes] = {}  # of a device, serialized: to make one takes as long as a small copy


def signature(home: Workspace, tensor: Any) -> Any:
    """Dtype, shape and device of a tensor; None if it is none that a graph of this workspace can be fed with.

    The look at an argument in each call. Why it is None is for `workspace.check_tensor` to say.
    """
    if not isinstance(tensor, Tensor) or tensor._requires_grad:
        return None
    impl, device = tensor._impl, tensor._device
    # A dead workspace's memory must not be touched: one of this workspace holds the tensor's own object.
    pool = tensor._deleter
    if impl is None or (pool is not home._handle_pool and not _is_ours(home, tensor)) or impl.size == 0:
        return None
    return impl.dtype, *impl.dims, device._type, device._index


def _is_ours(home: Workspace, tensor: Tensor) -> bool:
    try:
        workspace.check_tensor(tensor, home, "it")
    except RuntimeError:
        return False
    return True


_NEW: Dict[str, Any] = vars(Tensor(device=Device("cpu")))  # the attributes that the constructor sets


def own_copy(home: Workspace, tensor: Tensor) -> Tensor:
    """Return a copy in memory that a graph may use as its input."""
    copy = names.tensor_pool(home).new(tensor._device)
    overwrite(copy, tensor)
    return copy


def overwrite(target: Tensor, source: Tensor) -> None:
    """Give a tensor the shape, the dtype and the values of another one."""
    device = (source._device.type, source._device.index)
    option = _OPTIONS.get(device)
    if option is None:
        option = _OPTIONS[device] = source._device.to_proto()
    target._impl.CopyFrom(source._impl, option, option)


def copy_for_user(home: Workspace, tensor: Tensor) -> Tensor:
    """Return a copy that is like any tensor that Dragon makes, without a tape."""
    copy: Tensor = Tensor.__new__(Tensor)  # its constructor takes as long as the copy
    copy.__dict__.update(
        _NEW, _device=tensor._device, _impl=home.create_tensor(scope="Variable"), _deleter=home._handle_pool
    )
    if tensor._impl.size > 0 or 0 in tensor._impl.dims:
        overwrite(copy, tensor)
    else:  # a gradient that was taken away
        copy._impl.Reset()
    return copy


def add_outputs(recorder: Recorder, tensors: Sequence[Tensor], level: int) -> List[Tensor]:
    """Return tensors that hold the function's results when the graph has run.

    From level 2 on they are copies, which no other operator of the graph touches. None owns its name: the
    recording does, and who holds the tensors otherwise is a question of its own.
    """
    home, outputs = recorder.workspace, []
    recorder.note_read(tensors)
    for tensor in tensors:
        if level < 2:
            outputs.append(Tensor(device=tensor._device, impl=tensor._impl))
            continue
        outputs.append(names.tensor_pool(home).new(tensor._device))
        recorder.record(graphs.operator("Identity", [tensor.id], [outputs[-1].id], tensor._device))
    return outputs


def keeps_tensors(recorder: Recorder, outputs: Sequence[Tensor]) -> bool:
    """Whether somebody holds a tensor that was made while it was recorded, or one of the arguments."""
    if recorder.held.keeps_tensors(outputs):
        return True
    feeds = recorder.feeds
    ours = {id(each): each for each in (*feeds, *outputs, *(each for each, _ in recorder.read.values()))}
    passed_on = Counter(tensor._impl.name for tensor in ours.values())
    for feed in feeds:
        # The list, the dictionary, the variable, and the argument of getrefcount; and where it was read.
        if sys.getrefcount(feed) > 4 + (id(feed) in recorder.read):
            return True
        if names.is_held(recorder.workspace, feed.id, passed_on[feed.id]):
            return True
    return False


def protect(recorder: Recorder, level: int) -> None:
    """Keep Dragon from computing in place where that would touch what lives on after the graph.

    From level 2 on, an operator may write to the memory of an input that the graph has made and nobody
    else reads. Only element-wise operators may, and that memory must neither be of a tensor that lives on (a
    gradient of a leaf, a parameter), nor may a result live on in it, which the next replay writes to. Another
    reader prevents it. Our own operators never do it.
    """
    if level < 2:
        return
    leaf_gradients = {source + "_grad" for source in recorder.sources}
    made: Set[str] = set()  # by the graph
    passing: Set[str] = set()  # what leads from one gradient to the next
    lasting: Set[str] = set()
    readers: Dict[str, List[Any]] = {}
    for definition, _ in recorder.operators:
        for name in filter(None, definition.output):
            made.add(name)
            if "Gradient" in definition.type and name not in leaf_gradients:
                passing.add(name)
            elif not name.startswith(PREFIX):
                lasting.add(name)
        for name in definition.input:
            readers.setdefault(name, []).append(definition)
    for name, (definition, *others) in readers.items():
        if others or name not in made or definition.type.startswith("DragonOptim"):
            continue
        if name in passing and level >= 3:  # it gets another name, which is not among those in place
            continue
        element_wise = definition.type.replace("Gradient", "") in _ELEMENT_WISE
        if not element_wise or name in lasting or not lasting.isdisjoint(definition.output):
            shape = proto_util.make_operator_def("Shape", [name], [recorder.held.create_ours("Shape")])
            shape.device_option.CopyFrom(definition.device_option)
            recorder.record(shape)


# What may compute in place. Dragon lets others do so, too, that read elements after they have written them:
# transpositions, and arithmetic with an operand that is broadcast.
_ELEMENT_WISE = {
    "Abs",
    "Clip",
    "Cos",
    "Elu",
    "Exp",
    "Flatten",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "Log",
    "Neg",
    "Reciprocal",
    "Relu",
    "Reshape",
    "Rsqrt",
    "Selu",
    "Sigmoid",
    "Sign",
    "Silu",
    "Sin",
    "Sqrt",
    "Square",
    "Squeeze",
    "Tanh",
    "Unsqueeze",
}


def digest(recorder: Recorder, outputs: Sequence[Tensor]) -> bytes:
    """A number for what was recorded: equal where two recordings do the same with tensors of other names.

    What was there before the recording counts by name, constants by content, all else by its place.
    """
    places: Dict[str, str] = {"": ""}
    for kind, group in (("feed", recorder.feeds), ("output", [each for each in outputs if each._deleter])):
        for number, tensor in enumerate(group):
            places[tensor.id] = f"\0{kind}/{number}"
            places[tensor.id + "_grad"] = f"\0{kind}/{number}_grad"
    for name, array in recorder.constants.items():
        places[name] = f"\0constant/{array.view.dtype}/{array.view.shape}/{array.view.tobytes().hex()}"

    def place(name: str) -> str:
        if name.startswith(PREFIX):
            return places.setdefault(name, f"\0{len(places)}")
        return places.get(name, name)

    result = hashlib.sha256()
    for recorded in recorder.operators:
        operator = dragon_pb2.OperatorDef()
        operator.CopyFrom(recorded.definition)
        operator.name = place(operator.name)
        for edges in (operator.input, operator.output):
            edges[:] = [place(name) for name in edges]
        for argument in operator.arg:
            if argument.name == "name":  # of the forward operator
                argument.s = place(argument.s.decode()).encode()
        for part in (operator.SerializeToString(deterministic=True), repr(recorded.fed).encode()):
            result.update(len(part).to_bytes(8, "little") + part)
    result.update(repr([place(output.id) for output in outputs]).encode())
    return result.digest()


class Replay:
    """A graph that does what was recorded.

    Parameters
    ----------
    recorder : Recorder
        What was recorded; closed.
    outputs : list of Tensor
        Where it writes the function's results to.
    level : int
        Dragon's optimization of graphs: 1, 2 or 3.
    """

    def __init__(self, recorder: Recorder, outputs: Sequence[Tensor], level: int) -> None:
        self._workspace = recorder.workspace
        self.feeds, self.outputs = list(recorder.feeds), list(outputs)
        self._read = recorder.read_from_outside()  # kept alive
        self._constants = list(recorder.constants.values())
        definition = dragon_pb2.GraphDef()
        definition.op.extend(each.definition for each in recorder.operators)
        definition.arg.extend(
            [proto_util.make_argument("optimization", level), proto_util.make_argument("phase", "TRAIN")]
        )
        if level >= 3:  # the gradients that must keep their names
            kept = set(recorder.sources)
            for each in definition.op:
                if "Gradient" not in each.type:
                    kept.update(name[: -len("_grad")] for name in each.input if name.endswith("_grad"))
            definition.arg.append(proto_util.make_argument("grad_sources", sorted(kept)))
        self.name = graphs.create(self._workspace, definition, "Capture")
        self._finalizer = weakref.finalize(self, recorder.held.give_back, self.outputs)
        self._finalizer.atexit = False

    def run(self, inputs: Sequence[Tensor]) -> None:
        """Feed the arguments and run the graph."""
        for feed, tensor in zip(self.feeds, inputs):
            overwrite(feed, tensor)
        self._workspace.run_graph(self.name)


def feed_stock(optimizer: Any, group: Dict[str, Any]) -> None:
    """Write the hyper-parameters of one of Dragon's own optimizers where its operator reads them."""
    for key, (_, by_group) in optimizer._hyper.items():
        if group["name"] in by_group:  # it has run
            by_group[group["name"]].FromNumpy(numpy.array(group[key], "float32"), True)


def stock_situation(home: Workspace, optimizers: Sequence[Any]) -> List[Any]:
    """Which parameters these optimizers of Dragon's own would update now."""
    found = []
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            exist = tensors.have_data(home, [param.id + "_grad" for param in group["params"]])
            found.append((id(group), list(zip(map(id, group["params"]), exist))))
    return found


def has_gradients(home: Workspace, leaves: Sequence[str]) -> List[bool]:
    """Whether each of these leaves has a gradient."""
    return tensors.have_data(home, [leaf + "_grad" for leaf in leaves])
