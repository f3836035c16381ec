# SPDX-License-Identifier: BSD-2-Clause
"""PyTorch's ``state_dict``: an optimizer's state by numbers instead of parameters, packed and read.

Reading changes nothing. It checks all there is to check and returns what is to be taken over.
"""

import copy
import itertools
from collections.abc import Collection, Hashable, Mapping
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from dragon.vm.torch.core.tensor import Tensor

from dragon_optim import hyper
from dragon_optim._dragon import tensors, workspace
from dragon_optim._warnings import warn
from dragon_optim.arrays import is_foreign, to_array
from dragon_optim.groups import Group, check_modes
from dragon_optim.parameters import printable, type_name
from dragon_optim.state import OptimizerState

_ERRORS = (KeyError, TypeError, ValueError, OverflowError, AssertionError, RuntimeError)


def pack(groups: Sequence[Group], state: OptimizerState) -> Dict[str, Any]:
    """Return the state dict of these groups: the same values and tensors, parameters as numbers."""
    # By identity. A parameter that stands twice has the number of its last place in the first group that
    # holds it: so do PyTorch's.
    numbers: Dict[int, int] = {}
    owners: Dict[int, int] = {}  # by identity, too: the place of that group
    packed_groups = []
    count = 0
    for place, group in enumerate(groups):
        packed = {key: value for key, value in group.items() if key != "params"}
        for number, param in enumerate(group["params"], count):
            if owners.setdefault(tensors.identity(param), place) == place:
                numbers[tensors.identity(param)] = number
        packed["params"] = [numbers[tensors.identity(param)] for param in group["params"]]
        _leave_out_wrong_names(place, packed)
        count += len(packed["params"])
        packed_groups.append(packed)
    packed_state: Dict[Any, Any] = {}
    left_out = 0
    for key in state:
        if not isinstance(key, Tensor):
            packed_state[key] = state[key]
        elif tensors.identity(key) in numbers:
            packed_state[numbers[tensors.identity(key)]] = state.plain(key)
        else:
            left_out += 1  # of which nothing more is asked: its workspace may be gone
    if left_out:
        warn(
            f"state_dict() leaves out the state of {left_out} parameter(s) that stand in no group: a state "
            "dict has no name for them. Add them to a group, or delete their entries of `state`."
        )
    return {"state": packed_state, "param_groups": packed_groups}


def _leave_out_wrong_names(number: int, group: Group) -> None:
    """Names that no longer fit, since the list of parameters was edited, would make the dict unloadable."""
    try:
        _check_names(number, group)
    except (TypeError, ValueError) as error:
        warn(
            f"state_dict() leaves out the names of group {number}: {error}. Set "
            f"param_groups[{number}]['param_names'] to a list of str, one for each parameter."
        )
        del group["param_names"]


class Requirements(NamedTuple):
    """What a class of optimizers asks of a state dict."""

    fields: Sequence[hyper.Field]
    refused: Sequence[hyper.Refused]
    other_names: Dict[str, str]  # of keys of a group, to the optimizer's own
    required_keys: Sequence[str]  # of every group
    required_states: Sequence[str]  # of every entry that has any state
    legacy_defaults: Dict[str, Any]  # what a group lacks that was written before the key came
    known_states: Sequence[str]


class Contents(NamedTuple):
    """What a state dict holds for an optimizer, checked and copied."""

    groups: List[Group]
    entries: List[Tuple[Any, Any]]  # of `state`: (parameter or other key, what OptimizerState.take takes)


