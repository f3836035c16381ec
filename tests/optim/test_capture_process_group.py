# SPDX-License-Identifier: BSD-2-Clause
"""Captured functions where Dragon's process groups are: two real processes, under mpirun."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tests.optim.test_process_group import Reports

pytestmark = pytest.mark.skipif(shutil.which("mpirun") is None, reason="there is no mpirun on the PATH")


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    return Reports(tmp_path_factory.mktemp("captured"), "captured")


@pytest.mark.parametrize("where", ["around", "inside"])
@pytest.mark.parametrize("kind", ["ours", "stock"])
def test_in_a_group_it_runs_eagerly_and_warns_once(reports, kind, where):
    eager, captured = (reports.of(f"{kind} {how} {where}") for how in ("eager", "captured"))
    for one, other in zip(eager, captured):
        assert "error" not in other, other
        np.testing.assert_allclose(one["weight"], other["weight"], rtol=1e-6)
        np.testing.assert_allclose(one["losses"], other["losses"], rtol=1e-5, atol=1e-6)
        assert other["replays"] == 0
        assert ["process group" in text for text in other["warnings"]] == [True]
    assert captured[0]["weight"] == captured[1]["weight"]


def test_a_group_of_one_rank_is_none(reports):
    assert [each["replays"] for each in reports.of("alone")] == [5, 5]
    assert [each["warnings"] for each in reports.of("alone")] == [[], []]


def test_a_group_that_comes_and_goes(reports):
    for each in reports.of("comes and goes"):
        assert each == {"replays": 5, "step": 9}
