# SPDX-License-Identifier: BSD-2-Clause
"""Graph mode: a training step that is written eagerly, recorded once, and then run as one Dragon graph."""

import contextlib
import functools
import gc
import warnings
import weakref
from collections import OrderedDict
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

from dragon.vm.torch.core.tensor import Tensor

from dragon_optim import hooks
from dragon_optim._dragon import (
    collective,
    graphs,
    recording,
    replay,
    tape,
    versions,
    watched_methods,
    workspace,
)
from dragon_optim._dragon.recording import NotCapturableError
from dragon_optim._threads import OneAtATime
from dragon_optim.captured import IN_PROCESS_GROUP, Observer, Variant
from dragon_optim.captured_method import BoundMethod, CapturedMethod
from dragon_optim.captured_values import Result, look_at_argument
from dragon_optim.engine import Engine
from dragon_optim.optimizer import Optimizer
from dragon_optim.parameters import type_name

__all__ = ["CapturedFunction", "NotCapturableError", "capture"]

_MAX_SIGNATURES = 1024  # of arguments, remembered for one function
_MAX_BEYOND = 16  # recordings that are tried when there are max_graphs graphs
_MAX_SITUATIONS = 8  # of optimizers, remembered for one signature

NotCapturableError.__module__ = __name__  # where users find it
watched_methods.refuse_also(Optimizer, "__init__", "add_param_group", "state_dict", "load_state_dict")


def capture(fn: Optional[Callable[..., Any]] = None, *, optimization: int = 1, max_graphs: int = 16) -> Any:
    """Turn a training step into one Dragon graph.

    The first call runs `fn` as it stands, and records what Dragon computes: forward, ``backward()``,
    clipping, ``zero_grad()``, ``sum_grad()``, ``step()``. Later calls copy the arguments into the graph and
    run it, without any of the Python code of `fn`. Learning rates and all other hyper-parameters are read
    from ``param_groups`` at each call.

    Parameters
    ----------
    fn : callable
        Takes tensors (None, a bool, an int or a str is recorded for each of its values); returns None, a
        tensor, or tuples, lists and dicts of them. Left out where ``capture(...)`` is used as a decorator
        with options. As the decorator of a method it gives each object graphs of its own.
    optimization : int, optional, default=1
        How far Dragon optimizes the graph: 1 (not at all), 2 (element-wise operators in place) or 3
        (gradients share memory, too). 2 and 3 need less memory and are as fast; the results are the same.
    max_graphs : int, optional, default=16
        How many graphs are made at most; Dragon never frees one. Calls that would need another run eagerly,
        and a warning says so once.

    Returns
    -------
    CapturedFunction
        Called as `fn`. What it returns are copies, which may be kept and passed in again.

    Raises
    ------
    TypeError
        If `fn` cannot be called.
    ValueError
        If an option is out of range.

    See Also
    --------
    CapturedFunction : What a call raises, and when it runs `fn` eagerly.

    Examples
    --------
    >>> import dragon_optim
    >>> from dragon.vm import torch
    >>> model = torch.nn.Linear(4, 1)
    >>> optimizer = dragon_optim.RMSprop(model.parameters(), lr=0.01, momentum=0.9)
    >>> @dragon_optim.graph.capture
    ... def train(x, y):
    ...     loss = torch.nn.functional.mse_loss(model(x), y)
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> x, y = torch.ones(8, 4), torch.zeros(8, 1)
    >>> losses = [float(train(x, y)) for _ in range(20)]
    >>> losses[-1] < losses[0]
    True
    """
    if fn is None:
        return functools.partial(capture, optimization=optimization, max_graphs=max_graphs)
    return CapturedFunction(fn, optimization, max_graphs)


