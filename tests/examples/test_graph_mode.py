# SPDX-License-Identifier: BSD-2-Clause
"""The captured training of the example learns what the eager one does."""

import re

import pytest

from tests.examples.running import needs_demo, png_size, run_example

pytestmark = needs_demo


def test_learns_the_same(tmp_path):
    plot = tmp_path / "plots" / "graph_mode.png"
    done = run_example("graph_mode.py", "--epochs", 3, "--output", plot, directory=tmp_path)
    assert done.returncode == 0, done.stderr
    eager, captured, faster, place = done.stdout.splitlines()
    assert done.stderr == ""

    def numbers(line):
        return [float(number) for number in re.findall(r"\d+\.\d+", line)]

    (eager_loss, eager_accuracy), (loss, accuracy) = numbers(eager), numbers(captured)
    assert accuracy > 0.9
    assert accuracy == pytest.approx(eager_accuracy, abs=0.012)
    assert loss == pytest.approx(eager_loss, rel=0.05)
    assert faster.startswith("captured is ")
    assert place == str(plot)
    width, height = png_size(plot)
    assert width > 1000
    assert height > 400