class Reader:
    """Reads a state dict for an optimizer with these groups and this state.

    Parameters
    ----------
    groups : sequence of dict
        The groups as they are now.
    state : OptimizerState
        The optimizer's state: it knows what fits a parameter.
    requirements : Requirements
        What the optimizer's class asks for.
    keep : collection of str
        Keys of which the groups keep their present values.
    """

    def __init__(
        self, groups: Sequence[Group], state: OptimizerState, requirements: Requirements, keep: Iterable[str]
    ) -> None:
        self._groups = groups
        self._state = state
        self._needs = requirements
        self._keep = (keep,) if isinstance(keep, str) else keep

    def read(self, state_dict: Any) -> Contents:
        """Return its contents, or raise."""
        saved_groups, saved_state = _parts(state_dict)
        self._check_keep()
        self._check_sizes(saved_groups)
        by_name = self._is_matched_by_name(saved_groups)
        params = self._params_by_id(saved_groups, by_name)
        groups = [
            self._group(number, group, saved, by_name)
            for number, (group, saved) in enumerate(zip(self._groups, saved_groups))
        ]
        return Contents(groups, self._entries(saved_state, params))

    # Groups.

    def _check_keep(self) -> None:
        if not isinstance(self._keep, Collection):
            raise TypeError(f"keep must be a collection of str, but got {type_name(self._keep)}")
        known = set().union(*self._groups) - {"params", "param_names"}
        for key in self._keep:
            if key not in known:
                raise ValueError(
                    f"Invalid keep value: {printable(key)!r} (need keys of a group: {_keys(known)})"
                )

    def _check_sizes(self, saved_groups: Sequence[Mapping]) -> None:
        if len(saved_groups) != len(self._groups):
            raise ValueError(
                "loaded state dict has a different number of parameter groups: it has "
                f"{len(saved_groups)}, and the optimizer {len(self._groups)}. Make the optimizer with the "
                "groups that the saved one had."
            )
        for number, (group, saved) in enumerate(zip(self._groups, saved_groups)):
            if len(saved["params"]) != len(group["params"]):
                raise ValueError(
                    "loaded state dict contains a parameter group that doesn't match the size of optimizer's "
                    f"group: group {number} has {len(saved['params'])} parameters there, and "
                    f"{len(group['params'])} here{_difference(saved, group)}. Make the optimizer over the "
                    "same parameters, in the same order."
                )

    def _is_matched_by_name(self, saved_groups: Sequence[Mapping]) -> bool:
        """Whether both sides have names, and the same ones. Otherwise parameters are matched by order."""
        ours, theirs = _names(self._groups), _names(saved_groups)
        if ours is None or theirs is None or ours == theirs:
            return False
        if sorted(ours) == sorted(theirs) and len(set(ours)) == len(ours):
            return True
        first = next(pair for pair in zip(theirs, ours) if pair[0] != pair[1])
        warn(
            "loaded state dict gives its parameters other names than the optimizer (the first: "
            f"{first[0]!r} for {first[1]!r}): they are matched by their order, and the loaded names are taken"
        )
        return False

    def _params_by_id(self, saved_groups: Sequence[Mapping], by_name: bool) -> Dict[Any, "_Target"]:
        ours = [
            _Target(param, number, position, _name_at(group, position))
            for number, group in enumerate(self._groups)
            for position, param in enumerate(group["params"])
        ]
        ids = list(itertools.chain.from_iterable(group["params"] for group in saved_groups))
        if by_name:
            targets = {target.name: target for target in ours}
            ours = [targets[name] for name in _names(saved_groups) or ()]
        params: Dict[Any, _Target] = {}
        owners: Dict[int, Any] = {}
        for key, target in zip(ids, ours):
            identity = tensors.identity(target.param)
            known = params.setdefault(key, target)
            if tensors.identity(known.param) != identity or owners.setdefault(identity, key) != key:
                raise ValueError(
                    f"loaded state dict does not have the optimizer's order of parameters: id {key!r} is "
                    f"{target}, but one of the two stands elsewhere as well. A parameter that is shared must "
                    "be shared on both sides."
                )
        return params

    def _group(self, number: int, group: Group, saved: Mapping, by_name: bool) -> Group:
        saved = self._own_names(saved)
        missing = [key for key in self._needs.required_keys if key not in saved and key not in self._keep]
        if missing:
            raise KeyError(
                f"parameter group {number} of the loaded state dict lacks {', '.join(map(repr, missing))}; "
                f"it has {_keys(saved)}. Is it of another optimizer?"
            )
        kept = {key: group[key] for key in group if key in self._keep}
        legacy = {key: value for key, value in self._needs.legacy_defaults.items() if key in group}
        for key, value in saved.items():
            if tensors.is_tensor(value):
                workspace.check_readable(value, f"the tensor given as {key} in parameter group {number}")
        loaded = {key: copy.deepcopy(value) for key, value in saved.items() if key != "params"}
        if loaded.get("param_names", ()) is None:
            del loaded["param_names"]
        for field in self._needs.fields:
            if field.key in loaded and is_foreign(loaded[field.key]):
                loaded[field.key] = _as_scalar(field.key, loaded[field.key], number)
        new = {**group, **legacy, **loaded, **kept, "params": list(group["params"])}
        if by_name:
            new["param_names"] = list(group["param_names"])
        self._check_ranges(number, new)
        return new

    def _own_names(self, saved: Mapping) -> Mapping:
        """A group with the optimizer's own keys. Where it has both names of one, the own counts."""
        names = {key: own for key, own in self._needs.other_names.items() if own not in saved}
        return {names.get(key, key): value for key, value in saved.items()}

    def _check_ranges(self, number: int, group: Group) -> None:
        try:
            hyper.row(self._needs.fields, group)
            hyper.check_refused(self._needs.refused, group)
            check_modes(group)
        except _ERRORS as error:
            raise _like(
                error, f"{_words(error)}, in parameter group {number} of the loaded state dict"
            ) from error

    # State.

    def _entries(self, saved_state: Mapping, params: Dict[Any, "_Target"]) -> List[Tuple[Any, Any]]:
        entries = []
        self._warn_of_strings(saved_state, params)
        for key, entry in saved_state.items():
            if isinstance(key, Tensor):
                raise TypeError(
                    "state_dict['state'] must be keyed by numbers, but got a Tensor: pass what "
                    "optimizer.state_dict() returned, not optimizer.state"
                )
            if key not in params:
                entries.append((key, copy.deepcopy(entry)))
                continue
            target = params[key]
            try:
                self._check_required(entry)
                entries.append((target.param, self._state.entry_of(target.param).checked_copy(entry)))
            except _ERRORS as error:
                raise _like(
                    error, f"loaded state dict, entry {key!r}, for {target}: {_words(error)}"
                ) from error
        return entries

    @staticmethod
    def _warn_of_strings(saved_state: Mapping, params: Dict[Any, "_Target"]) -> None:
        numbers = {str(key) for key in params if type(key) is int and key not in saved_state}
        found = sorted(key for key in saved_state if type(key) is str and key in numbers)
        if found:
            warn(
                f"state_dict['state'] has the string {found[0]!r} where a parameter has the number "
                f"{found[0]}, as after a way through JSON: the state of such parameters is not taken. Make "
                "the keys int."
            )

    def _check_required(self, entry: Any) -> None:
        if not isinstance(entry, Mapping):
            raise TypeError(f"the state of a parameter must be a mapping, but got {type_name(entry)}")
        if not any(key in entry for key in ("step", *self._needs.known_states)):
            return  # no state of ours yet; or only what the user keeps there
        missing = [name for name in self._needs.required_states if name not in entry]
        if missing:
            raise KeyError(
                f"lacks {', '.join(map(repr, missing))}; it has {_keys(entry)}. Is it of another optimizer?"
            )


