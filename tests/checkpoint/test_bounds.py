# SPDX-License-Identifier: BSD-2-Clause
"""Hostile pickles take time and memory in proportion to their size, as harmless ones do."""

from __future__ import annotations

import json

import pytest

from tests.checkpoint.bounding import HOSTILE
from tests.checkpoint.support import child, output_of


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("longkey", 1_000_000, "loaded"),
        ("bigshape", 1_000_000, "the sizes of a tensor are not"),
        ("rebuild", 1_000_000, "more small tensors than its size explains"),
        ("dupkey", 1_000_000, "is given twice"),
        ("lists", 1_000_000, "more dicts, lists and tuples than its size explains"),
        # Of this size without a limit they would take 1.5 GB, and there are 512 MB to spare.
        ("lists", 10_000_000, "more dicts, lists and tuples than its size explains"),
        ("intstr", 1_000_000, "the sizes of a tensor are not"),
    ],
)
def test_time_and_memory(name, size, words, tmp_path):
    arguments = ("-m", "tests.checkpoint.bounding", name, str(size), str(tmp_path))
    found = json.loads(output_of(child(*arguments)).splitlines()[-1])
    assert words in found["outcome"]
    # What was quadratic took hundreds to thousands of times as long.
    assert found["ratio"] < 60


def test_all_are_tested():
    tested = {
        mark.args[1][i][0] for mark in test_time_and_memory.pytestmark for i in range(len(mark.args[1]))
    }
    assert tested == set(HOSTILE)
