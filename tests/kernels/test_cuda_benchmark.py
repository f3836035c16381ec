# SPDX-License-Identifier: BSD-2-Clause
"""`benchmarks/cuda.py`, which is for a GPU, from end to end: over the emulation, with a PyTorch made up."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from benchmarks import cuda as benchmark
from benchmarks import cuda_results, cuda_sides
from benchmarks.cuda_results import COMPILED, FOREACH, OURS, SIDES
from benchmarks.cuda_sides import MOMENTUM, Case
from tests.kernels import made_up_torch

LARGE = Case("1 x 5000, momentum", 1, 5000, MOMENTUM)
SMALL = Case("1 x 5, momentum", 1, 5, MOMENTUM)
MANY = Case(cuda_results.MANY, 1000, 100, MOMENTUM)


@pytest.fixture
def torch(cuda, monkeypatch):
    monkeypatch.setattr(cuda_sides, "CudaLibrary", lambda path: cuda)
    monkeypatch.setattr(cuda_sides, "nodes", lambda graph: graph)
    monkeypatch.setattr(cuda_sides, "QUICK", [LARGE, SMALL])
    monkeypatch.setattr(cuda_results, "LARGE", LARGE.size)
    monkeypatch.setattr(benchmark, "LEAST_SECONDS", 1e-4)
    return made_up_torch.module(cuda, monkeypatch)


@pytest.fixture
def run(torch, tmp_path, monkeypatch):
    """Gives the exit status and what was written."""
    written = tmp_path / "folder" / "cuda.json"

    def call(*arguments):
        fixed = ["cuda.py", "--built", "--quick", "--json", str(written)]
        monkeypatch.setattr(sys, "argv", [*fixed, *arguments])
        return benchmark.main(), json.loads(written.read_text())

    call.written = written
    return call


def test_the_whole_run(run, monkeypatch, capsys):
    monkeypatch.setattr(cuda_sides, "QUICK", [LARGE, MANY])
    status, report = run("--commit", "0123456789abcdef")
    assert status == 0
    large, many = report["cases"]
    assert set(large["sides"]) == set(SIDES)
    assert set(many["sides"]) == {*SIDES} - {COMPILED}
    assert many["absent"] == {COMPILED: "only large tensors"}
    assert (large["launches"], many["launches"]) == (1, 2)
    assert large["bytes"] == 7 * 4 * 5000
    assert all(len(side["samples"]) == 3 for case in report["cases"] for side in case["sides"].values())
    assert (report["kind"], report["commit"]) == ("cuda", "0123456789abcdef")
    assert report["card"]["name"] == "a made-up card"
    printed = capsys.readouterr().out
    for text in (MANY.name, "<= 3 launches      2      yes", "a made-up card", "commit 012345678."):
        assert text in printed


def test_the_names_and_bytes_of_the_cases():
    assert len({case.name for case in cuda_sides.CASES}) == len(cuda_sides.CASES)
    for case in cuda_sides.CASES:
        tensors, _, size = case.name.partition(" x ")
        states = 1 + case.name.count("momentum") + case.name.count("centered")
        assert (case.tensors, case.bytes_moved) == (int(tensors), (3 + 2 * states) * 4 * case.elements)
        written = (f"{case.size // 10**6}M", f"{case.size >> 20}M", f"{case.size >> 10}K", str(case.size))
        assert size.split(",")[0] in written


def test_a_side_that_fails_is_missing_with_its_reason(run, torch, monkeypatch, capsys):
    tried = []

    def compiled(step):
        tried.append(step)
        raise RuntimeError("the backend raised:\nno compiler")

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setitem(cuda_sides.MAKERS, FOREACH, lambda torch, case: 1 / 0)
    monkeypatch.setattr(cuda_sides, "QUICK", [LARGE, LARGE])
    status, report = run()
    assert status == 0
    why = {
        FOREACH: "ZeroDivisionError: division by zero",
        COMPILED: "RuntimeError: the backend raised: no compiler",
    }
    assert [case["absent"] for case in report["cases"]] == [why, why]
    assert len(tried) == 1
    assert set(report["cases"][0]["sides"]) == {*SIDES} - {*why}
    assert f"{FOREACH}: {why[FOREACH]} ({LARGE.name}; {LARGE.name})" in capsys.readouterr().out


def test_without_our_side_it_fails(run, monkeypatch):
    monkeypatch.setitem(cuda_sides.MAKERS, OURS, lambda torch, case: 1 / 0)
    status, report = run()
    assert status == 1
    assert [case["launches"] for case in report["cases"]] == [None, None]
    assert FOREACH in report["cases"][0]["sides"]


def test_compiling_has_a_time_for_all_cases_together(run, torch, monkeypatch):
    monkeypatch.setattr(benchmark, "COMPILE_SECONDS", 0.2)
    monkeypatch.setattr(cuda_sides, "QUICK", [LARGE, LARGE])
    monkeypatch.setattr(torch, "compile", lambda step: time.sleep(60))
    status, report = run()
    why = "TimeoutError: not compiled within the 0.2 s that all cases have"
    assert status == 0
    assert [case["absent"] for case in report["cases"]] == [{COMPILED: why}] * 2


def test_compiling_ends_when_its_time_is_used_up(run, monkeypatch):
    compiling = benchmark.Compiling(True)
    compiling.seconds = 151
    monkeypatch.setattr(benchmark, "Compiling", lambda wanted: compiling)
    _status, report = run()
    assert report["cases"][0]["absent"] == {COMPILED: "the cases before took 151 s to compile"}


def test_without_compiling(run):
    _status, report = run("--no-compile")
    assert report["cases"][0]["absent"] == {COMPILED: "left out by --no-compile"}


def test_launches_that_cannot_be_counted(run, monkeypatch, capsys):
    def nodes(graph):
        raise OSError("libcuda.so.1 is missing")

    monkeypatch.setattr(cuda_sides, "nodes", nodes)
    monkeypatch.setattr(cuda_sides, "QUICK", [MANY])
    _status, report = run()
    assert report["cases"][0]["launches"] is None
    assert report["cases"][0]["absent"]["launches"] == "OSError: libcuda.so.1 is missing"
    assert "<= 3 launches      -  not measured" in capsys.readouterr().out


def test_an_interrupted_run_has_written_what_it_measured(run, monkeypatch):
    def ours(torch, case):
        if case is SMALL:
            raise KeyboardInterrupt
        return cuda_sides.Ours(torch, case)

    monkeypatch.setitem(cuda_sides.MAKERS, OURS, ours)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert [case["name"] for case in json.loads(run.written.read_text())["cases"]] == [LARGE.name]


def test_one_round_has_no_spread(run, capsys):
    with pytest.raises(SystemExit):
        run("--rounds", "1")
    assert "--rounds 1: a spread needs at least 2" in capsys.readouterr().err


def test_the_script_does_not_take_the_name_of_nvidias_bindings():
    """Its folder is where Python looks first, and the file is called cuda.py."""
    find = "import importlib.util as util; print(util.find_spec('cuda'))"
    code = f"import runpy; runpy.run_path({benchmark.__file__!r}); {find}"
    environment = {"PYTHONPATH": str(benchmark.HERE), "PATH": ""}
    said = subprocess.check_output([sys.executable, "-c", code], env=environment, cwd="/")
    assert b"cuda.py" not in said
