# SPDX-License-Identifier: BSD-2-Clause
"""A loss scale in a process group: two real processes, under mpirun, that leave out steps together."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tests.optim.ranks import scaled
from tests.optim.support import feed_gradient
from tests.optim.test_process_group import Reports

pytestmark = pytest.mark.skipif(
    shutil.which("mpirun") is None, reason="mpirun (Debian: openmpi-bin) is not on the PATH"
)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return Reports(tmp_path_factory.mktemp("scaled"), "scaled")


def of_the_means(name) -> list:
    """What one process ends with that is given the means and no loss scale, for the steps that are done."""
    kind, options, _ = scaled.HOW[name]
    training = scaled.Training(**options)
    for step, overflows in enumerate(scaled.OVERFLOWS):
        if overflows:
            continue
        for place, param in enumerate(training.params):
            arrays = [scaled.gradient(step, rank, place, param.shape[0]) for rank in (0, 1)]
            if kind is scaled.Summing:
                arrays = [array + array / 2 for array in arrays]
            feed_gradient(param, (arrays[0] + arrays[1]) * np.float32(0.5))
        training.optimizer.step()
    return training.bits()


@pytest.mark.parametrize("name", scaled.HOW)
def test_ranks_leave_out_steps_together(ranks, name):
    """Whichever of them has the infinity. All scales are powers of two, so that no bit is lost by them."""
    for rank, found in enumerate(ranks.of(name)):
        assert found["steps"] == [list(each) for each in zip(scaled.SKIPPED, scaled.SCALES)], f"rank {rank}"
        assert found["bits"] == of_the_means(name), f"rank {rank}"


def test_a_rank_without_gradients(ranks):
    """It takes part; and where no rank has one, the step does nothing and is not left out."""
    first, second = ranks.of("missing")
    assert first == second
    assert first["steps"] == [[False, 1024.0]] * 2
    training = scaled.Training()
    for place, param in enumerate(training.params):
        feed_gradient(param, scaled.gradient(0, 0, place, param.shape[0]) * np.float32(0.5))
    training.optimizer.step()
    assert first["bits"] == training.bits()


def test_means_that_would_overflow_before_they_are_divided(ranks):
    training = scaled.Training()
    for param in training.params:
        feed_gradient(param, np.full(param.shape, 1.5, "float32"))
    training.optimizer.step()
    for found in ranks.of("large"):
        assert found == {"steps": [[False, 2.0**127]], "bits": training.bits()}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bad lr", "ValueError: Invalid learning rate: -1"),
        ("bad dtype", "ValueError: a gradient is int32 of shape"),
        ("no loss was scaled", "AssertionError: Attempted step but _scale is None."),
    ],
)
def test_an_error_on_one_rank_is_raised_on_both(ranks, name, message):
    first, second = (found[name] for found in ranks.of("errors"))
    assert first[0].startswith("RuntimeError: GradScaler.step(): another rank of the process group found an")
    assert second[0].startswith(message)
    assert first[1:] == second[1:]
    assert first[1]


def test_of_a_stock_optimizer_too(ranks):
    """The gradients of the other rank are not divided yet, and are once by the step that follows."""
    first, second = (found["bad dtype"] for found in ranks.of("errors of stock"))
    assert first[0].startswith("RuntimeError: GradScaler.step(): another rank of the process group found an")
    assert second[0].startswith("ValueError: a gradient is int32 of shape")
    assert first[1:] == second[1:]
    assert first[1]


def test_the_script_ends_well(ranks):
    assert ranks.ending == "exit code 0"
