# SPDX-License-Identifier: BSD-2-Clause
"""Reading the state dict of a scheduler, ours or PyTorch's, all checks first."""

import types
from typing import Any, Dict, List, Mapping, Optional

import numpy

from dragon_optim.lr_scheduler.arguments import number
from dragon_optim.parameters import brief, type_name

_LISTS_OF_RATES = ("base_lrs", "_last_lr")


def check_mapping(state_dict: Any) -> None:
    """Raise unless this is a dict with strings as keys."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict must be a dict, but got {type_name(state_dict)}")
    for key in state_dict:
        if not isinstance(key, str):
            raise TypeError(f"the keys of state_dict must be strings, but one is {brief(key)}")


def attributes(scheduler: Any, state_dict: Mapping[str, Any]) -> Dict[str, Any]:
    """Return what a state dict makes of a scheduler's attributes. Raise for what does not belong to it."""
    check_mapping(state_dict)
    kind = type(scheduler)
    required = [key for base in kind.__mro__ for key in vars(base).get("_state_keys", ())]
    missing = sorted({key for key in required if key in vars(scheduler) and key not in state_dict})
    if missing:
        raise KeyError(
            f"the state dict lacks {', '.join(map(repr, missing))}, which {kind.__name__} needs: it is of "
            "another scheduler, or damaged"
        )
    taken = {}
    for key, value in state_dict.items():
        own = getattr(kind, key, None)
        if key in kind._not_saved or callable(own) or isinstance(own, property):
            raise ValueError(f"the state dict has the key {key!r}, which is no state of {kind.__name__}")
        taken[key] = _fitting(scheduler, key, value, key in required)
    for key in kind._per_group:
        given = taken.get(key)
        if isinstance(given, list) and len(given) != len(scheduler.optimizer.param_groups):
            raise ValueError(
                f"{key} of the state dict has {len(given)} values, and the optimizer "
                f"{len(scheduler.optimizer.param_groups)} groups: add the groups before you load"
            )
    return taken


def _fitting(scheduler: Any, key: str, value: Any, is_required: bool) -> Any:
    if key in _LISTS_OF_RATES:
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"{key} of the state dict must be a list of numbers, but is {brief(value)}")
        return [number(f"{key} of the state dict", each) for each in value]
    if key == "last_epoch":
        return number("last_epoch of the state dict", value)  # a scheduler that waits in another has -2
    if not is_required or key not in vars(scheduler):
        return _own(value)
    here = vars(scheduler)[key]
    if _kind(here) != _kind(value):
        wanted = _WORDS.get(_kind(here), type_name(here))
        raise TypeError(f"{key} of the state dict must be {wanted}, but is {brief(value)}")
    if _kind(here) == "number":
        return number(f"{key} of the state dict", value)
    return _own(value)


_WORDS = {"number": "a number", "list": "a list", "dict": "a dict", "str": "a string"}


def _kind(value: Any) -> str:
    if isinstance(value, (bool, numpy.bool_)):
        return "bool"
    if isinstance(value, (int, float, numpy.number)):
        return "number"
    for kind in (list, dict, str):
        if isinstance(value, kind):
            return kind.__name__
    return type(value).__name__


def _own(value: Any) -> Any:
    """A container of our own: the user's may change."""
    if type(value) is list:
        return [_own(each) for each in value]
    if type(value) is dict:
        return {key: _own(each) for key, each in value.items()}
    return value


# Functions that a scheduler was given are code, and not saved. The attributes of callable objects are state.


def saved_function(function: Any) -> Optional[Dict[str, Any]]:
    """Return the attributes of a callable object; None for a function, which has none that count."""
    if isinstance(function, (types.FunctionType, type)):
        return None
    found = getattr(function, "__dict__", None)
    return None if found is None else dict(found)


def check_functions(key: str, functions: List[Any], saved: Any) -> None:
    """Raise unless each of these is None, or a dict of attributes for the function at its place."""
    if not isinstance(saved, (list, tuple)) or len(saved) != len(functions):
        raise ValueError(
            f"{key} of the state dict must be a list of {len(functions)} entries, one for each function, but "
            f"is {brief(saved)}"
        )
    for function, each in zip(functions, saved):
        if each is None:
            continue
        if not isinstance(each, dict) or not all(isinstance(name, str) for name in each):
            raise TypeError(f"{key} of the state dict must hold None or dicts, but holds {brief(each)}")
        if not hasattr(function, "__dict__"):
            raise ValueError(
                f"{key} of the state dict holds attributes for {brief(function)}, which can have none"
            )


def load_functions(functions: List[Any], saved: Any) -> None:
    """Give the callable objects their attributes."""
    for function, each in zip(functions, saved):
        if each is not None:
            vars(function).update(each)