class CapturedFunction:
    """What `capture` returns: a training step that is recorded once and then run as a graph.

    A call records `fn` anew, running it eagerly, when something has changed that decides what is computed:
    the number, shape or dtype of the arguments, a parameter that was added, ``requires_grad``,
    ``model.train()`` and ``eval()``, states that were cleared or loaded. If the same operators come out, the
    graph that exists is used.

    It runs `fn` eagerly, and warns once, where a replay would leave something out: in a process group, with
    step hooks or forward hooks, when an optimizer's class has a ``step()`` of its own, when `fn` changes
    hyper-parameters or keeps a tensor for the next call, with Dragon's own Adam, and beyond `max_graphs`
    graphs.

    Attributes
    ----------
    graphs : int
        How many graphs were made.
    replays : int
        How many calls have run a graph instead of `fn`.

    Raises
    ------
    TypeError
        If an argument is not a Dragon tensor, or `fn` returns something else than tensors.
    ValueError
        If an argument requires a gradient; and what the optimizers raise.
    NotCapturableError
        A RuntimeError: if `fn` reads the value of a tensor, makes one from numpy data, or does something else
        that a graph cannot repeat.
    RuntimeError
        If it is called under another workspace or in another thread than it was made in, if the workspace was
        cleared, inside another captured function, or under ``torch.jit.trace``.
    """

    def __init__(self, fn: Callable[..., Any], optimization: int, max_graphs: int) -> None:
        if not callable(fn):
            raise TypeError(f"capture() needs a function, but got {type_name(fn)}")
        if isinstance(optimization, bool) or optimization not in (1, 2, 3):
            raise ValueError(f"Invalid optimization: {optimization!r} (need 1, 2 or 3)")
        if isinstance(max_graphs, bool) or not isinstance(max_graphs, int) or max_graphs < 0:
            raise ValueError(f"Invalid max_graphs: {max_graphs!r} (need an integer, 0 or more)")
        functools.update_wrapper(self, fn, updated=())
        self._fn = fn
        self._name = f"the captured function {getattr(fn, '__name__', type_name(fn))!r}"
        self._level = optimization
        self._max_graphs = max_graphs
        self._workspace = workspace.current()
        self._alive = graphs.HostArray(self._workspace, 1, "int64")  # until the workspace is cleared
        self._turn = OneAtATime()
        self._variants: OrderedDict[Any, List[Variant]] = OrderedDict()  # by signature, the latest last
        self._graphs: Dict[bytes, replay.Replay] = {}
        self._optimizers: Dict[int, Tuple[Engine, Any]] = {}  # all that took part so far
        self._made: Set[str] = set()  # the names of all graphs, also of those that nobody needs any more
        self._beyond = 0  # recordings whose graph would have been one too many
        self._called: Dict[int, Any] = {}  # the forward hooks of all modules, by id of the module
        self._eager_reason: Optional[str] = None  # why it is never captured
        self._hesitation: Optional[str] = None  # why its last recording was not kept
        self._warned: List[str] = []
        self._methods: Dict[int, Tuple[CapturedFunction, Any]] = {}  # by id of the object
        self.replays = 0

    @property
    def graphs(self) -> int:
        """How many graphs were made."""
        return len(self._made)

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{self._name} cannot be copied or pickled, as its graphs live in a Dragon workspace: capture "
            "the function anew, which is its attribute __wrapped__."
        )

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Give each object whose method was captured a captured function of its own."""
        if instance is None:
            return self
        key = id(instance)
        of_instance = self._methods.get(key)
        if of_instance is None:
            try:
                reference = weakref.ref(instance, lambda _: self._methods.pop(key, None))
            except TypeError as error:
                raise TypeError(
                    f"{self._name} is a method of {type_name(instance)}, which has no weak references: add "
                    "'__weakref__' to its __slots__"
                ) from error
            method = BoundMethod(self._fn, reference)
            of_instance = CapturedFunction(method, self._level, self._max_graphs), reference
            self._methods[key] = of_instance
        return CapturedMethod(instance, self._fn, of_instance[0])

    def __repr__(self) -> str:
        return f"<CapturedFunction of {self._fn!r}: {self.graphs} graphs, {self.replays} replays>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run a step; see the class."""
        self._guard()
        with self._turn:
            names = tuple(sorted(kwargs)) if kwargs else ()
            inputs = [*args, *(kwargs[name] for name in names)]
            looks = [replay.signature(self._workspace, each) for each in inputs]
            if None in looks:
                looks = self._look_closer(inputs, looks, len(args), names)
            signature = (len(args), names, *looks, versions.is_recording())
            reason = self._eager_reason or self._reason_now()
            if reason is not None:
                return self._run_eagerly(inputs, names, reason)
            for variant in self._variants.get(signature, ()):
                if variant.fits():
                    self._variants.move_to_end(signature)
                    return self._replay(variant, inputs)
            return self._record(signature, inputs, names)

    # What is asked before anything runs.

    def _guard(self) -> None:
        workspace.check_current(self._workspace, self._name, owner="it", remedy="capture it anew")
        recorder = recording.active(self._workspace)
        if recorder is not None and not recorder.in_this_thread:
            raise RuntimeError(
                f"{self._name} was called while another thread records a captured function in this "
                "workspace: let the threads take turns, or give each a workspace."
            )
        if recorder is not None:
            raise recorder.refuse(
                f"{self._name} was called inside another captured function: call the function itself there, "
                "which is its attribute __wrapped__."
            )
        tape.check_not_traced(self._name)
        if not self._alive.is_alive:
            raise RuntimeError(
                f"the Dragon workspace of {self._name} was cleared, and its graphs with it: make the model "
                "and the optimizer anew, and capture it anew."
            )

    def _look_closer(
        self, inputs: Sequence[Any], looks: Sequence[Any], positional: int, names: Sequence[str]
    ) -> List[Any]:
        """Look at the arguments that are not to be fed. Raises for those that are no constants either."""
        closer = list(looks)
        for place, each in enumerate(inputs):
            if looks[place] is None:
                what = f"argument {place if place < positional else repr(names[place - positional])}"
                closer[place] = look_at_argument(each, self._workspace, what, self._name)
        return closer

    def _reason_now(self) -> Optional[str]:
        """Why this call must run eagerly; the optimizers look at their groups."""
        if collective.group() is not None:
            return IN_PROCESS_GROUP
        if any(self._called.values()):
            return watched_methods.HAS_FORWARD_HOOKS
        for engine, optimizer in self._optimizers.values():
            engine.look(optimizer.param_groups)
            if engine.watched.differentiable:
                return "a step with differentiable=True makes new tensors of the parameters"
            if hooks.any_for_step(optimizer):
                return "a replay would not call the step hooks"
        return None

    # The three ways to run.

    def _run_eagerly(self, inputs: Sequence[Any], names: Sequence[str], reason: str) -> Any:
        self._warn(reason)
        result = Result(self._call(self._copies(inputs), names), self._name)
        return result.rebuild([replay.copy_for_user(self._workspace, each) for each in result.tensors])

    def _copies(self, inputs: Sequence[Any]) -> List[Any]:
        return [
            replay.own_copy(self._workspace, each) if isinstance(each, Tensor) else each for each in inputs
        ]

    def _call(self, inputs: Sequence[Any], names: Sequence[str]) -> Any:
        positional = len(inputs) - len(names)
        return self._fn(*inputs[:positional], **dict(zip(names, inputs[positional:])))

    def _replay(self, variant: Variant, inputs: Sequence[Any]) -> Any:
        graph = variant.graph
        for optimizer, group in variant.stock_groups:
            replay.feed_stock(optimizer, group)
        with _all_of([engine.turn for engine in variant.engines]):
            try:
                graph.run([each for each in inputs if isinstance(each, Tensor)])
            finally:
                variant.catch_up(self._workspace)
        self.replays += 1
        return variant.result.rebuild([replay.copy_for_user(self._workspace, each) for each in graph.outputs])

    def _record(self, signature: Any, inputs: Sequence[Any], names: Sequence[str]) -> Any:
        self._forget_outdated()
        if self._max_graphs == 0 or self._beyond >= _MAX_BEYOND:
            return self._run_eagerly(inputs, names, self._too_many())
        observer = Observer(self._workspace, self._optimizers)
        copies = self._copies(inputs)
        feeds = [each for each in copies if isinstance(each, Tensor)]
        observer.recorder = recorder = recording.Recorder(self._workspace, observer, feeds)
        outputs: List[Tensor] = []
        try:
            with recorder:
                result = Result(self._call(copies, names), self._name)
            if recorder.refusal is not None:  # and the function has caught it
                raise recorder.refusal
            del copies, feeds
            returned = [replay.copy_for_user(self._workspace, each) for each in result.tensors]
            observer.finish()
            outputs = replay.add_outputs(recorder, result.tensors, self._level)
            replay.protect(recorder, self._level)
            result.tensors.clear()
            self._called.update((id(each), each._forward_hooks) for each in recorder.modules.values())
            reason = recorder.eager_reason or _kept_tensors(recorder, outputs)
            if reason is not None and reason is not watched_methods.HAS_FORWARD_HOOKS:
                # Only the second time for good: the first call may have made what the later ones use.
                self._eager_reason, self._hesitation = self._hesitation, reason
            reason = reason or self._reason_now()
            graph = None if reason is not None else self._graph(recorder, outputs)
            if graph is not None:
                self._remember(signature, Variant(graph, observer, result))
            else:
                recorder.held.give_back(outputs)
        except BaseException:
            recorder.held.give_back(outputs)
            raise
        finally:
            observer.recorder = None  # no cycle: memory hangs on it
        if graph is None:
            self._warn(reason or self._too_many())
        return result.rebuild(returned)

    def _graph(self, recorder: recording.Recorder, outputs: List[Tensor]) -> Optional[replay.Replay]:
        """Return the graph of a recording, an old one if it does the same; None if there are too many."""
        digest = replay.digest(recorder, outputs)
        if digest in self._graphs:
            recorder.held.give_back(outputs)
        elif self.graphs >= self._max_graphs:
            self._beyond += 1
            return None
        else:
            self._graphs[digest] = replay.Replay(recorder, outputs, self._level)
            self._made.add(self._graphs[digest].name)
        return self._graphs[digest]

    def _too_many(self) -> str:
        return f"its calls need more than max_graphs={self._max_graphs} different graphs"

    def _forget_outdated(self) -> None:
        """Let go of the graphs over states that were replaced, by a load for example; Dragon keeps them."""
        for signature, variants in list(self._variants.items()):
            self._variants[signature] = [each for each in variants if not each.is_outdated]
            if not self._variants[signature]:
                del self._variants[signature]
        used = {id(each.graph) for variants in self._variants.values() for each in variants}
        self._graphs = {digest: graph for digest, graph in self._graphs.items() if id(graph) in used}

    def _remember(self, signature: Any, variant: Variant) -> None:
        variants = self._variants.setdefault(signature, [])
        variants.insert(0, variant)
        del variants[_MAX_SITUATIONS:]
        if len(self._variants) > _MAX_SIGNATURES:
            self._variants.popitem(last=False)

    def _warn(self, reason: str) -> None:
        if reason not in self._warned:
            self._warned.append(reason)
            warnings.warn(f"{self._name} runs eagerly: {reason}.", UserWarning, stacklevel=4)


def _all_of(turns: Sequence[OneAtATime]) -> Any:
    """Hold some locks. One is the rule, and a stack takes longer."""
    if len(turns) == 1:
        return turns[0]
    stack = contextlib.ExitStack()
    for turn in turns:
        stack.enter_context(turn)
    return stack


def _kept_tensors(recorder: recording.Recorder, outputs: Sequence[Tensor]) -> Optional[str]:
    """Why a function that keeps tensors cannot be replayed; None if it keeps none."""
    if not replay.keeps_tensors(recorder, outputs):
        return None
    gc.collect()  # an operator in place makes a cycle with its tape
    if not replay.keeps_tensors(recorder, outputs):
        return None
    return (
        "it keeps a tensor after it has returned (in a list, an attribute or a closure), where a replay "
        "would not put a new one; return the tensor instead, or update one that was made before by copy_()"
    )
