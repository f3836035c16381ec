# SPDX-License-Identifier: BSD-2-Clause
"""What the arguments of schedulers may be: numbers, counts, and one value for each group."""

import math
from typing import Any, List

import numpy

from dragon_optim import hyper
from dragon_optim.parameters import printable


def plain(key: str, value: Any) -> Any:
    """Return a number as Python's: an int or a float as it is, and a float for a tensor or an array."""
    if type(value) in (int, float):
        return value
    if isinstance(value, (bool, numpy.bool_)):
        return int(value)
    return hyper.as_number(key, value)


def number(key: str, value: Any) -> Any:
    """Return an argument that may be any number but NaN."""
    value = plain(key, value)
    if math.isnan(value):
        raise ValueError(f"Invalid {key} value: {value} (need a number)")
    return value


def above(key: str, value: Any, least: float) -> Any:
    """Return an argument that must be greater than `least`."""
    value = number(key, value)
    if not value > least:
        raise ValueError(f"Invalid {key} value: {value} (need {key} > {least:g})")
    return value


def at_least(key: str, value: Any, least: float) -> Any:
    """Return an argument that must be `least` or more."""
    value = number(key, value)
    if not value >= least:
        raise ValueError(f"Invalid {key} value: {value} (need {key} >= {least:g})")
    return value


def epoch(value: Any, key: str = "last_epoch") -> int:
    """Return the number of an epoch, which is an integer, -1 before the first."""
    if isinstance(value, numpy.integer):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{key} must be an integer, but got {printable(value)!r:.100}")
    if value < -1:
        raise ValueError(f"Invalid {key} value: {value} (need {key} >= -1)")
    return value


def for_each_group(key: str, optimizer: Any, values: Any) -> List[Any]:
    """Return one number for each group, of one for all or of a list of them."""
    count = len(optimizer.param_groups)
    if not isinstance(values, (list, tuple)):
        return [number(key, values)] * count
    if len(values) != count:
        raise ValueError(
            f"{key} must have the same length as optimizer.param_groups. {key} has {len(values)} values, "
            f"param_groups has {count}."
        )
    return [number(key, each) for each in values]


def check_optimizer(optimizer: Any) -> None:
    """Raise unless this is an optimizer: it has groups and steps."""
    groups = getattr(optimizer, "param_groups", None)
    if (
        isinstance(optimizer, type)
        or not isinstance(groups, (list, tuple))
        or not callable(getattr(optimizer, "step", None))
    ):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer: it lacks param_groups, or step()")
    for place, group in enumerate(groups):
        if not isinstance(group, dict):
            raise TypeError(f"param_groups[{place}] must be a dict, but got {type(group).__name__}")
        if "lr" not in group:
            raise KeyError(f"param_groups[{place}] lacks 'lr'; set it")
