# SPDX-License-Identifier: BSD-2-Clause
"""10,000 mutated files: each is refused or loads, and nothing else happens."""

from __future__ import annotations

import json

from tests.checkpoint.support import child, output_of

COUNT = 2500


def run(kind, seeds, tmp_path) -> dict:
    """Two children at once, since a machine has at least two cores."""
    children = []
    for seed in seeds:
        folder = tmp_path / str(seed)
        folder.mkdir()
        children.append(child("-m", "tests.checkpoint.mutating", kind, str(seed), str(COUNT), str(folder)))
    total: dict = {}
    for each in children:
        found = json.loads(output_of(each).splitlines()[-1])
        assert found["alarms"] == []
        for outcome, count in found["outcomes"].items():
            total[outcome] = total.get(outcome, 0) + count
    return total


def test_5000_damaged_files(tmp_path):
    total = run("raw", (1, 2), tmp_path)
    assert total.get("failed", 0) == 0
    assert total.get("different", 0) == 0
    assert total["refused"] > 4500


def test_5000_files_with_right_checksums(tmp_path):
    total = run("smart", (3, 4), tmp_path)
    assert total.get("failed", 0) == 0
    assert total["refused"] > 3000
    assert total["loaded"] > 300  # the mutations are not all of a kind that is seen at once
