# SPDX-License-Identifier: BSD-2-Clause
"""``optimizer.state``: PyTorch's mapping of a parameter to its states, over our memory."""

import copy
import functools
import operator
import weakref
from collections.abc import Mapping, MutableMapping
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon import graphs, tensors, workspace
from dragon_optim.arrays import is_foreign, to_array
from dragon_optim.parameters import printable
from dragon_optim.plan import MASTER_PARAM
from dragon_optim.slots import Slot, SlotTable


class Checked(dict):
    """Entries for one parameter that were checked and copied: its tensors as arrays, or as Dragon tensors."""


class ParameterState(MutableMapping):
    """The states of one parameter: ``step``, the tensors in use, and any entry that the user adds.

    Reading gives live values: ``step`` as an int, tensors as the very Dragon tensors that the next step
    updates. Assigning a tensor copies its values, so that no two states ever share memory. Once `state` has
    forgotten the entry, or taken another in its place, this keeps what it held, as a dict does.
    """

    def __init__(self, table: SlotTable, slot: Slot, names: Sequence[str]) -> None:
        self._table = table
        self._slot = slot
        self._names = names
        self._kept: Optional[Dict[str, Any]] = None  # once `state` has forgotten it

    def detach(self) -> None:
        """Be a dict of what is here now, from now on: `state` forgets it."""
        self._kept = dict(self)

    def _in_use(self, name: str) -> bool:
        tensor = self._slot.states.get(name)
        return tensor is not None and tensors.has_data(tensor)

    def __getitem__(self, key: str) -> Any:
        if self._kept is not None:
            return self._kept[key]
        if key == "step" and "step" in self:
            return int(self._table.steps.view[self._slot.index])
        if self._in_use(key):
            return self._slot.states[key]
        return self._slot.extra[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if self._kept is not None:
            self._kept[key] = value
            return
        checked = self.checked(key, value)
        with self._table.turn:
            self.put(key, checked)

    def checked(self, key: str, value: Any) -> Any:
        """Return what `put` takes for this value, a copy; or raise."""
        if key == "step":
            return _as_step(value)
        if key not in self._names:
            return value
        if self._table.differentiable and isinstance(value, Tensor) and value.requires_grad:
            return self._checked_on_tape(key, value)
        array = to_array(value, key)
        shape = tuple(self._slot.param.shape)
        if array.shape != shape:
            raise ValueError(f"{key} must have the shape of its parameter, {shape}, but got {array.shape}")
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{key} must hold real numbers, but got dtype {array.dtype}")
        return array.astype(self._slot.arithmetic_dtype)

    def _checked_on_tape(self, key: str, value: Tensor) -> Tensor:
        """A state that a gradient can flow to is taken as it is: recorded steps do not write to it."""
        workspace.check_tensor(value, self._table.workspace, f"the tensor given as {key}")
        ours = (tuple(self._slot.param.shape), self._slot.arithmetic_dtype)
        if (tuple(value.shape), value.dtype) != ours:
            raise ValueError(
                f"{key} requires a gradient and so must have the shape and dtype of its parameter, {ours[0]} "
                f"and {ours[1]}, but got {tuple(value.shape)} and {value.dtype}"
            )
        return value

    def checked_all(self, entries: Any) -> Checked:
        """Return what `put` takes for each of these entries; or raise."""
        if not isinstance(entries, Mapping):
            raise TypeError(f"the state of a parameter must be a mapping, but got {type(entries).__name__}")
        return Checked((name, self.checked(name, each)) for name, each in entries.items())

    def checked_copy(self, entries: Mapping) -> Checked:
        """As `checked_all`; what the user keeps here beside the states is copied as well."""
        checked = self.checked_all(entries)
        for name in list(checked):
            checked[name] = self._copied(name, checked[name])
        if self._slot.param.dtype != "float16":
            checked.pop(MASTER_PARAM, None)  # the parameter was float16 when it was saved
        return checked

    def _copied(self, name: str, checked: Any) -> Any:
        if name not in ("step", *self._names):
            return copy.deepcopy(checked)
        return numpy.array(to_array(checked, name)) if isinstance(checked, Tensor) else checked

    def put(self, key: str, value: Any) -> None:
        """Take over what `checked` returned, or a tensor made of it."""
        if key == "step":
            self._table.steps.view[self._slot.index] = value
        elif key in self._names and isinstance(value, Tensor):
            self._table.replace_state(self._slot, key, value)
        elif key in self._names and self._table.differentiable:  # the tensor that is there may be on a tape
            self._table.replace_state(self._slot, key, self._table.filled(self._slot.param, value))
        elif key in self._names:
            graphs.tensor_from(value, self._table.state(self._slot, key))
        else:
            self._slot.extra[key] = value

    def __delitem__(self, key: str) -> None:
        if self._kept is not None:
            del self._kept[key]
            return
        with self._table.turn:
            if key == "step" and "step" in self:
                self._table.steps.view[self._slot.index] = 0
            elif self._in_use(key):
                self._table.drop_state(self._slot, key)
            else:
                del self._slot.extra[key]

    def __iter__(self) -> Iterator[str]:
        if self._kept is not None:
            yield from list(self._kept)
            return
        in_use = [name for name in self._names if self._in_use(name)]
        if in_use or self._table.steps.view[self._slot.index] > 0:
            yield "step"
        yield from in_use
        yield from list(self._slot.extra)

    def __contains__(self, key: object) -> bool:
        return any(key == each for each in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(printable(dict(self)))

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Be copied and pickled as a dict: what this is a view of belongs to the optimizer."""
        return dict, (), None, None, iter(self.items())


class OptimizerState(MutableMapping):
    """A parameter's states by the parameter; and, as PyTorch allows it, anything else by any other key."""

    def __init__(self, table: SlotTable, names: Sequence[str]) -> None:
        self._table = table
        self._names = names
        self._other: Dict[Any, Any] = {}
        table.state_of = weakref.ref(self)

    def __getitem__(self, key: Any) -> Any:
        slot = self._table.find(key)
        if slot is not None:
            view = slot.view()
            if view is None:
                view = ParameterState(self._table, slot, self._names)
                slot.view = weakref.ref(view)
            return view
        return self._other.setdefault(key, {})  # PyTorch's state is a defaultdict

    def __setitem__(self, key: Any, value: Any) -> None:
        slot = self._table.find(key)
        if slot is not None and value is slot.view():
            return
        checked = self._checked(key, value)
        with self._table.turn:
            self._put(key, checked)

    def _checked(self, key: Any, value: Any) -> Any:
        # Copies: `value` may be the very entry that is cleared next, or hold its tensors.
        if self._table.find(key) is None:
            return value
        return self.entry_of(key).checked_all(value)

    def entry_of(self, param: Tensor) -> ParameterState:
        """The states of a parameter; of one that has not joined yet, only to check what it would be given."""
        slot = self._table.find(param)
        if slot is None:
            workspace.check_readable(param, "a parameter that has state")
            slot = Slot(param, -1, self._table.workspace)
        return ParameterState(self._table, slot, self._names)

    def plain(self, key: Any) -> Any:
        """Return an entry as a dict of its own; one that is no parameter's, or no dict, as it is."""
        entry = self[key]
        return dict(entry) if isinstance(entry, ParameterState) else entry

    def _put(self, key: Any, value: Any) -> None:
        slot = self._table.find(key)
        if slot is not None and not slot.in_group:
            self._table.clear(slot)  # and it is gone
            slot = None
        if slot is None:
            self._other[key] = value
            return
        stay = [name for name in value if name in self._names and self._stays(slot, name, value[name])]
        self._table.clear(slot, besides=stay)
        entry = self.entry_of(key)
        for name, each in value.items():
            entry.put(name, each)

    def _stays(self, slot: Slot, name: str, value: Any) -> bool:
        return isinstance(value, Tensor) or self._table.fits(slot, name, value)

    def claimed_by(self, params: Iterable[Tensor]) -> List[Tuple[Any, Checked]]:
        """Return what was set for parameters before they joined, checked, for `hand_over`; or raise."""
        claimed = {id(param): param for param in params if param in self._other}
        return [(param, self.entry_of(param).checked_all(self._other[param])) for param in claimed.values()]

    def hand_over(self, claimed: List[Tuple[Any, Checked]]) -> None:
        """Make what was claimed the states of the parameters."""
        for param, entries in claimed:
            self._put(param, entries)
            del self._other[param]

    def replace(self, value: Mapping) -> None:
        """Take these entries and no others. Changes nothing if one of them is wrong."""
        entries = [(key, self._checked(key, each)) for key, each in value.items()]
        with self._table.turn:
            self.prepare(entries)
            self.take(entries)

    def prepare(self, entries: Sequence[Tuple[Any, Any]]) -> None:
        """Take memory for these checked entries, so that `take` does not fail for want of it."""
        for key, entry in entries:
            if not isinstance(entry, Checked):
                continue
            slot = self._table.find(key)
            for name in set(entry).intersection(self._names):
                array = entry[name]
                if not isinstance(array, Tensor) and not (slot and self._table.fits(slot, name, array)):
                    entry[name] = self._table.filled(key, array)

    def take(self, entries: Sequence[Tuple[Any, Any]], *more: Callable[[], Any]) -> None:
        """Take these prepared entries and no others, and do what is to be done along with it.

        It is done as a whole: a Ctrl-C meanwhile is raised at the end.
        """
        kept = {id(self._table.find(key)) for key, _ in entries}
        gone = [slot for slot in self._table.slots if id(slot) not in kept]
        work: List[Callable[[], Any]] = [*more, self._other.clear]
        work += [functools.partial(self._table.clear, slot) for slot in gone]
        work += [functools.partial(self._put, key, entry) for key, entry in entries]
        interrupt = None
        for each in work:
            while True:  # each can be done twice
                try:
                    each()
                    break
                except KeyboardInterrupt as caught:
                    interrupt = caught
        if interrupt is not None:
            raise interrupt

    def clear(self) -> None:
        """Forget everything."""
        with self._table.turn:
            self.take(())

    # Reading an entry makes a view of it, and one of other keys: what a mapping inherits would ask for less.

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the entry, or the default where there is none."""
        return self[key] if key in self else default  # noqa: SIM401  this is get

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return the entry; where there is none, set it first."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: Any, *default: Any) -> Any:
        """Forget an entry and return it: a dict that holds its tensors."""
        if key not in self:
            if default:
                return default[0]
            raise KeyError(key)
        entry = self.plain(key)
        del self[key]
        return entry

    def __delitem__(self, key: Any) -> None:
        if key not in self:
            raise KeyError(key)
        slot = self._table.find(key)
        if slot is None:
            del self._other[key]
            return
        with self._table.turn:
            self._table.clear(slot)

    def __contains__(self, key: object) -> bool:
        slot = self._table.find(key)
        if slot is None:
            return key in self._other
        return not self._table.is_bare(slot)

    def __iter__(self) -> Iterator[Any]:
        yield from [slot.param for slot in self._table.slots if slot.param in self]
        yield from list(self._other)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        entries = (f"{printable(key)!r}: {printable(self[key])!r}" for key in self)
        return "{" + ", ".join(entries) + "}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Be copied and pickled as a dict of dicts: what this is a view of belongs to the optimizer."""
        return dict, (), None, None, iter(self.items())


def _as_step(value: Any) -> int:
    if isinstance(value, (numpy.ndarray, numpy.generic)) or tensors.is_tensor(value) or is_foreign(value):
        array = to_array(value, "step")
        if array.size != 1:
            raise ValueError(f"step must be one number, but got an array of shape {array.shape}")
        value = array.reshape(()).item()
    if isinstance(value, float) and value.is_integer():  # PyTorch's tensor step is a float32
        value = int(value)
    try:
        step = operator.index(value)
    except TypeError as error:
        raise TypeError(f"step must be a whole number, but got {printable(value)!r}") from error
    if step >= 2**62:  # in int64, with room to count on
        raise OverflowError(f"Invalid step value: {step} (need step < 2**62)")
    if step < 0:
        raise ValueError(f"Invalid step value: {step} (need step >= 0)")
    return step
