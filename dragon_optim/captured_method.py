# SPDX-License-Identifier: BSD-2-Clause
"""`capture` as the decorator of a method: what an object's attribute is then."""

import functools
import weakref
from typing import Any, Callable


class BoundMethod:
    """A method of an object that it does not keep alive."""

    def __init__(self, fn: Callable[..., Any], reference: "weakref.ref[Any]") -> None:
        functools.update_wrapper(self, fn)
        self._fn = fn
        self._reference = reference

    def __repr__(self) -> str:
        return f"method {self._fn.__qualname__} of {self._reference()!r}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it, as long as the object lives."""
        return self._fn(self._reference(), *args, **kwargs)


class CapturedMethod:
    """A `CapturedFunction` of an object's method, and the object."""

    def __init__(self, instance: Any, fn: Callable[..., Any], captured: Any) -> None:
        functools.update_wrapper(self, captured, updated=())
        self.__self__ = instance
        self.__wrapped__ = functools.partial(fn, instance)
        self._captured = captured

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run a step; see `CapturedFunction`."""
        return self._captured(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._captured, name)

    def __repr__(self) -> str:
        return repr(self._captured)
