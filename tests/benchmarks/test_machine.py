# SPDX-License-Identifier: BSD-2-Clause
"""What is found out about the machine."""

import os

import pytest

from benchmarks import machine


@pytest.fixture
def clocks(monkeypatch):
    """All programs, this one with its children, and the clock; in seconds."""
    clocks = {"all": 0.0, "own": 0.0, "now": 0.0}
    ticks = os.sysconf("SC_CLK_TCK")

    def stat(path):
        assert path == "/proc/stat"
        busy = int(clocks["all"] * ticks)
        return f"cpu {busy - 5} 1 1 99999 88888 1 1 1 0 0\ncpu0 7 7 7"

    monkeypatch.setattr(machine, "_read", stat)
    monkeypatch.setattr(machine.os, "times", lambda: (0.25 * clocks["own"],) * 4 + (0.0,))
    monkeypatch.setattr(machine.time, "monotonic", lambda: clocks["now"])
    return clocks


@pytest.mark.parametrize(
    ("all_programs", "own", "others"), [(15.0, 10.0, 0.5), (10.0, 10.0, 0.0), (9.9, 10.0, 0)]
)
def test_other_programs(clocks, all_programs, own, others):
    clocks.update(all=100.0)
    programs = machine.OtherPrograms()
    clocks.update(all=100.0 + all_programs, own=own, now=10.0)
    assert programs.cpus() == others


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
