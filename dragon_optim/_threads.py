# SPDX-License-Identifier: BSD-2-Clause
"""Threads that share an optimizer, as the actors of an A3C do, take turns."""

import os
import threading
from typing import Any


class OneAtATime:
    """A lock that its holder may take again, and that a forked child finds open.

    Dragon lets other threads run while a graph runs; two steps of one optimizer at once would end the
    process.
    """

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._lock = threading.RLock()
        self._process = os.getpid()

    def __enter__(self) -> None:
        if self._process != os.getpid():
            self._renew()  # whoever held it is not in this process
        self._lock.acquire()

    def __exit__(self, *error: Any) -> None:
        self._lock.release()
