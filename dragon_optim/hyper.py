# SPDX-License-Identifier: BSD-2-Clause
"""Hyper-parameters: what a group may hold, its range, and the row of numbers that an operator reads."""

import math
from typing import Any, Dict, Iterable, NamedTuple, Optional, Sequence, Tuple, Union

import numpy

from dragon_optim._dragon import tensors, workspace
from dragon_optim.parameters import printable

# What Python's float() takes all the same: text, and numpy's complex numbers without their imaginary part.
_NO_NUMBERS = (str, bytes, bytearray, memoryview, numpy.complexfloating)


def as_number(key: str, value: Any) -> float:
    """Return a hyper-parameter as a float: a number, or an array or Dragon tensor of one element."""
    if isinstance(value, numpy.ndarray):
        value = _element(key, value)  # a tensor, perhaps
    if tensors.is_tensor(value):
        workspace.check_tensor(value, workspace.current(), f"the tensor given as {key}")
        value = _element(key, value.numpy())
    if isinstance(value, _NO_NUMBERS):
        raise TypeError(f"{key} must be a number, but got {value!r} of type {type(value).__name__}")
    try:
        return float(value)
    except OverflowError as error:
        raise OverflowError(f"{key} is too large for a float: {value!r:.40}") from error
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{key} must be a number, but got {printable(value)!r} of type {type(value).__name__}"
        ) from error


def _element(key: str, array: numpy.ndarray) -> Any:
    if array.size != 1:
        raise ValueError(f"Tensor {key} must be 1-element, but has shape {tuple(array.shape)}")
    return array.reshape(()).item()


def as_mode(key: str, value: Any) -> Optional[bool]:
    """Return PyTorch's ``foreach`` or ``differentiable``: None, True or False."""
    if value is None or value is True or value is False:
        return value
    try:
        number = as_number(key, value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    if number not in (0, 1):
        raise ValueError(f"Invalid {key} value: {printable(value)} (need None, True or False)")
    return bool(number)


class Number(NamedTuple):
    """A hyper-parameter that is a number, with PyTorch's words for it."""

    key: str
    words: str
    least: float = 0.0

    def check(self, value: Any) -> float:
        """Return the number, or raise what PyTorch raises."""
        number = value if type(value) is float else as_number(self.key, value)
        if not number >= self.least:  # also refuses NaN
            need = "a number" if self.least == -math.inf else f"{self.key} >= {self.least:g}"
            raise ValueError(f"Invalid {self.words}: {value} (need {need})")
        return number


class Flag(NamedTuple):
    """A hyper-parameter that is true or false."""

    key: str

    def check(self, value: Any) -> float:
        """Return 1.0 or 0.0. A number is taken as PyTorch takes it: anything but 0 is true."""
        if value is True or value is False or isinstance(value, numpy.bool_):
            return float(value)
        number = as_number(self.key, value)
        if math.isnan(number):
            raise ValueError(f"Invalid {self.key} value: {value} (need True or False)")
        return float(number != 0)


class Refused(NamedTuple):
    """A flag that other optimizers of the same name have, and this one only as False."""

    key: str
    remedy: str

    def check(self, value: Any) -> None:
        """Raise unless the flag is off."""
        if Flag(self.key).check(value):
            raise ValueError(f"Invalid {self.key} value: {value} (need False: {self.remedy})")


Field = Union[Number, Flag]

_IMMUTABLE = {float, int, bool, type(None)}


def row(fields: Sequence[Field], group: Dict[str, Any]) -> Tuple[float, ...]:
    """Return the numbers of a group in the order of `fields`, or raise for the first that is wrong."""
    return tuple(field.check(group[field.key]) for field in fields)


def check_refused(fields: Iterable[Refused], group: Dict[str, Any]) -> None:
    """Raise if a group switches on what there is not."""
    for field in fields:
        if field.key in group:
            field.check(group[field.key])


def are_immutable(values: Iterable[Any]) -> bool:
    """Whether all are of types that cannot change in place: the same object is then the same value."""
    return set(map(type, values)) <= _IMMUTABLE
