# SPDX-License-Identifier: BSD-2-Clause
"""`check_cuda.py`, which is for a GPU: its checks pass on the emulation, and find what is wrong."""

from __future__ import annotations

import json

import pytest

from tests.kernels import check_cuda, cuda_cases, device_memory
from tests.kernels.emulation import EmulatedMemory


@pytest.mark.parametrize("check", check_cuda.CHECKS, ids=lambda check: check.__name__)
def test_check(cuda, check):
    cases = check(cuda, EmulatedMemory(), quick=True)
    assert cases > 0 or check is check_cuda.beyond_32_bits


class Wrong:
    """The kernels, with a bit wrong in what they leave behind."""

    def __init__(self, cuda):
        self._cuda, self.path = cuda, cuda.path

    def __getattr__(self, name):
        return getattr(self._cuda, name)

    def upload(self, image):
        array = self._cuda.upload(image)
        read = array.read

        def with_a_wrong_bit():
            values = read()
            values[cuda_cases.ALIGNMENT] ^= 1
            return values

        array.read = with_a_wrong_bit
        return array


@pytest.mark.parametrize("check", [check_cuda.forms, check_cuda.lists, check_cuda.alignments])
def test_a_wrong_bit_is_found(cuda, check):
    with pytest.raises(AssertionError):
        check(Wrong(cuda), EmulatedMemory(), quick=True)


@pytest.fixture
def command(cuda, monkeypatch, tmp_path):
    """check_cuda.py over the emulation: gives its exit status and what it wrote."""
    monkeypatch.setattr(device_memory, "find", lambda name: EmulatedMemory())
    monkeypatch.setattr(check_cuda, "CudaLibrary", lambda path, upload: cuda)
    monkeypatch.setattr(check_cuda.library, "use", lambda path: None)
    written = tmp_path / "folder" / "check.json"

    def run(*arguments):
        fixed = ["check_cuda.py", "--built", "--quick", "--json", str(written)]
        monkeypatch.setattr("sys.argv", [*fixed, *arguments])
        return check_cuda.main(), json.loads(written.read_text())

    run.written = written
    return run


def test_the_command(command, capsys):
    status, report = command("--no-sanitizer", "--only", "skipping", "lists", "--commit", "abc")
    assert status == 0
    assert {name: found["cases"] for name, found in report["checks"].items()} == {"lists": 4, "skipping": 2}
    assert (report["kind"], report["quick"], report["commit"]) == ("cuda check", True, "abc")
    assert report["card"]["name"] == EmulatedMemory.card
    assert "All good." in capsys.readouterr().out


def test_what_fails_is_kept_and_the_others_still_run(command, monkeypatch, capsys):
    def wrong(cuda, memory, quick):
        assert json.loads(command.written.read_text())["checks"].keys() == {"lists"}  # as far as it is
        raise AssertionError("a bit\nand more")

    monkeypatch.setattr(check_cuda, "CHECKS", [check_cuda.lists, wrong, check_cuda.skipping])
    status, report = command("--no-sanitizer")
    assert status == 1
    assert list(report["checks"]) == ["lists", "wrong", "skipping"]
    assert report["checks"]["wrong"]["failed"] == "a bit"
    assert "and more" in capsys.readouterr().out


@pytest.mark.parametrize(("said", "status"), [("clean", 0), ("exit status 9", 1), ("not finished in 7 s", 1)])
def test_the_tools_get_a_short_selection(command, monkeypatch, said, status):
    asked = []

    def sanitize(tool, arguments, seconds):
        asked.append((tool, seconds))
        assert {"--quick", "--built", "--no-sanitizer", "forms"} < {*arguments}
        assert arguments[arguments.index("--memory") + 1] == EmulatedMemory.name
        return said if tool == "racecheck" else "clean", ""

    monkeypatch.setattr(check_cuda.sanitizer, "sanitize", sanitize)
    found, report = command("--only-sanitizer", "--sanitizer-seconds", "7")
    assert (found, report["checks"]) == (status, {})
    assert asked == [(tool, 7.0) for tool in check_cuda.TOOLS]
    assert report["sanitizer"] == {**dict.fromkeys(check_cuda.TOOLS, "clean"), "racecheck": said}


def test_the_tools_after_the_checks_in_a_run_of_their_own(command, monkeypatch):
    """Their results join those of the same sources."""
    monkeypatch.setattr(check_cuda.sanitizer, "sanitize", lambda *arguments: ("clean", ""))
    command("--no-sanitizer", "--only", "skipping", "--commit", "abc")
    status, report = command("--only-sanitizer", "--commit", "abc")
    assert (status, list(report["checks"]), len(report["sanitizer"])) == (0, ["skipping"], 4)
    assert command("--only-sanitizer", "--commit", "abcd")[1]["checks"] == {}


def test_without_a_gpu_it_says_so_in_a_line(monkeypatch, capsys):
    def find(name):
        raise device_memory.NoGpuError("no GPU to be had: torch is not installed")

    monkeypatch.setattr(device_memory, "find", find)
    monkeypatch.setattr("sys.argv", ["check_cuda.py"])
    assert check_cuda.main() == check_cuda.NO_GPU
    assert capsys.readouterr().out == "no GPU to be had: torch is not installed\n"
