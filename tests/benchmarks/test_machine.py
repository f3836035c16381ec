# SPDX-License-Identifier: BSD-2-Clause
"""What is found out about the machine."""

import os

import pytest

from benchmarks import machine


@pytest.fixture
def clocks(monkeypatch):
    """CPU time of all programs and of processes 7 and 8, and the clock; in seconds."""
    clocks = {"all": 0.0, 7: 0.0, 8: 0.0, "now": 0.0}
    ticks = os.sysconf("SC_CLK_TCK")

    def read(path):
        if path == "/proc/stat":
            return f"cpu {int(clocks['all'] * ticks) - 5} 1 1 99999 88888 1 1 1 0 0\ncpu0 7 7 7"
        process = int(path.split("/")[2])
        user = int(clocks[process] * ticks) - 6
        return f"{process} (a (name) S 1 1 1) R 1 1 1 0 -1 0 9 9 9 9 {user} 1 2 3 20 0 4"

    monkeypatch.setattr(machine, "_read", read)
    monkeypatch.setattr(machine.time, "monotonic", lambda: clocks["now"])
    return clocks


@pytest.mark.parametrize(("everything", "others"), [(15.0, 0.5), (10.0, 0.0), (9.9, 0.0)])
def test_other_programs(clocks, everything, others):
    clocks.update({"all": 100.0, 7: 20.0, 8: 30.0})
    programs = machine.OtherPrograms([7, 8])
    clocks.update({"all": 100.0 + everything, 7: 24.0, 8: 36.0, "now": 10.0})
    assert programs.cpus() == others


def test_the_time_of_this_process():
    begin, user = machine._seconds_of(os.getpid()), os.times().user
    while os.times().user < user + 0.1:  # a tenth of a second of work
        sum(range(10_000))
    assert machine._seconds_of(os.getpid()) > begin


def test_available_memory_is_some():
    assert 1 << 20 < machine.available_memory() < 1 << 50


def test_the_caches_of_a_cpu(tmp_path, monkeypatch):
    for number, (level, kind, size) in enumerate([("1", "Data", "48K"), ("2", "Unified", "1024K")]):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(text + "\n")
    monkeypatch.setattr(machine, "CACHES", tmp_path)
    assert machine.caches() == ["L1 data 48K", "L2 unified 1024K"]
