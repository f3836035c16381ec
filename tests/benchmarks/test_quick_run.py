# SPDX-License-Identifier: BSD-2-Clause
"""`python -m benchmarks`, on little, as a whole. Nothing here says how fast anything is."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cases import quick
from benchmarks.torch_process import VARIABLE

ROOT = Path(__file__).resolve().parents[2]
WITH_TORCH = VARIABLE in os.environ

pytest.importorskip("tqdm", reason="the benchmarks need what `pip install dragon_optim[demo]` brings")


def benchmarks(*arguments):
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory):
    output = tmp_path_factory.mktemp("benchmarks") / "quick.json"
    run = benchmarks("--quick", "--json", output, *([] if WITH_TORCH else ["--no-torch"]))
    assert run.returncode == 0, run.stderr
    return run.stdout, json.loads(output.read_text()), output


def test_every_case_is_measured(quick_run):
    _, results, _ = quick_run
    assert [entry["name"] for entry in results["cases"]] == [case.name for case in quick()]
    for entry in results["cases"]:
        expected = {"dragon_optim", "stock"} | ({"captured"} if entry["kind"] == "train" else {"limit"})
        if entry["variant"] == "momentum + centered" and entry["kind"] == "step":
            expected.remove("stock")
            assert "centered" in entry["absent"]["stock"]
        if entry["kind"] == "clip_grad_norm_":
            expected.remove("stock")
            assert "no such function" in entry["absent"]["stock"]
        assert expected <= set(entry["sides"])
        for side in entry["sides"].values():
            assert len(side["samples"]) == 3
            assert 0 < side["lower_quartile"] <= side["median"] <= side["upper_quartile"]


def test_what_the_numbers_depend_on_is_written(quick_run):
    _, results, _ = quick_run
    assert results["settings"]["selection"] == "quick"
    assert results["settings"]["environment"]["GOMP_SPINCOUNT"]
    assert {"cpu", "cpus", "caches", "memory"} <= set(results["machine"])
    assert {"dragon_optim", "dragon", "numpy", "python"} <= set(results["versions"])
    assert results["state_buffers"]["dragon_optim"] == 1
    assert results["state_buffers"]["stock"] == 2


def test_what_is_printed_and_left_behind(quick_run):
    printed, _, output = quick_run
    for title in ("One step()", "Files", "A training step", "Goals, 2 threads", "The same with 1 thread"):
        assert title in printed
    plots = {"time_by_elements.svg"} if importlib.util.find_spec("matplotlib") else set()
    assert {path.name for path in output.parent.iterdir()} - {"torch.log"} == {"quick.json"} | plots


def test_samples_stand_in_one_line(quick_run):
    _, results, output = quick_run
    assert len(output.read_text().splitlines()) < 40 + 45 * len(results["cases"])


@pytest.mark.skipif(not WITH_TORCH, reason=f"{VARIABLE} names no Python that has torch")
def test_pytorch_takes_part(quick_run):
    _, results, _ = quick_run
    sides = {"step": {"torch for-loop", "torch foreach"}, "save": {"torch"}, "load": {"torch"}}
    for entry in results["cases"]:
        expected = sides.get(entry["kind"], set())
        assert expected <= set(entry["sides"]), entry["absent"]
    assert results["versions"]["torch"]
    assert results["state_buffers"]["torch foreach"] == 1


@pytest.mark.skipif(WITH_TORCH, reason="PyTorch takes part")
def test_without_pytorch_the_reason_stands_there(quick_run):
    printed, results, _ = quick_run
    assert results["missing"] == {"torch": "left out by --no-torch"}
    assert "torch: left out by --no-torch" in printed


def test_a_selection_by_name():
    run = benchmarks("--list", "--only", "zero_grad.*1000 x 100")
    assert run.stdout.splitlines() == ["zero_grad, 1000 x 100, plain, float32, 2 threads"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--only", "("], "is no regular expression"),
        (["--only", "no such case"], "no case has such a name"),
        (["--rounds", 1], "a spread needs at least 2"),
        (["--seconds", 0], "a turn needs some time"),
        (["--quick", "--full"], "not allowed with"),
    ],
)
def test_wrong_arguments(arguments, complaint):
    run = benchmarks(*arguments)
    assert run.returncode != 0
    assert complaint in run.stderr