class _Target(NamedTuple):
    """A parameter of the optimizer, and what to call it in an error."""

    param: Tensor
    group: int
    position: int
    name: Optional[str]

    def __str__(self) -> str:
        name = f"{self.name!r}, " if self.name is not None else ""
        return f"parameter {self.position} of group {self.group} ({name}shape {tuple(self.param.shape)})"


def _keys(keys: Iterable[Any]) -> List[str]:
    """Keys as an error shows them."""
    return sorted(str(printable(key)) for key in keys)


def _words(error: BaseException) -> Any:
    return error.args[0] if isinstance(error, KeyError) and error.args else error  # str() would quote it


def _like(error: BaseException, words: str) -> BaseException:
    """An error of the same kind that says more."""
    return next(kind for kind in _ERRORS if isinstance(error, kind))(words)


def check_mapping(state_dict: Any) -> None:
    """Raise unless this is a dict, of whatever."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict must be a dict, but got {type_name(state_dict)}")


def _parts(state_dict: Any) -> Tuple[List[Mapping], Mapping]:
    check_mapping(state_dict)
    for key in ("param_groups", "state"):
        if key not in state_dict:
            raise KeyError(
                f"state_dict lacks {key!r}; it has {_keys(state_dict)[:10]}. Pass what "
                "optimizer.state_dict() returned, such as checkpoint['optimizer']."
            )
    groups, state = state_dict["param_groups"], state_dict["state"]
    if not isinstance(state, Mapping):
        raise TypeError(f"state_dict['state'] must be a dict, but got {type_name(state)}")
    if not isinstance(groups, (list, tuple)):
        raise TypeError(f"state_dict['param_groups'] must be a list of dicts, but got {type_name(groups)}")
    for number, group in enumerate(groups):
        if not isinstance(group, Mapping):
            raise TypeError(
                f"state_dict['param_groups'][{number}] must be a dict, but got {type_name(group)}"
            )
        if not isinstance(group.get("params"), (list, tuple)):
            raise TypeError(
                f"state_dict['param_groups'][{number}]['params'] must be a list of numbers, but got "
                f"{type_name(group.get('params'))}"
            )
        if not all(isinstance(each, Hashable) for each in group["params"]):
            raise TypeError(f"state_dict['param_groups'][{number}]['params'] must be a list of numbers")
        if any(isinstance(each, Tensor) for each in group["params"]):
            raise TypeError(
                f"state_dict['param_groups'][{number}]['params'] must be a list of numbers, but "
                "got Tensors: pass what optimizer.state_dict() returned"
            )
        _check_names(number, group)
    return list(groups), state


def _check_names(number: int, group: Mapping) -> None:
    names = group.get("param_names")
    if names is None:
        return
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"state_dict['param_groups'][{number}]['param_names'] must be a list of str")
    if len(names) != len(group["params"]):
        raise ValueError(
            f"state_dict['param_groups'][{number}] has {len(names)} param_names for {len(group['params'])} "
            "params"
        )


def _names(groups: Sequence[Mapping]) -> Optional[List[str]]:
    """The names of all parameters; None if some have none."""
    for group in groups:
        if len(group.get("param_names") or ()) != len(group["params"]):
            return None
    return [name for group in groups for name in group.get("param_names") or ()]


def _name_at(group: Mapping, position: int) -> Optional[str]:
    names = group.get("param_names")
    return names[position] if names and position < len(names) else None


def _difference(saved: Mapping, group: Mapping) -> str:
    """Which names only one side has, where both have names."""
    theirs, ours = set(saved.get("param_names") or ()), set(group.get("param_names") or ())
    if not theirs or not ours or theirs == ours:
        return ""
    words = []
    for where, names in (("there", theirs - ours), ("here", ours - theirs)):
        if names:
            words.append(
                f"only {where}: {', '.join(sorted(names)[:5])}" + (", ..." if len(names) > 5 else "")
            )
    return f" ({'; '.join(words)})"


def _as_scalar(key: str, value: Any, number: int) -> Any:
    array = to_array(value, key)
    if array.size != 1:
        raise ValueError(
            f"Tensor {key} must be 1-element, but has shape {array.shape} in parameter group {number} of the "
            "loaded state dict"
        )
    return array.reshape(()).item()
