# SPDX-License-Identifier: BSD-2-Clause
"""Recording the operators that a function runs, so that they can become one graph.

While a `Recorder` is open, the workspace hands each operator, backward pass and graph of ours to it on the
way to Dragon. Everything that is put in the place of a method of Dragon's is taken out again when it closes.
"""

import contextlib
import functools
import threading
from operator import attrgetter
from typing import (
    Any,
    Callable,
    ContextManager,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Protocol,
    Sequence,
    Set,
    Tuple,
)

import numpy
from dragon.core.framework import backend
from dragon.core.proto import dragon_pb2
from dragon.vm.torch.core.cpp import device as Device
from dragon.vm.torch.core.nn.modules.module import Module
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon import definitions, graphs, interception, names, watched_methods
from dragon_optim._dragon.held_names import PREFIX, HeldNames
from dragon_optim._dragon.workspace import Workspace

_ACTIVE = "_dragon_optim_recorder"  # attribute of a workspace


class NotCapturableError(RuntimeError):
    """What the function does cannot be replayed."""


class Observer(Protocol):
    """What a recorder asks, and `notify` tells, the layer that knows the optimizers of this package."""

    def flag(self, name: str) -> Optional[graphs.HostArray]:
        """The array of this name, if it is one that Python writes before each graph runs."""

    def before_graph(self) -> None:
        """A graph of an optimizer is about to run."""

    def updates(self, optimizer: Any) -> None:
        """An optimizer, of whatever kind, is used."""

    def overridden(self) -> Set[Tuple[Any, str]]:
        """Methods of users' optimizers."""

    def prepared(self, engine: Any) -> None:
        """An optimizer has looked at its groups."""

    def reduced(self, engine: Any) -> None:
        """An optimizer has asked the other ranks."""

    def summed(self, engine: Any) -> None:
        """An optimizer has summed its gradients."""

    def round_ended(self, engine: Any) -> None:
        """An optimizer has forgotten its sums."""


class Recorded(NamedTuple):
    """An operator, as it runs in the replay."""

    definition: Any
    fed: Tuple[Tuple[str, bytes], ...]  # what Dragon writes beside its name before it runs


