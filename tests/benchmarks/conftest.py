# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of the report share."""

from __future__ import annotations

import shutil

import pytest

from benchmarks import report


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The files that the report writes, copied."""
    for name in ("README", "PAGE", "COST"):
        copy = tmp_path / getattr(report, name).name
        shutil.copyfile(getattr(report, name), copy)
        monkeypatch.setattr(report, name, copy)
    monkeypatch.setattr(report, "STATIC", tmp_path / "plots")
    monkeypatch.setattr(report, "ROOT", tmp_path)
    return tmp_path
