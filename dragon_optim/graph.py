# SPDX-License-Identifier: BSD-2-Clause
"""Graph mode: a training step that is written eagerly, recorded once, and then run as one Dragon graph."""

import contextlib
import functools
import gc
import warnings
from collections import OrderedDict
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from dragon.vm.torch.core.tensor import Tensor

from dragon_optim import hooks
from dragon_optim._dragon import collective, graphs, recording, replay, tape, versions, workspace
from dragon_optim._dragon.recording import NotCapturableError
from dragon_optim._threads import OneAtATime
from dragon_optim.engine import Engine
from dragon_optim.optimizer import Optimizer
from dragon_optim.parameters import type_name

__all__ = ["CapturedFunction", "NotCapturableError", "capture"]

_MAX_SIGNATURES = 1024  # of arguments, remembered for one function
_MAX_SITUATIONS = 8  # of optimizers, remembered for one signature

NotCapturableError.__module__ = __name__  # where users find it
recording.refuse_also(Optimizer, "__init__", "add_param_group", "state_dict", "load_state_dict")


def capture(fn: Optional[Callable[..., Any]] = None, *, optimization: int = 1, max_graphs: int = 16) -> Any:
    """Turn a training step into one Dragon graph.

    The first call runs `fn` as it stands, and records what Dragon computes: forward, ``backward()``,
    clipping, ``zero_grad()``, ``sum_grad()``, ``step()``. Later calls copy the arguments into the graph and
    run it, without any of the Python code of `fn`. Learning rates and all other hyper-parameters are read
    from ``param_groups`` at each call.

    Parameters
    ----------
    fn : callable
        Takes tensors; returns None, a tensor, or a tuple, list or dict of tensors. Left out where
        ``capture(...)`` is used as a decorator with options.
    optimization : int, optional, default=1
        How far Dragon optimizes the graph: 1 (not at all), 2 (operators in place) or 3 (gradients share
        memory, too). 2 and 3 need less memory and are as fast; the results are the same.
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
    step hooks, when `fn` changes hyper-parameters or keeps a tensor for the next call, with Dragon's own
    Adam, and beyond `max_graphs` graphs.

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
        self._variants: OrderedDict[Any, List[_Variant]] = OrderedDict()  # by signature, the latest last
        self._graphs: Dict[bytes, replay.Replay] = {}
        self._optimizers: Dict[int, Tuple[Engine, Any]] = {}  # all that took part so far
        self._eager_reason: Optional[str] = None  # why it is never captured
        self._warned: List[str] = []
        self.replays = 0

    @property
    def graphs(self) -> int:
        """How many graphs were made."""
        return len(self._graphs)

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
                self._check_arguments(inputs, len(args), names)
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

    def _check_arguments(self, inputs: Sequence[Any], positional: int, names: Sequence[str]) -> None:
        """Raise: something is wrong with an argument."""
        for place, each in enumerate(inputs):
            what = f"argument {place if place < positional else repr(names[place - positional])}"
            if not isinstance(each, Tensor):
                raise TypeError(
                    f"{what} of {self._name} is {type_name(each)}, not a Dragon tensor: a replay could not "
                    "follow it. Fix its value by functools.partial before you capture, or pass a "
                    "torch.tensor(...)."
                )
            workspace.check_tensor(each, self._workspace, f"{what} of {self._name}")
            if each.requires_grad:
                raise ValueError(
                    f"{what} of {self._name} requires a gradient, which the copy in the graph would not hand "
                    "back: pass x.detach(), or let the function use the leaf itself, not an argument."
                )

    def _reason_now(self) -> Optional[str]:
        """Why this call must run eagerly; the optimizers look at their groups."""
        if collective.group() is not None:
            return "in a process group the ranks agree on each step in Python"
        for engine, optimizer in self._optimizers.values():
            engine.look(optimizer.param_groups)
            if engine.is_differentiable:
                return "a step with differentiable=True makes new tensors of the parameters"
            if hooks.any_for_step(optimizer):
                return "a replay would not call the step hooks"
        return None

    # The three ways to run.

    def _run_eagerly(self, inputs: Sequence[Tensor], names: Sequence[str], reason: str) -> Any:
        self._warn(reason)
        copies = [replay.own_copy(self._workspace, each) for each in inputs]
        result = _Result(self._call(copies, names), self._name)
        return result.rebuild([replay.copy_for_user(self._workspace, each) for each in result.tensors])

    def _call(self, inputs: Sequence[Tensor], names: Sequence[str]) -> Any:
        positional = len(inputs) - len(names)
        return self._fn(*inputs[:positional], **dict(zip(names, inputs[positional:])))

    def _replay(self, variant: "_Variant", inputs: Sequence[Tensor]) -> Any:
        graph = variant.graph
        for optimizer, group in variant.stock_groups:
            replay.feed_stock(optimizer, group)
        with _all_of([engine.turn for engine in variant.engines]):
            try:
                graph.run(inputs)
            finally:
                variant.catch_up(self._workspace)
        self.replays += 1
        return variant.result.rebuild([replay.copy_for_user(self._workspace, each) for each in graph.outputs])

    def _record(self, signature: Any, inputs: Sequence[Tensor], names: Sequence[str]) -> Any:
        if len(self._graphs) >= self._max_graphs:
            return self._run_eagerly(
                inputs, names, f"its calls need more than max_graphs={self._max_graphs} different graphs"
            )
        observer = _Observer(self._workspace, self._optimizers)
        recorder = recording.Recorder(self._workspace, observer)
        observer.recorder = recorder
        feeds = [replay.own_copy(self._workspace, each) for each in inputs]
        try:
            with recorder:
                result = _Result(self._call(feeds, names), self._name)
            if recorder.refusal is not None:  # and the function has caught it
                raise recorder.refusal
            returned = [replay.copy_for_user(self._workspace, each) for each in result.tensors]
            observer.finish()
            outputs = replay.add_outputs(recorder, result.tensors, self._level)
            replay.protect(recorder, self._level)
            result.tensors.clear()
            self._eager_reason = recorder.eager_reason or _kept_tensors(recorder)
            reason = self._eager_reason or self._reason_now()
            if reason is None:
                graph = self._graph(recorder, feeds, outputs)
        except BaseException:
            recorder.held.give_back()
            raise
        if reason is None:
            self._remember(signature, _Variant(graph, observer, result))
        else:
            recorder.held.give_back()
            self._warn(reason)
        return result.rebuild(returned)

    def _graph(
        self, recorder: recording.Recorder, feeds: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> replay.Replay:
        """Return the graph of a recording: one that there is, if it does the same."""
        digest = replay.digest(recorder, feeds, outputs)
        if digest in self._graphs:
            recorder.held.give_back()
        else:
            self._graphs[digest] = replay.Replay(recorder, feeds, outputs, self._level)
        return self._graphs[digest]

    def _remember(self, signature: Any, variant: "_Variant") -> None:
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


def _kept_tensors(recorder: recording.Recorder) -> Optional[str]:
    """Why a function that keeps tensors cannot be replayed; None if it keeps none."""
    if not recorder.held.kept_tensors():
        return None
    gc.collect()  # an operator in place makes a cycle with its tape
    if not recorder.held.kept_tensors():
        return None
    return (
        "it keeps a tensor after it has returned (in a list, an attribute or a closure), where a replay "
        "would not put a new one; return the tensor instead, or update one that was made before by copy_()"
    )


class _Result:
    """What a function has returned: its tensors, and how they stand."""

    def __init__(self, value: Any, name: str) -> None:
        self._keys: Optional[List[Any]] = None
        self._type = type(value)
        if value is None:
            self.tensors: List[Tensor] = []
        elif isinstance(value, Tensor):
            self.tensors = [value]
        elif self._type in (tuple, list):
            self.tensors = list(value)
        elif self._type is dict:
            self._keys, self.tensors = list(value), list(value.values())
        else:
            raise TypeError(_WRONG_RESULT.format(name, type_name(value)))
        for each in self.tensors:
            if not isinstance(each, Tensor):
                raise TypeError(_WRONG_RESULT.format(name, f"a {self._type.__name__} with {type_name(each)}"))

    def rebuild(self, tensors: List[Tensor]) -> Any:
        """Return the same with other tensors."""
        if self._type is list:
            return tensors
        if self._type is tuple:
            return tuple(tensors)
        if self._keys is not None:
            return dict(zip(self._keys, tensors))
        return tensors[0] if tensors else None


_WRONG_RESULT = (
    "{} returned {}; it may return None, a tensor, or a tuple, list or dict of tensors, since a replay knows "
    "no other values"
)


class _Observer:
    """What the optimizers of this package do while a function is recorded."""

    def __init__(self, home: workspace.Workspace, known: Dict[int, Tuple[Engine, Any]]) -> None:
        self.recorder: Any = None
        self.known = known
        self.seen: Dict[int, _Optimizer] = {}
        self._last_passes = tape.last_passes(home)
        self._flags: Dict[str, graphs.HostArray] = {}
        for engine, _ in known.values():
            self.prepared(engine)

    def prepared(self, engine: Engine) -> None:
        """An optimizer has looked at its groups."""
        if self.recorder is not None and engine.is_differentiable:
            raise self.recorder.refuse(_DIFFERENTIABLE)
        if id(engine) not in self.seen:
            self.seen[id(engine)] = _Optimizer(
                engine, engine.situation(), engine.not_summed_yet(self._last_passes), engine.hyper_values()
            )
            self.known.setdefault(id(engine), (engine, engine.optimizer()))
        self._flags.update((array.name, array) for array in engine.flags())

    def summed(self, engine: Engine) -> None:
        """An optimizer has summed its gradients."""
        self.seen[id(engine)].sums = True
        self.recorder.events.append(("summed", engine))

    def round_ended(self, engine: Engine) -> None:
        """An optimizer has forgotten its sums."""
        self.recorder.record_fill(engine.table.summed)

    def flag(self, name: str) -> Optional[graphs.HostArray]:
        """The array of this name, if it is one that Python writes before each graph runs."""
        return self._flags.get(name)

    def before_graph(self) -> None:
        """A graph of an optimizer is about to run."""
        if any(each.engine.hyper_values() != each.hyper for each in self.seen.values()):
            self.recorder.eager_reason = _CHANGES_HYPER

    def finish(self) -> None:
        """The function has returned."""
        for each in self.seen.values():
            engine, optimizer = self.known[id(each.engine)]
            engine.sync(optimizer.param_groups)
            for group in optimizer.param_groups:
                if any(isinstance(value, Tensor) and self.recorder.writes(value) for value in group.values()):
                    self.recorder.eager_reason = _CHANGES_HYPER
        self.before_graph()


_DIFFERENTIABLE = (
    "a step with differentiable=True makes new tensors of the parameters, which a graph cannot follow: set "
    "it to False in the groups, or call the function without capturing it"
)
_CHANGES_HYPER = "it changes hyper-parameters; change them between two calls, and step schedulers there too"


class _Optimizer:
    """An optimizer that took part in a recording, as it was when the function was called."""

    def __init__(self, engine: Engine, situation: Any, not_summed_yet: Any, hyper: bytes) -> None:
        self.engine = engine
        self.hyper = hyper
        self.sums = False  # whether sum_grad() was called
        self._situation = situation
        self._not_summed_yet = not_summed_yet

    def fits(self) -> bool:
        """Whether it is in the same situation now."""
        if self.engine.situation() != self._situation:
            return False
        if not self.sums:
            return True
        return self.engine.not_summed_yet(tape.last_passes(self.engine.workspace)) == self._not_summed_yet


class _Variant:
    """A graph, and when it does what the function would do."""

    def __init__(self, graph: replay.Replay, observer: _Observer, result: _Result) -> None:
        recorder = observer.recorder
        self.graph = graph
        self.result = result
        self.stock_groups = recorder.stock_groups
        self._optimizers = list(observer.seen.values())
        self.engines = [each.engine for each in self._optimizers]
        self._events = recorder.events
        self._modules = [module for module, _ in recorder.modules.values()]
        self._training = [training for _, training in recorder.modules.values()]
        self._stock = [
            (optimizer, summing, optimizer._sums_grad) for optimizer, summing in recorder.stock.values()
        ]
        self._read = replay.state_of_read(graph.read)
        self._home = recorder.workspace
        self._asked = list(recorder.expected_gradients)
        self._answers = list(recorder.expected_gradients.values())
        self._stock_situation = replay.stock_situation(self._home, self.stock_groups)

    def fits(self) -> bool:
        """Whether nothing has changed that decides what the function computes."""
        return (
            all(each.fits() for each in self._optimizers)
            and [module.training for module in self._modules] == self._training
            and replay.state_of_read(self.graph.read) == self._read
            and (not self._asked or replay.has_gradients(self._home, self._asked) == self._answers)
            and (not self._stock or self._stock_fits())
        )

    def _stock_fits(self) -> bool:
        return (
            all(optimizer._sums_grad == before for optimizer, before, _ in self._stock)
            and replay.stock_situation(self._home, self.stock_groups) == self._stock_situation
        )

    def catch_up(self, home: workspace.Workspace) -> None:
        """Do in Python what the function would have done beside its operators."""
        for what, subject in self._events:
            if what == "backward":
                tape.mark(home, subject)
            else:
                subject.catch_up(summed=True)
        for each in self._optimizers:
            if each.sums or each.engine.round_open:
                each.engine.catch_up(summed=False)
        for optimizer, _, after in self._stock:
            optimizer._sums_grad = after
