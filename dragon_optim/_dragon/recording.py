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
    Iterable,
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
from dragon.vm.torch.core.autograd.function import Function
from dragon.vm.torch.core.cpp import device as Device
from dragon.vm.torch.core.nn.modules.module import Module
from dragon.vm.torch.core.optim import optimizer as stock
from dragon.vm.torch.core.optim import rmsprop, sgd
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon import definitions, graphs, interception, names
from dragon_optim._dragon.held_names import PREFIX, HeldNames
from dragon_optim._dragon.interception import Wrapper
from dragon_optim._dragon.workspace import Workspace

_ACTIVE = "_dragon_optim_recorder"  # attribute of a workspace


class NotCapturableError(RuntimeError):
    """What the function does cannot be replayed."""


class Observer(Protocol):
    """What a recorder asks of the layer that knows the optimizers of this package."""

    def flag(self, name: str) -> Optional[graphs.HostArray]:
        """The array of this name, if it is one that Python writes before each graph runs."""

    def before_graph(self) -> None:
        """A graph of an optimizer is about to run."""

    def updates(self, optimizer: Any) -> None:
        """One of Dragon's own optimizers does something."""

    def overridden(self) -> Set[Tuple[Any, str]]:
        """Methods of users' optimizers."""


class Recorded(NamedTuple):
    """An operator, as it runs in the replay."""

    definition: Any
    feeds: Tuple[Tuple[str, bytes], ...]  # what Dragon writes beside its name before it runs


