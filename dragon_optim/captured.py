# SPDX-License-Identifier: BSD-2-Clause
"""What a captured function keeps of a recording: who took part, what came out, and when a replay does it."""

from typing import Any, Dict, List, Optional, Set, Tuple

from dragon.vm.torch.core.tensor import Tensor

from dragon_optim import hyper
from dragon_optim._dragon import graphs, recording, replay, stock, tape, tensors, workspace
from dragon_optim.captured_values import Result
from dragon_optim.engine import Engine


class Observer:
    """What the optimizers of this package do while a function is recorded."""

    def __init__(self, home: workspace.Workspace, known: Dict[int, Tuple[Engine, Any]]) -> None:
        self.recorder: Any = None
        self.known = known
        self.seen: Dict[int, Participant] = {}
        self._last_passes = tape.last_passes(home)
        self._flags: Dict[str, graphs.HostArray] = {}
        # Of all optimizers: which the function uses is not known yet, and it may change one before.
        self._groups_before = {
            id(each): (each, _marked(each.param_groups))
            for each in stock.living()
            if stock.lives_in(each, home)
        }
        self._steps_before = {key: stock.steps_done(each) for key, (each, _) in self._groups_before.items()}
        for engine, _ in known.values():
            self.prepared(engine)

    def overridden(self) -> Set[Tuple[Any, str]]:
        """The methods of users' classes that a replay would not call: class and name."""
        return {each for optimizer, _ in self._groups_before.values() for each in _overridden(optimizer)}

    def steps(self) -> List[Tuple[Any, int]]:
        """The optimizers that have made steps, and how many."""
        found = []
        for key, (optimizer, _) in self._groups_before.items():
            before, now = self._steps_before[key], stock.steps_done(optimizer)
            if before is not None and now is not None and now > before:
                found.append((optimizer, now - before))
        return found

    def prepared(self, engine: Engine) -> None:
        """An optimizer has looked at its groups."""
        if self.recorder is not None and engine.watched.differentiable:
            raise self.recorder.refuse(_DIFFERENTIABLE)
        if self.recorder is not None:
            self.updates(engine.optimizer())
        if id(engine) not in self.seen:
            self.seen[id(engine)] = Participant(
                engine, engine.situation(), engine.not_summed_yet(self._last_passes), engine.hyper_values()
            )
            self.known.setdefault(id(engine), (engine, engine.optimizer()))
        self._flags.update((array.name, array) for array in engine.flags())

    def updates(self, optimizer: Any) -> None:
        """An optimizer, of whatever kind, is used."""
        for name in _METHODS:
            if name in vars(optimizer):
                self.recorder.not_called(f"the {name}() that was put into an optimizer")
        _, before = self._groups_before.get(id(optimizer), (None, None))
        if before is not None and not _same(before, _values(optimizer.param_groups)):
            self.recorder.eager_reason = _CHANGES_HYPER

    def reduced(self, engine: Engine) -> None:
        """An optimizer has asked the other ranks."""
        self.recorder.eager_reason = IN_PROCESS_GROUP

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
            self.updates(optimizer)
        for optimizer, _ in self.recorder.stock.values():
            self.updates(optimizer)
        self.before_graph()


_DIFFERENTIABLE = (
    "a step with differentiable=True makes new tensors of the parameters, which a graph cannot follow: set "
    "it to False in the groups, or call the function without capturing it"
)
_CHANGES_HYPER = "it changes hyper-parameters; change them between two calls, and step schedulers there too"
IN_PROCESS_GROUP = "in a process group the ranks agree on each step in Python"


def _marked(groups: Any) -> Any:
    """Return what stands in groups. Each float becomes another object, which shows if it is written to."""
    for group in groups:
        if isinstance(group, dict):
            group.update({key: value * 1.0 for key, value in group.items() if type(value) is float})
    return _values(groups)


