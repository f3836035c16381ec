# SPDX-License-Identifier: BSD-2-Clause
"""Standing in front of methods of Dragon's classes while something is recorded.

Classes are shared by all threads, and several may record at once, each in its own workspace. So the first
recorder puts the wrappers in, the last takes them out, and each call finds the recorder of its thread.
"""

import functools
import threading
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Tuple


class Wrapper(NamedTuple):
    """What stands in front of a method, or of the getter of a property."""

    owner: Any
    method: str
    function: Callable[..., Any]  # called with the recorder, the method, and its arguments
    static: bool = False


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
    owner, name = wrapper.owner, wrapper.method
    old: Any = owner.__dict__.get(name)  # None where a base class has it
    original: Any = old.fget if isinstance(old, property) else getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        recorder = _recorders.get(threading.get_ident())
        if recorder is None:
            return original(*args, **kwargs)
        return wrapper.function(recorder, original, *args, **kwargs)

    _put_in.append((owner, name, old))
    if isinstance(old, property):
        setattr(owner, name, property(wrapped))
    else:
        setattr(owner, name, staticmethod(wrapped) if wrapper.static else wrapped)
