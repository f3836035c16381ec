# SPDX-License-Identifier: BSD-2-Clause
"""What a rank must find before it agrees to a step: afterwards the others have moved."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from dragon_optim._dragon import collective
from tests.optim.test_process_group import Reports

needs_mpirun = pytest.mark.skipif(
    shutil.which("mpirun") is None, reason="mpirun (Debian: openmpi-bin) is not on the PATH"
)


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    return Reports(tmp_path_factory.mktemp("late"), "late")


@needs_mpirun
@pytest.mark.parametrize(
    ("scenario", "raised"),
    [
        ("wrong-state", ["ValueError", "RuntimeError"]),
        ("wrong-dtype", ["ValueError", "RuntimeError"]),
        ("interrupted", ["KeyboardInterrupt", "RuntimeError"]),
    ],
)
def test_both_ranks_raise_and_neither_has_moved(late, scenario, raised):
    """The wrong parameter of rank 0 has its gradient on rank 1 only; or rank 0 was interrupted."""
    assert late.of(scenario) == [[each, True] for each in raised]


@needs_mpirun
def test_the_script_ends_well(late):
    assert late.ending == "exit code 0"


@pytest.mark.parametrize(("ranks", "takes_part"), [([0, 1], True), ([1, 2], False), ([0], False)])
def test_a_rank_outside_of_the_group_steps_alone(monkeypatch, ranks, takes_part):
    """MPI would end the process of a rank that enters a collective of a group it is none of."""
    group = SimpleNamespace(size=len(ranks), ranks=ranks)
    monkeypatch.setattr(
        collective, "distributed", SimpleNamespace(get_group=lambda: group, get_rank=lambda: 0)
    )
    assert (collective.group() is group) == takes_part
