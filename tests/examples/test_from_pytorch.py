# SPDX-License-Identifier: BSD-2-Clause
"""The example that continues a training of PyTorch."""

import os
import shutil
import subprocess

import numpy as np
import pytest

from dragon_optim import checkpoint
from tests.examples.running import EXAMPLES, needs_examples, run_example

pytestmark = needs_examples

FOLDER = EXAMPLES / "from_pytorch"
FILES = ("checkpoint.pt", "recorded.npz")
VARIABLE = "DRAGON_OPTIM_TORCH_PYTHON"
PARAMETERS = ["0.weight", "0.bias", "2.weight", "2.bias"]


def continue_in_dragon(*arguments, directory):
    return run_example("from_pytorch/continue_in_dragon.py", *arguments, directory=directory)


def verdicts(text):
    """Return the last word of each parameter's row."""
    words = [line.split() for line in text.splitlines()]
    return {row[0]: row[-1] for row in words if row[0] in PARAMETERS}


class TestContinueInDragon:
    def test_arrives_at_pytorchs_parameters(self, tmp_path):
        done = continue_in_dragon(directory=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = done.stdout.splitlines()
        assert lines[0].startswith("epochs 6 to 8, with the gradients of PyTorch 2.13.0")
        assert verdicts(done.stdout) == dict.fromkeys(PARAMETERS, "equal")
        assert "at most 2 are allowed" in done.stdout
        assert lines[-2] == "checkpoint for PyTorch: out/from_pytorch_continued.pt"
        assert lines[-1] == "The training went on in Dragon, and ended with PyTorch's parameters."

    def test_writes_a_whole_checkpoint(self, tmp_path):
        output = tmp_path / "sub" / "folder" / "continued.pt"
        done = continue_in_dragon("--output", output, directory=tmp_path)
        assert done.returncode == 0, done.stderr
        contents, recorded = checkpoint.load(output), np.load(FOLDER / "recorded.npz")
        assert contents["epoch"] == 8
        assert list(contents["model"]) == PARAMETERS
        for name, tensor in contents["model"].items():
            np.testing.assert_array_equal(tensor.numpy(), recorded[f"final, correctly rounded roots/{name}"])
        optimizer = contents["optimizer"]
        assert [entry["step"] for entry in optimizer["state"].values()] == [80] * 4
        assert {len(entry) for entry in optimizer["state"].values()} == {4}
        assert [group["initial_lr"] for group in optimizer["param_groups"]] == [3e-3, 1e-3]
        assert [group["lr"] for group in optimizer["param_groups"]] == [3e-3 * 0.9**7, 1e-3 * 0.9**7]
        assert [group["weight_decay"] for group in optimizer["param_groups"]] == [1e-4, 0]
        assert all(group["centered"] for group in optimizer["param_groups"])

    @pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} names no Python that has torch")
    def test_pytorch_opens_it(self, tmp_path):
        assert continue_in_dragon(directory=tmp_path).returncode == 0
        command = [os.environ[VARIABLE], FOLDER / "record.py", "--check"]
        output = tmp_path / "out" / "from_pytorch_continued.pt"
        done = subprocess.run([*command, output], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "epoch 8, the recorded parameters; step counts one step later: [81, 81, 81, 81]" in done.stdout

        done = subprocess.run([*command, FOLDER / "checkpoint.pt"], capture_output=True, text=True)
        assert done.returncode == 1
        assert "not the recorded parameters; at most 2 units are allowed" in done.stderr

    def test_recordings_are_small(self):
        assert sum((FOLDER / name).stat().st_size for name in FILES) < 300_000


def nudge(array, factor):
    """Change the largest element a little."""
    array.flat[np.abs(array).argmax()] *= np.float32(factor)


class TestTampered:
    @pytest.fixture
    def folder(self, tmp_path):
        for name in FILES:
            shutil.copy(FOLDER / name, tmp_path)
        return tmp_path

    def fails(self, folder, complaint):
        """Run in `folder` and return what was printed before the complaint."""
        done = continue_in_dragon("--folder", folder, "--output", "continued.pt", directory=folder)
        assert done.returncode == 1
        assert complaint in done.stderr
        assert "Traceback" not in done.stderr
        assert "ended with" not in done.stdout
        assert not (folder / "continued.pt").exists()
        return done.stdout

    def rewrite(self, folder, change):
        """Write recorded.npz anew, with right checksums, after `change` has had its arrays."""
        arrays = dict(np.load(folder / "recorded.npz"))
        change(arrays)
        np.savez_compressed(folder / "recorded.npz", **arrays)

    @pytest.mark.parametrize(
        ("name", "factor"),
        [
            ("gradients/2.bias", 1.001),
            ("final/2.bias", 1 + 1e-6),
            ("final/2.bias", np.nan),
            ("final, correctly rounded roots/2.bias", 1 + 2**-23),
        ],
    )
    def test_one_element(self, name, factor, folder):
        self.rewrite(folder, lambda arrays: nudge(arrays[name], factor))
        output = self.fails(folder, "did not end with PyTorch's parameters")
        expected = "equal" if name.startswith("final/") else "DIFFERENT"
        assert verdicts(output) == {**dict.fromkeys(PARAMETERS, "equal"), "2.bias": expected}

    def test_learning_rate(self, folder):
        self.rewrite(folder, lambda arrays: arrays.update(lr_decay=np.array(0.8)))
        output = self.fails(folder, "did not end with PyTorch's parameters")
        assert verdicts(output) == dict.fromkeys(PARAMETERS, "DIFFERENT")

    def test_another_checkpoint(self, folder):
        self.rewrite(folder, lambda arrays: nudge(arrays["start/0.bias"], 1 + 2**-23))
        self.fails(folder, "0.bias of checkpoint.pt is not what recorded.npz starts from")

    def test_a_missing_array(self, folder):
        self.rewrite(folder, lambda arrays: arrays.pop("gradients/0.weight"))
        self.fails(folder, "recorded.npz is missing, damaged or incomplete: 'gradients/0.weight")

    @pytest.mark.parametrize("place", [1 / 4, 1 / 2, 3 / 4])
    def test_a_flipped_bit(self, place, folder):
        content = bytearray((folder / "recorded.npz").read_bytes())
        content[int(place * len(content))] ^= 1
        (folder / "recorded.npz").write_bytes(content)
        self.fails(folder, "recorded.npz is missing, damaged or incomplete: ")

    def test_half_a_file(self, folder):
        content = (folder / "recorded.npz").read_bytes()
        (folder / "recorded.npz").write_bytes(content[: len(content) // 2])
        self.fails(folder, "recorded.npz is missing, damaged or incomplete: ")

    def test_no_file(self, folder):
        (folder / "recorded.npz").unlink()
        self.fails(folder, "recorded.npz is missing, damaged or incomplete: ")
