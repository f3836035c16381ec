# SPDX-License-Identifier: BSD-2-Clause
"""How far the optimizers of a `GradScaler` are in an iteration: what it knows of them between two updates."""

import weakref
from typing import Any, List, Optional

READY, UNSCALED, STEPPED = "ready", "unscaled", "stepped"
NOTHING = "nothing"  # there was nothing to unscale


class Progress:
    """Where an optimizer is between two calls of `GradScaler.update`."""

    def __init__(self) -> None:
        self.stage = READY
        self.found: Optional[bool] = None  # whether a gradient is not finite; None: none was looked at
        self.skipped = False  # the last step; kept over `update`


class Iteration:
    """The progress of all optimizers, and what of it belongs to this iteration."""

    def __init__(self) -> None:
        self._progress: weakref.WeakKeyDictionary[Any, Progress] = weakref.WeakKeyDictionary()
        self._since_update: List[Progress] = []  # also of optimizers that are gone

    def progress_of(self, optimizer: Any) -> Progress:
        """The progress of an optimizer, which takes part from now on."""
        progress = self._progress.get(optimizer)
        if progress is None:
            progress = self._progress[optimizer] = Progress()
        if not any(each is progress for each in self._since_update):
            self._since_update.append(progress)
        return progress

    def was_skipped(self, optimizer: Any) -> bool:
        """Whether the last step of an optimizer was left out."""
        progress = self._progress.get(optimizer)
        return progress is not None and progress.skipped

    def found(self) -> Optional[bool]:
        """Whether a gradient of any optimizer was not finite; None: none was looked at."""
        looks = [each.found for each in self._since_update if each.found is not None]
        return any(looks) if looks else None

    def has_begun(self) -> bool:
        """Whether gradients were divided, or an optimizer was stepped."""
        return any(each.stage != READY for each in self._since_update)

    def end(self) -> None:
        """Begin the next one."""
        for each in self._since_update:
            each.stage, each.found = READY, None
        self._since_update.clear()
