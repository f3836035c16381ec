# SPDX-License-Identifier: BSD-2-Clause
"""Standing in front of methods of Dragon's classes while something is recorded.

Classes are shared by all threads, and several may record at once, each in its own workspace. So the first
recorder puts the wrappers in, the last takes them out, and each call finds the recorder of its thread.
"""

import functools
import threading
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Tuple


class Wrapper(NamedTuple):
    """What stands in front of a method, of the getter or setter of a property, or of an attribute.

    In front of an attribute of objects it is called with the recorder and the object, before each access.
    """

    owner: Any
    method: str
    function: Callable[..., Any]  # called with the recorder, the method, and its arguments
    kind: str = "method"  # or: static, getter, setter, attribute


_recorders: Dict[int, Any] = {}  # by thread
_turn = threading.Lock()
_put_in: List[Tuple[Any, str, Any]] = []  # class, name, what stood there


def put_in(recorder: Any, wrappers: Iterable[Wrapper]) -> None:
    """Let the calls of this thread go through the recorder."""
    with _turn:
        if not _recorders:
            for each in wrappers:
                _wrap(each)
        _recorders[threading.get_ident()] = recorder


def take_out() -> None:
    """The recorder of this thread closes."""
    with _turn:
        _recorders.pop(threading.get_ident(), None)
        while _put_in and not _recorders:
            owner, name, old = _put_in.pop()
            if old is None:
                delattr(owner, name)
            else:
                setattr(owner, name, old)


def _wrap(wrapper: Wrapper) -> None:
    if wrapper.kind == "attribute":
        _put_in.append((wrapper.owner, wrapper.method, wrapper.owner.__dict__.get(wrapper.method)))
        setattr(wrapper.owner, wrapper.method, _watched_attribute(wrapper))
        return
    owner, name = wrapper.owner, wrapper.method
    old: Any = owner.__dict__.get(name)  # None where a base class has it
    original: Any
    if wrapper.kind == "getter":
        original = old.fget
    elif wrapper.kind == "setter":
        original = old.fset
    else:
        original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        recorder = _recorders.get(threading.get_ident())
        if recorder is None:
            return original(*args, **kwargs)
        return wrapper.function(recorder, original, *args, **kwargs)

    _put_in.append((owner, name, old))
    new: Any = wrapped
    if wrapper.kind == "static":
        new = staticmethod(wrapped)
    elif wrapper.kind != "method":
        new = getattr(old, wrapper.kind)(wrapped)
    setattr(owner, name, new)


def _watched_attribute(wrapper: Wrapper) -> property:
    """Return what an access to an attribute goes through; the objects keep its value where it was."""
    name = wrapper.method

    def touch(owner: Any) -> Any:
        recorder = _recorders.get(threading.get_ident())
        if recorder is not None:
            wrapper.function(recorder, owner)
        return vars(owner)

    def read(owner: Any) -> Any:
        try:
            return touch(owner)[name]
        except KeyError:
            raise AttributeError(name) from None

    def write(owner: Any, value: Any) -> None:
        touch(owner)[name] = value

    return property(read, write)
