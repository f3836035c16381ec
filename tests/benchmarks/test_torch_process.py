# SPDX-License-Identifier: BSD-2-Clause
"""PyTorch's process: what happens where there is none, or where it fails."""

import sys

import pytest

from benchmarks import run, torch_process
from benchmarks.cases import Case
from benchmarks.timing import Settings
from benchmarks.torch_process import VARIABLE, TorchError, TorchProcess, find_python

# Answers like torch_side.py, for better or worse.
FAKE = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "versions":
        answer = {"result": {"torch": "0.0"}}
    elif request["do"] == "prepare":
        answer = {"result": ["torch foreach", request["case"]["kind"], request["folder"]]}
    elif request["repetitions"] == 13:
        sys.exit("bad luck")
    else:
        answer = {"result": 1e-3 * request["repetitions"]}
        if request["long"]:
            answer = {"error": "RuntimeError: no"}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def fake(tmp_path):
    """A process whose Python ignores which module it is to run."""
    (tmp_path / "fake.py").write_text(FAKE)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{tmp_path}/fake.py'\n")
    python.chmod(0o755)
    process = TorchProcess(str(python), tmp_path / "log")
    yield process
    process.close()


def test_turns(fake, tmp_path):
    assert fake.versions == {"torch": "0.0"}
    turns = fake.turns(Case("zero_grad", "1 x 100"), tmp_path)
    assert list(turns) == ["torch foreach", "zero_grad", str(tmp_path)]
    assert turns["torch foreach"](4, False) == 4e-3


def test_an_error_is_one_turns(fake, tmp_path):
    turn = fake.turns(Case("step", "1 x 100"), tmp_path)["torch foreach"]
    with pytest.raises(TorchError, match="RuntimeError: no"):
        turn(1, True)
    assert turn(2, False) == 2e-3


def test_the_end_of_the_process_is_told_with_its_last_words(fake, tmp_path):
    turn = fake.turns(Case("step", "1 x 100"), tmp_path)["torch foreach"]
    for _ in range(2):
        with pytest.raises(TorchError, match="has ended: bad luck"):
            turn(13, False)


class Dying:
    """In the place of `run.Torch`: its only side fails in the second round."""

    missing = None

    def turns(self, case, folder):
        rounds = iter([0.1] * 3 + [0.1])  # three to find the pace, then one round

        def turn(repetitions, long):
            for seconds in rounds:
                return seconds
            raise TorchError("PyTorch's process has ended: bad luck")

        return {"torch foreach": turn}

    def lose(self, why):
        self.missing = why


def test_the_others_go_on_without_it(tmp_path):
    torch, settings = Dying(), Settings(rounds=3, fewest_rounds=3, seconds=1e-3)
    found = run.measure(Case("step", "1 x 100"), settings, torch, tmp_path)
    assert set(found["sides"]) == {"limit", "dragon_optim", "stock"}
    assert [len(side["samples"]) for side in found["sides"].values()] == [3, 3, 3]
    assert (
        torch.missing
        == "PyTorch's process has ended: bad luck, in 'step, 1 x 100, plain, float32, 2 threads'"
    )


def test_a_python_without_torch(tmp_path):
    with pytest.raises(TorchError, match="No module named 'torch'"):
        TorchProcess(sys.executable, tmp_path / "log")


def test_a_python_that_does_not_run(tmp_path):
    with pytest.raises(TorchError, match="/no/such/python does not run"):
        TorchProcess("/no/such/python", tmp_path / "log")


def test_which_python(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(torch_process, "USUAL", tmp_path / "usual" / "bin" / "python")
    with pytest.raises(TorchError, match=f"torch_environment.sh usual.*{VARIABLE}"):
        find_python()
    torch_process.USUAL.parent.mkdir(parents=True)
    torch_process.USUAL.touch()
    assert find_python() == str(torch_process.USUAL)
    monkeypatch.setenv(VARIABLE, "/another/python")
    assert find_python() == "/another/python"
