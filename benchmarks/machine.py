# SPDX-License-Identifier: BSD-2-Clause
"""What the numbers depend on: the machine, the versions."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path
from typing import Sequence

import numpy as np
from dragon import version as dragon_version

import dragon_optim
from dragon_optim._dragon import library

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _field(path: str, name: str) -> str:
    """A line `name : value` of a file of /proc."""
    found = re.search(rf"^{re.escape(name)}\s*:\s*(.*)$", _read(path), re.MULTILINE)
    return found.group(1) if found else "unknown"


def caches() -> list[str]:
    """Those of the first CPU: level, kind, size."""
    found = []
    for folder in sorted(CACHES.glob("index*")):
        level, kind, size = (_read(str(folder / name)) for name in ("level", "type", "size"))
        found.append(f"L{level} {kind.lower()} {size}")
    return found


def available_memory() -> int | None:
    """Bytes that can be had without swapping; None where nobody says."""
    found = re.match(r"(\d+) kB", _field("/proc/meminfo", "MemAvailable"))
    return int(found.group(1)) << 10 if found else None


def _busy_seconds() -> float:
    """CPU time of all programs since the machine was started, and what other machines took from it."""
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, _read("/proc/stat").split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _seconds_of(process: int) -> float:
    """CPU time of a process, and of its children that have ended."""
    fields = _read(f"/proc/{process}/stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


class OtherPrograms:
    """How much other programs computed while `processes` measured."""

    def __init__(self, processes: Sequence[int]) -> None:
        self._processes = processes
        self._begin = self._now()

    def _now(self) -> tuple[float, float]:
        return time.monotonic(), _busy_seconds() - sum(map(_seconds_of, self._processes))

    def cpus(self) -> float:
        """The number of CPUs that they kept busy, on average."""
        begin, busy = self._begin
        now, busy_now = self._now()
        return round(max(0.0, (busy_now - busy) / (now - begin)), 2)


def machine() -> dict[str, object]:
    return {
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cpus": len(os.sched_getaffinity(0)),
        "caches": caches(),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "huge pages": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "platform": platform.platform(),
        "instruction set": library.instruction_set(),
    }


def versions() -> dict[str, str]:
    return {
        "dragon_optim": dragon_optim.__version__,
        "dragon": dragon_version.version,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "compiler": library.build_info()["compiler"],
    }
