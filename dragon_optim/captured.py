# SPDX-License-Identifier: BSD-2-Clause
"""What a captured function keeps of a recording: who took part, what came out, and when a replay does it."""

from typing import Any, Dict, List, Optional, Tuple

from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon import graphs, replay, tape, workspace
from dragon_optim.engine import Engine
from dragon_optim.parameters import type_name


class Result:
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


class Observer:
    """What the optimizers of this package do while a function is recorded."""

    def __init__(self, home: workspace.Workspace, known: Dict[int, Tuple[Engine, Any]]) -> None:
        self.recorder: Any = None
        self.known = known
        self.seen: Dict[int, Participant] = {}
        self._last_passes = tape.last_passes(home)
        self._flags: Dict[str, graphs.HostArray] = {}
        for engine, _ in known.values():
            self.prepared(engine)

    def prepared(self, engine: Engine) -> None:
        """An optimizer has looked at its groups."""
        if self.recorder is not None and engine.is_differentiable:
            raise self.recorder.refuse(_DIFFERENTIABLE)
        if id(engine) not in self.seen:
            self.seen[id(engine)] = Participant(
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


class Participant:
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


class Variant:
    """A graph, and when it does what the function would do."""

    def __init__(self, graph: replay.Replay, observer: Observer, result: Result) -> None:
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
