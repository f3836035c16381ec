# SPDX-License-Identifier: BSD-2-Clause
"""The native optimizer in a Dragon process group of two ranks."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tests import exact
from tests.optim.ranks import native
from tests.optim.test_process_group import Reports

pytestmark = pytest.mark.skipif(
    shutil.which("mpirun") is None, reason="mpirun (Debian: openmpi-bin) is not on the PATH"
)


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    return Reports(tmp_path_factory.mktemp("native"), "native")


@pytest.mark.parametrize("scenario", ["eager", "computed", "function"])
def test_gradients_are_averaged_before_clipping(reports, scenario):
    options = {"lr": 0.1, "momentum": 0.9, "clip_norm": 1.0, "alpha": 0.9}
    param, state = np.float32([1, 2, 3]), {}
    first, second = reports.of(scenario)
    assert first == second
    for step, (found, mean) in enumerate(first):
        expected_mean = (native.gradient(0, step) + native.gradient(1, step)) * np.float32(0.5)
        assert mean == expected_mean.tolist()
        param, state = exact.step(options, param, expected_mean, state)
        assert found == param.tolist()


def test_what_cannot_be_reduced_raises(reports):
    assert (
        reports.of("half")
        == [["apply_gradients() cannot reduce float16 gradients in a process group", [1.0]]] * 2
    )


def test_the_script_ends_well(reports):
    assert reports.ending == "exit code 0"
