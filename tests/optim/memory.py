# SPDX-License-Identifier: BSD-2-Clause
"""Counting what Dragon and the process keep."""

from __future__ import annotations

import gc
import os
from typing import NamedTuple

import numpy as np
from dragon.core.autograph import op_lib
from dragon.vm.torch.core.autograd import function

from dragon_optim._dragon import names
from tests.optim.support import feed_gradient, parameter

MEGABYTE = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")


def process_memory() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


def peak_of(call) -> int:
    """By how many bytes the process was larger than before, at most, during a call."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    before = process_memory()
    call()
    with open("/proc/self/status") as file:
        (peak,) = (int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
    return 1024 * peak - before


def kept(ws) -> dict:
    """Everything that Dragon keeps and could keep more of."""
    executors = (function.OpExec, op_lib.OpExec)
    return {
        "allocated": ws.memory_allocated(),
        "graphs": list(ws._impl.graphs),
        "operators": sum(
            len(op._config_cache) for each in executors for op in each._created_instances.values()
        ),
        "names": names.tensor_pool(ws).made,
    }


class Growth(NamedTuple):
    """What Dragon keeps before and after some calls, and by how many bytes the process has grown."""

    before: dict
    after: dict
    resident: int


def growth(ws, work, first: int, then: int, collect=False) -> Growth:
    """Call `work(i)` as often as it takes to come to rest, and then as often as is looked at.

    `collect` is for work that leaves cycles behind, which Python's collector may take at any time.
    """
    if collect:
        gc.collect()  # what other tests left: its names are used first, and each keeps its memory
    for i in range(first):
        work(i)
    if collect:
        gc.collect()
    before, resident = kept(ws), process_memory()
    for i in range(first, first + then):
        work(i)
    if collect:
        gc.collect()
    return Growth(before, kept(ws), process_memory() - resident)


def ones(*shape):
    return parameter(np.ones(shape))


def fed(*shape):
    param = ones(*shape)
    feed_gradient(param, np.ones(shape, "float32"))
    return param
