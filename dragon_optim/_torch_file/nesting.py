# SPDX-License-Identifier: BSD-2-Clause
"""A walk through nested containers: where it is, what it has been through, and how deep it may go.

Nothing here recurses. What is deeper than `MAX_DEPTH`, or contains itself, is refused when it is saved and
when it is loaded: code that walks the result by recursion would end in a RecursionError, or never.
"""

from typing import Any, Callable, Dict, Iterator, List, Optional, Type

MAX_DEPTH = 500
MAX_SPARSE_KEYS = 1 << 14
_PLACE_LENGTH = 200
KEY_TYPES = (str, int, float, bool, type(None))


def go_through(root: Any, values_of: Callable[[Any], Optional[Iterator[Any]]]) -> None:
    """Call `values_of` with a value, and with all that stands in it, depth first.

    It returns the values of a container, which may come from a generator that works in between; None for
    anything else.
    """
    open_containers: List[Iterator[Any]] = [iter([root])]
    while open_containers:
        for value in open_containers[-1]:
            values = values_of(value)
            if values is not None:
                open_containers.append(values)
                break
        else:
            open_containers.pop()


class _Level:
    """One container on the way from the root to here."""

    __slots__ = ("container", "height", "step")

    def __init__(self, container: Any) -> None:
        self.container = container
        self.height = 1
        self.step = ""


class Walk:
    """Bookkeeping of a depth-first walk. The caller does the walking."""

    def __init__(self, root: str, error: Type[ValueError]) -> None:
        self._root = root
        self._error = error
        self._levels: List[_Level] = []
        self._heights: Dict[int, int] = {}  # 0 while the walk is inside
        self._kept: List[Any] = []  # an id is good as long as the object lives

    def path(self) -> str:
        """The place of the current value, as Python would write it."""
        return self._place(len(self._levels))

    def inside(self) -> str:
        """The place of the current container."""
        return self._place(len(self._levels) - 1)

    def _place(self, levels: int) -> str:
        # Short: there may be many of them, each hundreds of levels deep.
        place = self._root
        for i in range(levels):
            place += self._levels[i].step
            if len(place) > _PLACE_LENGTH:
                return place[: _PLACE_LENGTH - 3] + "..."
        return place

    def step(self, step: str) -> None:
        """Go on to another value of the current container."""
        self._levels[-1].step = step

    def enter(self, container: Any) -> bool:
        """Go into a container. Return False, and stay outside, where the walk has been through it before."""
        known = self._heights.get(id(container))
        if known == 0:
            raise self._error(f"{self.path()} contains itself, which is not supported.")
        if len(self._levels) + (known or 1) > MAX_DEPTH:
            raise self._error(
                f"{self._root} is nested more than {MAX_DEPTH} levels deep, which is not supported."
            )
        if known is not None:
            self._raise_height(known)
            return False
        self._heights[id(container)] = 0
        self._kept.append(container)
        self._levels.append(_Level(container))
        return True

    def leave(self) -> None:
        """Come out of the current container."""
        level = self._levels.pop()
        self._heights[id(level.container)] = level.height
        self._raise_height(level.height)

    def _raise_height(self, height: int) -> None:
        # Of the levels above only the last: it tells its own when it is left.
        if self._levels:
            self._levels[-1].height = max(self._levels[-1].height, height + 1)


class Keys:
    """Which keys a dict may have.

    Numbers can be chosen so that each insertion goes through all the entries before it: the hash of a number
    is no secret. Strings and bytes are hashed with a random key. Of ints that lie close together, and of
    those in equal steps, few meet. Of all others there may be so many that even the worst take no time.
    """

    __slots__ = ("_ints", "_last", "_sparse", "_step")

    def __init__(self) -> None:
        self._ints = 0
        self._last = 0
        self._step: Optional[int] = None
        self._sparse = 0

    def problem(self, key: Any) -> str:
        """Return what is wrong with one more key of `KEY_TYPES` or bytes; '' if it may be used."""
        kind = type(key)
        if kind in (str, bytes):
            return ""
        if kind is int and not -(2**63) <= key < 2**63:
            return "is an int of more than 64 bits, which cannot be a key"
        if kind is int and self._is_harmless(key):
            return ""
        if kind is float and key != key:
            return "is not a number, and would never be found again"
        self._sparse += 1
        if self._sparse > MAX_SPARSE_KEYS:
            return (
                f"is one of more than {MAX_SPARSE_KEYS} that are neither strings nor ints that count up from "
                "0 or in equal steps"
            )
        return ""

    def _is_harmless(self, key: int) -> bool:
        step, self._step, self._last = self._step, key - self._last, key
        self._ints += 1
        return 0 <= key < 4 * (self._ints + 255) or self._step == step