class Recorder:
    """Records, in one thread and one workspace, what runs between ``__enter__`` and ``__exit__``."""

    def __init__(self, workspace: Workspace, observer: Observer, feeds: Sequence[Tensor]) -> None:
        self.workspace = workspace
        self.feeds = list(feeds)  # the arguments of the function
        self.observer = observer
        self.held = HeldNames(workspace)
        self.operators: List[Recorded] = []
        self.constants: Dict[str, graphs.HostArray] = {}  # by name
        # What was there before, by id: kept alive. Not by name, since an alias does not tell of its tensor
        # whether that requires a gradient. And how it was then.
        self.read: Dict[int, Tuple[Tensor, Any]] = {}
        self.flagged: Dict[int, Tuple[Tensor, bool]] = {}  # whose requires_grad was set; and before
        self.sources: Set[str] = set()  # leaves of the backward passes
        self.events: List[Tuple[str, Any]] = []  # what a replay must do in Python
        self.modules: Dict[int, Module] = {}  # that were called
        self.training: Dict[int, Tuple[Module, Any]] = {}  # modules that were asked, or told; and how it was
        self.stock: Dict[int, Tuple[Any, bool]] = {}  # Dragon's own optimizers; whether a round was open
        self.stock_groups: List[Tuple[Any, Dict[str, Any]]] = []  # which they updated
        # Whether a leaf had a gradient, where the function asks before it computes one.
        self.expected_gradients: Dict[str, bool] = {}
        self.refusal: Optional[NotCapturableError] = None
        self.eager_reason: Optional[str] = None  # why it must stay eager, though nothing is wrong
        self.own_work = False  # while an optimizer of this package looks at its groups
        self.data_sized: Set[str] = set()  # tensors whose shape depends on values
        self.fed: Tuple[Tuple[str, Any], ...] = ()  # what Dragon writes beside the operator that runs now
        self._names: Set[str] = set()  # of the operators on the tape
        self._thread = threading.get_ident()
        self._undo: List[Callable[[], None]] = []
        self._by_content: Dict[Any, graphs.HostArray] = {}

    def __enter__(self) -> "Recorder":
        workspace = self.workspace
        workspace.__dict__[_ACTIVE] = self
        try:
            self._put(names.DRAGON_POOL, workspace._handle_pool)
            self._put("_handle_pool", self.held)
            for name in ("run_operator", "run_backward", "run_graph"):
                self._put(name, functools.partial(getattr(self, "_" + name), getattr(workspace, name)))
            interception.put_in(self, watched_methods.wrappers(self.observer.overridden()))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        interception.take_out()
        while self._undo:
            self._undo.pop()()
        self.workspace.__dict__.pop(_ACTIVE, None)

    def _put(self, name: str, value: Any) -> None:
        """Put something in the place of an attribute of the workspace, which other workspaces keep."""
        attributes, missing = self.workspace.__dict__, object()
        old = attributes.get(name, missing)
        attributes[name] = value
        self._undo.append(
            functools.partial(attributes.pop, name)
            if old is missing
            else functools.partial(attributes.__setitem__, name, old)
        )

    @property
    def in_this_thread(self) -> bool:
        """Whether it records what this thread does."""
        return threading.get_ident() == self._thread

    def refuse(self, message: str) -> NotCapturableError:
        """Return the exception to raise; it is raised again at the end if the function swallows it."""
        self.refusal = NotCapturableError(message)
        return self.refusal

    def note_read(self, tensors: Sequence[Tensor]) -> None:
        """Keep alive what was there before: a replay reads it by name."""
        for each in tensors:
            if id(each) not in self.read and not each.id.startswith(PREFIX):
                self.read[id(each)] = each, self._state_of(each)

    def read_from_outside(self) -> List[Tuple[Tensor, Any]]:
        """What was there before and is no argument, and how it was."""
        arguments = {feed.id for feed in self.feeds}
        return [(tensor, state) for tensor, state in self.read.values() if tensor.id not in arguments]

    def _state_of(self, tensor: Tensor) -> Any:
        state = state_of_read(tensor)
        return (self.flagged[id(tensor)][1], *state[1:]) if id(tensor) in self.flagged else state

    def not_called(self, what: str) -> None:
        """Something has run in Python that a replay leaves out."""
        self.eager_reason = f"a replay would not call {what}"

    # What stands in the place of the methods of the workspace.

    def _run_operator(self, original: Any, op_def: Any) -> None:
        if not self.in_this_thread:
            original(op_def)
            return
        if isinstance(op_def, (list, tuple)):
            raise self.refuse(
                "a function traced by torch.jit.trace cannot run inside a captured function: call the "
                "function itself."
            )
        serialized = op_def.SerializeAs() if hasattr(op_def, "SerializeAs") else op_def.SerializeToString()
        definition = definitions.parse(serialized)
        known = {f"$NAME/{key}" for key, _ in self.fed}
        for argument in definition.arg:
            for value in (argument.s, *argument.strings):
                if value.startswith(b"$NAME/") and value.decode() not in known:
                    raise self.refuse(
                        f"{definition.type} of Dragon's native interface is fed an argument, which is not "
                        "recorded inside a captured function: use dragon.vm.torch there."
                    )
        original(op_def)
        if definition.type in _DATA_SIZED or not self.data_sized.isdisjoint(definition.input):
            made = ((name, self.workspace.get_tensor(name)) for name in definition.output)
            self.data_sized.update(name for name, tensor in made if tensor is not None and tensor.ndim > 0)
        self.record(definition)

    def record(self, definition: Any) -> None:
        """Append an operator that has run, or that stands for what Python did."""
        if definition.type == "Collective":
            self.eager_reason = "it communicates in a process group"
        if definition.name:
            self._names.add(definition.name)
        else:
            definition.name = self.held.create_ours("Op")
            for key, array in self.fed:
                self.workspace.create_tensor(f"{definition.name}/{key}").FromNumpy(array, True)
        self.held.derive(definition.output)
        self.held.derive([f"{definition.name}/{key}" for key, _ in self.fed])
        fed = [
            (key, array.dtype.str.encode() + repr(array.shape).encode() + array.tobytes())
            for key, array in self.fed
        ]
        self.operators.append(Recorded(definition, tuple(fed)))

    def _run_backward(
        self, original: Any, op_defs: Any, targets: Any, grad_targets: Any = None, sources: Any = None
    ) -> None:
        if not self.in_this_thread:
            original(op_defs, targets, grad_targets, sources)
            return
        forward = [definitions.parse(each.SerializeAs()) for each in op_defs]
        for each in forward:
            if each.type == "Checkpoint":
                raise self.refuse("torch.utils.checkpoint cannot be captured: call the function itself.")
            if each.name not in self._names:
                raise self.refuse(
                    f"backward() inside a captured function reaches {each.type}, which ran before it was "
                    "called: compute the loss inside, from the function's arguments and leaves."
                )
        original(op_defs, targets, grad_targets, sources)
        gradients = backend.GradientTape().CreateGradientDefs(
            [each.SerializeToString() for each in forward], targets, grad_targets or []
        )
        for definition in definitions.without_unused(
            [definitions.parse(each) for each in gradients], sources or ()
        ):
            self.record(definition)
        self.sources.update(sources or ())
        self.events.append(("backward", tuple(sources or ())))

    def _run_graph(self, original: Any, name: str, execution_stage: Any = None) -> None:
        if not self.in_this_thread:
            original(name, execution_stage)
            return
        definition = graphs.definition_of(self.workspace, name)
        if definition is None:
            raise self.refuse(
                "a graph of Dragon's own (dragon.function) cannot run inside a captured function: run it "
                "outside."
            )
        self.observer.before_graph()
        # Now: the operators may change what Python has written for them.
        operators = [self._spliced(each) for each in definition.op]
        original(name, execution_stage)
        for each in operators:
            self.record(each)

    def _spliced(self, definition: Any) -> Any:
        copy = dragon_pb2.OperatorDef()
        copy.CopyFrom(definition)
        copy.name = self.held.create_ours("Op")
        for place, name in enumerate(copy.input):
            array = self.observer.flag(name)
            if array is not None:
                copy.input[place] = self.constant(array.view).name
        return copy

    def constant(self, array: numpy.ndarray) -> graphs.HostArray:
        """Return a tensor that holds these values as long as the recording lives."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._by_content:
            made = graphs.HostArray(self.workspace, array.shape, str(array.dtype))
            made.view[...] = array
            self._by_content[key] = self.constants[made.name] = made
        return self._by_content[key]

    def writes(self, tensor: Tensor) -> bool:
        """Whether an operator writes to a tensor."""
        return any(tensor.id in each.definition.output for each in self.operators)

    def record_fill(self, array: graphs.HostArray) -> None:
        """Record that Python has filled an array with zeros."""
        self.record(
            graphs.operator(
                "Fill",
                [],
                [array.name],
                Device("cpu"),
                dtype=str(array.view.dtype),
                value=0.0,
                ndim=array.view.ndim,
                dims=list(array.view.shape),
            )
        )


# Operators whose results have a shape that depends on values.
_DATA_SIZED = {"BooleanMask", "NonZero", "Unique"}

# How a tensor was when a function read it: what decides the operators besides its values.
state_of_read = attrgetter("_requires_grad", "_impl.dtype", "_impl.dims")


def active(workspace: Workspace) -> Optional[Recorder]:
    """Return the recorder that is open in a workspace."""
    return workspace.__dict__.get(_ACTIVE)


def notify(workspace: Workspace, what: str, engine: Any) -> None:
    """Tell an open recorder what an optimizer does in Python."""
    recorder = active(workspace)
    if recorder is not None:
        getattr(recorder.observer, what)(engine)


def own_work(workspace: Workspace) -> ContextManager[None]:
    """Let an optimizer read what the function itself may not: a learning rate that is a tensor."""
    recorder = active(workspace)
    return _NOTHING if recorder is None else _own_work(recorder)


_NOTHING = contextlib.nullcontext()


@contextlib.contextmanager
def _own_work(recorder: Recorder) -> Iterator[None]:
    before, recorder.own_work = recorder.own_work, True
    try:
        yield
    finally:
        recorder.own_work = before