def _values(groups: Any) -> Any:
    """What stands in groups besides the parameters."""
    return [
        {key: value for key, value in group.items() if key != "params"} if isinstance(group, dict) else group
        for group in groups
    ]


def _same(before: Any, now: Any) -> bool:
    """Whether the same stands in both. Compared by identity where ``==`` may be an operator of Dragon's."""
    if len(before) != len(now):
        return False
    for old, new in zip(before, now):
        if not (isinstance(old, dict) and isinstance(new, dict)):
            if old is not new:
                return False
            continue
        if old.keys() != new.keys():
            return False
        for key, value in old.items():
            if value is new[key]:
                continue
            if type(value) is float or not hyper.are_immutable((value, new[key])) or value != new[key]:
                return False
    return True


_METHODS = ("step", "sum_grad", "zero_grad")


def _overridden(optimizer: Any) -> List[Tuple[Any, str]]:
    """The methods of an optimizer that do not come from this package or from Dragon, and their owners."""
    kinds = [each for each in type(optimizer).__mro__ if not _is_known(each)]
    return [(kind, name) for kind in kinds for name in _METHODS if name in vars(kind)]


def _is_known(kind: type) -> bool:
    return kind.__module__.split(".")[0] in ("dragon_optim", "dragon")


class Participant:
    """An optimizer that took part in a recording, as it was when the function was called."""

    def __init__(self, engine: Engine, situation: Any, not_summed_yet: Any, hyper: bytes) -> None:
        self.engine = engine
        self.hyper = hyper
        self.sums = False  # whether sum_grad() was called
        self._situation = situation
        self._generation = engine.table.generation
        self._not_summed_yet = not_summed_yet

    @property
    def is_outdated(self) -> bool:
        """Whether its states are other tensors now."""
        return self.engine.table.generation != self._generation

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
        self._steps = observer.steps()
        self._modules = [module for module, _ in recorder.training.values()]
        self._training = [training for _, training in recorder.training.values()]
        self._switched = [
            (module, module.training)
            for module, training in recorder.training.values()
            if module.training != training
        ]
        self._flagged = [(tensor, tensor.requires_grad) for tensor, _ in recorder.flagged.values()]
        self._stock = [
            (optimizer, summing, optimizer._sums_grad) for optimizer, summing in recorder.stock.values()
        ]
        # Not the parameters of the optimizers: their flags stand in the situation, and the graph checks
        # their shapes and dtypes itself.
        updated = {id(slot.param) for engine in self.engines for slot in engine.slots}
        read = [each for each in recorder.read_from_outside() if id(each[0]) not in updated]
        self._read = [tensor for tensor, _ in read]
        self._read_as = [state for _, state in read]
        self._home = recorder.workspace
        self._asked = list(recorder.expected_gradients)
        self._answers = list(recorder.expected_gradients.values())
        self._stock_optimizers = [optimizer for optimizer, *_ in self._stock]
        self._stock_situation = replay.stock_situation(self._home, self._stock_optimizers)

    def fits(self) -> bool:
        """Whether nothing has changed that decides what the function computes."""
        return (
            all(each.fits() for each in self._optimizers)
            and [module.training for module in self._modules] == self._training
            and list(map(recording.state_of_read, self._read)) == self._read_as
            and (not self._asked or replay.has_gradients(self._home, self._asked) == self._answers)
            and (not self._stock or self._stock_fits())
        )

    def _stock_fits(self) -> bool:
        return (
            all(optimizer._sums_grad == before for optimizer, before, _ in self._stock)
            and replay.stock_situation(self._home, self._stock_optimizers) == self._stock_situation
        )

    @property
    def is_outdated(self) -> bool:
        """Whether it writes to states that its optimizers no longer have."""
        return any(each.is_outdated for each in self._optimizers)

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
        for optimizer, steps in self._steps:
            stock.count_steps(optimizer, steps)
        for module, training in self._switched:
            module.training = training
        for tensor, requires_grad in self._flagged:
            tensors.set_requires_grad(tensor, requires_grad)
