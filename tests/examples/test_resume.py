# SPDX-License-Identifier: BSD-2-Clause
"""The example of a training that is killed and goes on."""

import re

import pytest

from tests.examples.running import EXAMPLES, needs_demo, png_size, run_example, run_python

pytestmark = needs_demo

ROWS = ["parameters, statistics", "optimizer's states", "optimizer's groups", "random generator", "accuracy"]

# One checkpoint of a killed training, and what becomes of it with and without each of its parts.
FORGETTING = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
import signal
from pathlib import Path
import resume
from dragon_optim import checkpoint

killed = resume.Plan("killed", 2, Path("killed.pt"), dies_in=1)
assert resume.run(killed) == -signal.SIGKILL
for part in (None, *resume.FORGETTABLE):
    plan = resume.Plan("resumed", 2, Path("resumed.pt"), start_from=killed.save_to, forget=part)
    assert resume.run(plan) == 0
    print(part, resume.digest(checkpoint.load(plan.save_to)["model"]))
"""

# The comparison alone, as a training that fails takes as long as one that does not.
COMPARING = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
import copy
import numpy as np
import resume
from dragon.vm import torch

def contents(weight):
    history = dict(losses=[1.0, 0.5], accuracies=[0.5, 0.75])
    optimizer = dict(state={{0: dict(step=2)}}, param_groups=[dict(lr=0.1)])
    model = dict(weight=torch.tensor(np.array([0.5, weight])))
    parts = dict(model=model, optimizer=optimizer, generator=dict(state=1 << 100), history=history)
    return dict(epoch=2, batches=[0.7, 0.6], **parts)

alone, resumed = contents(1.0), contents(float(sys.argv.pop(1)))
killed = dict(contents(1.0), epoch=1, batches=[0.7], history=dict(losses=[1.0], accuracies=[0.5]))
resume.train_three_times = lambda *_: (alone, resumed, killed)
resume.main()
"""


def table(text):
    """Return the verdict of each row."""
    return dict(re.findall(r"^(.*?)  +\S+ +\S+ +(equal|DIFFERENT)$", text, flags=re.MULTILINE))


class TestResume:
    def test_ends_with_the_same_bits(self, tmp_path):
        plot = tmp_path / "plots" / "resume.png"
        done = run_example("resume.py", "--epochs", 2, "--output", plot, directory=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "killed in epoch 2, 5 batches after the checkpoint of epoch 1" in done.stdout
        assert table(done.stdout) == dict.fromkeys(ROWS, "equal")
        digests = re.findall(r"[0-9a-f]{16}", done.stdout)
        assert len(digests) == 2 * 4
        assert len(set(digests)) == 4
        assert f"plot: {plot}" in done.stdout
        assert done.stdout.splitlines()[-1] == "The resumed run ended with the bits of the one left alone."

        width, height = png_size(plot)
        assert width > 900
        assert height > 500
        assert plot.stat().st_size > 20_000

        for word in ("left alone", "killed", "resumed", "2/2", "loss=", "accuracy="):
            assert word in done.stderr  # the progress bars
        assert "Warning" not in done.stderr

    def test_needs_every_part_of_the_checkpoint(self, tmp_path):
        done = run_python("-c", FORGETTING, directory=tmp_path)
        assert done.returncode == 0, done.stderr
        digests = dict(line.split() for line in done.stdout.splitlines())
        assert list(digests) == ["None", "model", "optimizer", "generator"]
        assert len(set(digests.values())) == 4

    def test_fails_for_a_single_bit(self, tmp_path):
        done = run_python("-c", COMPARING, 1.0, directory=tmp_path)
        assert done.returncode == 0, done.stderr
        assert table(done.stdout) == dict.fromkeys(ROWS, "equal")
        assert png_size(tmp_path / "out" / "resume.png")

        done = run_python("-c", COMPARING, 1.0 + 2**-52, directory=tmp_path)
        assert done.returncode == 1
        assert table(done.stdout) == {**dict.fromkeys(ROWS, "equal"), ROWS[0]: "DIFFERENT"}
        assert "The resumed run differs from the one left alone." in done.stderr

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (("--epochs", 1), "at least two epochs are needed"),
            (("--forget", "epoch"), "invalid choice: 'epoch'"),
        ],
    )
    def test_refuses_what_cannot_be_compared(self, arguments, complaint, tmp_path):
        done = run_example("resume.py", *arguments, directory=tmp_path)
        assert done.returncode == 2
        assert complaint in done.stderr
