# SPDX-License-Identifier: BSD-2-Clause
"""Counting what Dragon and the process keep."""

from __future__ import annotations

import os

import numpy as np
from dragon.core.autograph import op_lib
from dragon.vm.torch.core.autograd import function

from dragon_optim._dragon import names
from tests.optim import feed_gradient, make_parameter

MEGABYTE = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")


def process_memory() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


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


def ones(*shape):
    return make_parameter(np.ones(shape, "float32"))


def fed(*shape):
    param = ones(*shape)
    feed_gradient(param, np.ones(shape, "float32"))
    return param
