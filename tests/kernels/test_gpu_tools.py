# SPDX-License-Identifier: BSD-2-Clause
"""nvidia-smi and compute-sanitizer, as `check_cuda.py` asks them: with programs in their place."""

from __future__ import annotations

import os
import stat
import sys
import time

import pytest

from tests.kernels import card, sanitizer


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a shell script of this name on the PATH, in front of what is there."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def make(name: str, text: str):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return make


def test_the_driver_and_the_clocks(program):
    program("nvidia-smi", 'echo "1980, 2619, 312.5, [N/A]"')
    assert card.ask(card.CLOCKS) == {"sm_mhz": 1980, "memory_mhz": 2619, "watts": 312.5, "celsius": "[N/A]"}


VISIBLE = [(None, "0"), ("", "0"), ("3,1", "3"), ("GPU-12ab", "GPU-12ab")]


@pytest.mark.parametrize(("visible", "asked"), VISIBLE)
def test_the_gpu_that_is_asked_for(program, monkeypatch, visible, asked):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    script = program("nvidia-smi", 'echo "$@" >"$0.log"; echo "580.10, 1980, 2619"')
    assert card.ask(card.DRIVER)["driver"] == "580.10"
    assert f"--id={asked} " in script.with_suffix(".log").read_text()


def test_what_nvidia_smi_does_not_say_is_no_error(program, monkeypatch, tmp_path):
    program("nvidia-smi", "echo No devices were found; exit 6")
    assert card.ask(card.DRIVER) == {"nvidia-smi": "exit status 6: No devices were found"}
    program("nvidia-smi", "echo 580")
    assert card.ask(card.DRIVER) == {"nvidia-smi": "exit status 0: 580"}
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert card.ask(card.DRIVER)["nvidia-smi"].startswith("FileNotFoundError")


def test_results_are_written_as_a_whole(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "check.json"
    card.write_whole(path, "one")

    def ended(self, text, encoding):
        with open(self, "w") as file:
            file.write(text[:1])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(path), "write_text", ended)
        with pytest.raises(KeyboardInterrupt):
            card.write_whole(path, "two")
    assert path.read_text() == "one"
    card.write_whole(path, "three")
    assert [file.name for file in path.parent.iterdir()] == ["check.json"]
    assert path.read_text() == "three"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('echo "========= ERROR SUMMARY: 0 errors"', "clean"),
        ('echo "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"', "clean"),
        ('echo "========= ERROR SUMMARY: 2 errors"; exit 9', "exit status 9"),
        ('echo "========= ERROR SUMMARY: 10 errors"', "exit status 0, but no summary of no errors"),
        ('echo "Device not supported"', "exit status 0, but no summary of no errors"),
    ],
)
def test_what_a_tool_says(program, text, said):
    program("compute-sanitizer", text)
    assert sanitizer.sanitize("memcheck", ["true"], 10)[0] == said


def test_the_command_runs_under_the_tool(program):
    program("compute-sanitizer", 'echo "$1 $2"; shift 6; "$@"; echo "ERROR SUMMARY: 0 errors"')
    said, printed = sanitizer.sanitize("initcheck", [sys.executable, "-c", "print(6 * 7)"], 10)
    assert (said, printed.splitlines()[:2]) == ("clean", ["--tool initcheck", "42"])


def test_a_tool_that_does_not_finish_ends_with_its_command(program, tmp_path):
    """The command is the tool's child, which nobody else would end."""
    program("compute-sanitizer", 'shift 6; "$@" & wait')
    command = f"echo $$ >{tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 60"
    said, _printed = sanitizer.sanitize("racecheck", ["sh", "-c", command], 2)
    assert said == "not finished in 2 s"
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not runs(pid):
            return
        time.sleep(0.05)
    pytest.fail("the command goes on")


def runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_without_the_program(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sanitizer, "USUAL_PLACE", tmp_path / "compute-sanitizer")
    assert sanitizer.sanitize("memcheck", ["true"], 1) == (sanitizer.NOT_INSTALLED, "")
