# SPDX-License-Identifier: BSD-2-Clause
"""Surroundings that tests of memory need, and the ways in which optimizers are copied."""

from __future__ import annotations

import gc

import dragon
import pytest
from dragon.core.framework import workspace

from tests.optim.copied import WAYS


@pytest.fixture
def ws():
    """A workspace of its own for each test: what other tests left behind is not counted.

    Behind more than 16384 dead parameters, as after some thousand tests in one process, each result of an
    operator gets a used name, and its memory is kept for a while.
    """
    with dragon.Workspace().as_default():
        yield workspace.get_workspace()


@pytest.fixture
def no_collector():
    """Without Python's collector, what is freed is freed at the last reference."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(params=WAYS)
def way(request):
    """How a copy is made."""
    return WAYS[request.param]