class Recorder:
    """Records, in one thread and one workspace, what runs between ``__enter__`` and ``__exit__``."""

    def __init__(self, workspace: Workspace, observer: Any, feeds: Sequence[Tensor]) -> None:
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
        self._names: Set[str] = set()  # of the operators on the tape
        self._data_sized: Set[str] = set()  # tensors whose shape depends on values
        self._feeds: Tuple[Tuple[str, Any], ...] = ()
        self._thread = threading.get_ident()
        self._undo: List[Callable[[], None]] = []
        self._by_content: Dict[Any, graphs.HostArray] = {}

    # What stands in the place of Dragon's methods.

    def __enter__(self) -> "Recorder":
        workspace = self.workspace
        workspace.__dict__[_ACTIVE] = self
        try:
            self._put(names.DRAGON_POOL, workspace._handle_pool)
            self._put("_handle_pool", self.held)
            for name in ("run_operator", "run_backward", "run_graph"):
                self._put(name, functools.partial(getattr(self, "_" + name), getattr(workspace, name)))
            interception.put_in(self, [*_wrappers(), *_wrappers_of(self.observer.overridden())])
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

    def _refuse(self, original: Any, *args: Any, remedy: str, **kwargs: Any) -> Any:
        if self.own_work:
            return original(*args, **kwargs)
        if original.__name__ == "cpu" and args[0]._device.type == "cpu":
            return original(*args, **kwargs)
        raise self.refuse(f"{original.__qualname__} inside a captured function: {remedy}")

    def _forward(self, original: Any, inputs: Any, run_config: Any, **kwargs: Any) -> Any:
        self.note_read(inputs)
        self.note_read([each for each in kwargs.get("outputs", ()) if isinstance(each, Tensor)])
        self._feeds = tuple(
            (key, numpy.array(kwargs[key], dtype)) for key, dtype in run_config["feed_dict"].items()
        )
        try:
            return original(inputs, run_config, **kwargs)
        finally:
            self._feeds = ()

    def note_read(self, tensors: Sequence[Tensor]) -> None:
        """Keep alive what was there before: a replay reads it by name."""
        for each in tensors:
            if id(each) not in self.read and not each.id.startswith(PREFIX):
                self.read[id(each)] = each, self._state_of(each)

    def read_from_outside(self) -> List[Tuple[Tensor, Any]]:
        """What was there before and is no argument, and how it was."""
        fed = {feed.id for feed in self.feeds}
        return [(tensor, state) for tensor, state in self.read.values() if tensor.id not in fed]

    def _state_of(self, tensor: Tensor) -> Any:
        state = state_of_read(tensor)
        return (self.flagged[id(tensor)][1], *state[1:]) if id(tensor) in self.flagged else state

    def _set_requires_grad(self, original: Any, tensor: Tensor, value: Any) -> None:
        self.flagged.setdefault(id(tensor), (tensor, tensor._requires_grad))
        original(tensor, value)

    def _read_size(self, original: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if tensor._impl is not None and tensor._impl.name in self._data_sized:
            raise self.refuse(
                "the shape of a result of a mask, nonzero() or unique() depends on values; a number taken "
                "from it inside a captured function would stay: use operators that do not need it, as mean()."
            )
        return original(tensor, *args, **kwargs)

    def _call_module(self, original: Any, module: Module, *args: Any, **kwargs: Any) -> Any:
        self.modules.setdefault(id(module), module)
        if module._forward_hooks:
            self.eager_reason = HAS_FORWARD_HOOKS
        return original(module, *args, **kwargs)

    def _touch_training(self, module: Module) -> None:
        self.training.setdefault(id(module), (module, vars(module).get("training")))

    def not_called(self, what: str) -> None:
        """Something has run in Python that a replay leaves out."""
        self.eager_reason = f"a replay would not call {what}"

    def _call_overridden(self, original: Any, *args: Any, what: str, **kwargs: Any) -> Any:
        self.not_called(what)
        return original(*args, **kwargs)

    def _stock_method(self, original: Any, optimizer: Any) -> Any:
        self.observer.updates(optimizer)
        self.stock.setdefault(id(optimizer), (optimizer, optimizer._sums_grad))
        if type(optimizer) not in _STOCK:
            self.eager_reason = f"{type(optimizer).__name__} may keep something that a replay cannot repeat"
        return original(optimizer)

    def note_stock(self, optimizer: Any) -> None:
        """One of Dragon's own optimizers decides by its round what is recorded."""
        self.stock.setdefault(id(optimizer), (optimizer, optimizer._sums_grad))

    def _stock_zero_grad(self, original: Any, optimizer: Any, set_to_none: bool = False) -> Any:
        if set_to_none:
            self.eager_reason = "zero_grad(set_to_none=True) of Dragon's optimizers is no operator"
        return original(optimizer, set_to_none)

    def _read_grad(self, original: Any, tensor: Tensor) -> Any:
        gradient = original(tensor)
        if tensor.id not in self.sources:
            self.expected_gradients.setdefault(tensor.id, gradient is not None)
        return gradient

    def _update_stock(self, original: Any, optimizer: Any, group: Dict[str, Any]) -> Any:
        self.stock_groups.append((optimizer, group))
        return original(optimizer, group)

    def _copy(self, original: Any, target: Tensor, source: Tensor) -> Tensor:
        """``copy_`` bypasses operators: run it as one, so that a replay copies as well."""
        del original
        if source._impl is target._impl:
            return target
        if source._device != target._device:
            raise self.refuse("copy_() between devices inside a captured function: do it outside of it.")
        self.note_read([target, source])
        self.workspace.run_operator(graphs.operator("Identity", [source.id], [target.id], target._device))
        return target

    # What runs.

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
        fed = {f"$NAME/{key}" for key, _ in self._feeds}
        for argument in definition.arg:
            for value in (argument.s, *argument.strings):
                if value.startswith(b"$NAME/") and value.decode() not in fed:
                    raise self.refuse(
                        f"{definition.type} of Dragon's native interface is fed an argument, which is not "
                        "recorded inside a captured function: use dragon.vm.torch there."
                    )
        original(op_def)
        if definition.type in _DATA_SIZED or not self._data_sized.isdisjoint(definition.input):
            made = ((name, self.workspace.get_tensor(name)) for name in definition.output)
            self._data_sized.update(name for name, tensor in made if tensor is not None and tensor.ndim > 0)
        self.record(definition)

    def record(self, definition: Any) -> None:
        """Append an operator that has run, or that stands for what Python did."""
        if definition.type == "Collective":
            self.eager_reason = "it communicates in a process group"
        feeds: List[Tuple[str, bytes]] = []
        if definition.name:
            self._names.add(definition.name)
        else:
            definition.name = self.held.create_ours("Op")
            for key, array in self._feeds:
                self.workspace.create_tensor(f"{definition.name}/{key}").FromNumpy(array, True)
        for key, array in self._feeds:
            feeds.append((key, array.dtype.str.encode() + repr(array.shape).encode() + array.tobytes()))
        self.held.derive(definition.output)
        self.held.derive([f"{definition.name}/{key}" for key, _ in self._feeds])
        self.operators.append(Recorded(definition, tuple(feeds)))

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
            self._feeds = ()
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
        self._feeds = ()
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


_DATA_SIZED = {"BooleanMask", "NonZero", "Unique"}

# How a tensor was when a function read it: what decides the operators besides its values.
state_of_read = attrgetter("_requires_grad", "_impl.dtype", "_impl.dims")

HAS_FORWARD_HOOKS = "a replay would not call the forward hooks of its modules"

# Dragon's optimizers whose operators keep nothing but tensors. Adam's count their steps in the operator.
_STOCK = (rmsprop.RMSprop, sgd.SGD, sgd.LARS)

_READS = "its value is not known when the function is replayed. Return the tensor, and read it outside."
_FEEDS = (
    "the data would be the same in every replay. Make the tensor outside and pass it as an argument, or use "
    "functions that fill one: torch.zeros, ones, full, arange, rand."
)
_MOVES = "a replay does not repeat it. Do it outside."
_CHANGES = "a replay does not repeat it. Call it outside, between two calls."
_REFUSED: List[Tuple[Any, str, str]] = [
    (Tensor, "numpy", _READS),
    (Tensor, "_from_array", _FEEDS),
    (Tensor, "cpu", _MOVES),
    (Tensor, "cuda", _MOVES),
    (Tensor, "mps", _MOVES),
    (Module, "load_state_dict", _CHANGES),
    (Module, "state_dict", _CHANGES),
    (stock.Optimizer, "__init__", _CHANGES),
    (stock.Optimizer, "add_param_group", _CHANGES),
]


def refuse_also(owner: Any, *methods: str) -> None:
    """Refuse methods of a class above this layer while something is recorded."""
    _REFUSED.extend((owner, method, _CHANGES) for method in methods)


def _wrappers() -> Iterator[Wrapper]:
    yield Wrapper(Function, "forward", Recorder._forward, "static")
    yield Wrapper(Module, "__call__", Recorder._call_module)
    yield Wrapper(Module, "training", Recorder._touch_training, "attribute")
    yield Wrapper(stock.Optimizer, "_update_group", Recorder._update_stock)
    yield Wrapper(stock.Optimizer, "sum_grad", Recorder._stock_method)
    yield Wrapper(stock.Optimizer, "step", Recorder._stock_method)
    yield Wrapper(stock.Optimizer, "zero_grad", Recorder._stock_zero_grad)
    yield Wrapper(Tensor, "copy_", Recorder._copy)
    yield Wrapper(Tensor, "grad", Recorder._read_grad, "getter")
    yield Wrapper(Tensor, "requires_grad", Recorder._set_requires_grad, "setter")
    yield Wrapper(Tensor, "size", Recorder._read_size)
    yield Wrapper(Tensor, "numel", Recorder._read_size)
    for owner, method, remedy in _REFUSED:
        yield Wrapper(owner, method, functools.partial(Recorder._refuse, remedy=remedy))


def _wrappers_of(methods: Iterable[Tuple[Any, str]]) -> Iterator[Wrapper]:
    for owner, name in methods:
        what = f"{name}() of {owner.__name__}"
        yield Wrapper(owner, name, functools.partial(Recorder._call_overridden, what=what))


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
