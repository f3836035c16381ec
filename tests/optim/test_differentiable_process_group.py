# SPDX-License-Identifier: BSD-2-Clause
"""Recorded steps in a Dragon process group: two real processes, under mpirun."""

from __future__ import annotations

import shutil

import pytest

from tests.optim.ranks import recorded
from tests.optim.test_process_group import Reports

pytestmark = pytest.mark.skipif(shutil.which("mpirun") is None, reason="there is no mpirun on the PATH")


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    return Reports(tmp_path_factory.mktemp("recorded"), "recorded")


def test_a_step_goes_from_the_mean(reports):
    expected = recorded.unrolled(lambda step: 2.0 * (step + 1))
    assert reports.of("unrolled") == [expected, expected]


def test_expressions_are_refused(reports):
    for message, numbers in reports.of("given"):
        assert "gradients cannot be averaged in a process group" in message
        assert numbers == [1.0, 1.0, 1.0]
