# SPDX-License-Identifier: BSD-2-Clause
"""Whether the optimizer has made a step before its scheduler makes one.

PyTorch puts a ``step`` of its own into the optimizer to find out. Here optimizers count: those of this
package, Dragon's own, and both inside captured functions, which a replaced ``step`` would keep from being
replayed. Of other objects with ``param_groups`` nothing is known, and nothing is said.
"""

import contextlib
import threading
from typing import Any, Iterator, Optional

from dragon_optim._dragon import stock
from dragon_optim._warnings import warn

_SEEN = -1  # less than any count

_WRONG_ORDER = (
    "Detected call of `lr_scheduler.step()` before `optimizer.step()`: the first value of the schedule was "
    "never used. Call optimizer.step() first, and leave out both where a step is left out."
)
_OVERRIDDEN = (
    "Seems like `optimizer.step()` has been overridden after learning rate scheduler initialization, and no "
    "step of the optimizer was seen since. Call optimizer.step() before lr_scheduler.step()."
)


class _Silence(threading.local):
    depth = 0


_silence = _Silence()


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Warn of nothing: a scheduler makes others begin."""
    _silence.depth += 1
    try:
        yield
    finally:
        _silence.depth -= 1


class StepWatch:
    """The steps of an optimizer since a scheduler was made."""

    def __init__(self, optimizer: Any) -> None:
        self._before = stock.steps_done(optimizer) or 0
        self._had_own_step = "step" in _attributes(optimizer)

    def has_stepped(self, optimizer: Any) -> Optional[bool]:
        """Whether there was one. None where that cannot be known."""
        done = stock.steps_done(optimizer)
        return None if done is None else done > self._before

    def check(self, optimizer: Any) -> None:
        """Warn if there was none."""
        if _silence.depth or self.has_stepped(optimizer) is not False:
            return
        replaced = "step" in _attributes(optimizer) and not self._had_own_step
        warn(_OVERRIDDEN if replaced else _WRONG_ORDER)

    def of_a_copy(self, optimizer: Any) -> "StepWatch":
        """Return the same for a copy of the scheduler and of its optimizer, which counts from 0 again."""
        copy = object.__new__(type(self))
        copy._before = _SEEN if self.has_stepped(optimizer) else 0
        copy._had_own_step = False
        return copy


def _attributes(optimizer: Any) -> Any:
    return getattr(optimizer, "__dict__", {})
