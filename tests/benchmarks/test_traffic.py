# SPDX-License-Identifier: BSD-2-Clause
"""The bytes that a call must move."""

import pytest

from benchmarks.cases import TRAIN, Case
from benchmarks.traffic import bytes_moved, bytes_per_element

# What is read, and what is written, in bytes for each element: g gradient, p parameter, v square_avg, m
# momentum_buffer, a grad_avg, w master weight, s sum.
EXPECTED = [
    (Case("step", "1 x 1K", "plain"), "gpv", "pv", {}),
    (Case("step", "1 x 1K", "momentum"), "gpvm", "pvm", {}),
    (Case("step", "1 x 1K", "momentum + centered"), "gpvma", "pvma", {}),
    (Case("step", "1 x 1K", "momentum", "float64"), "gpvm", "pvm", dict.fromkeys("gpvm", 8)),
    (Case("step", "1 x 1K", "plain", "float16"), "gpvw", "pvw", {"g": 2, "p": 2}),
    (Case("step", "1 x 1K", "momentum + centered", "float16"), "gpvmaw", "pvmaw", {"g": 2, "p": 2}),
    (Case("clip_norm", "1 x 1K", "momentum"), "ggpvm", "pvm", {}),
    (Case("clip_grad_norm_", "1 x 1K"), "gg", "g", {}),
    (Case("sum_grad", "1 x 1K"), "gs", "s", {}),
    (Case("sum_grad", "1 x 1K", dtype="float64"), "gs", "s", dict.fromkeys("gs", 8)),
    (Case("zero_grad", "1 x 1K"), "", "g", {}),
    (Case("save", "1 x 1K", "momentum + centered"), "", "pvma", {}),
    (Case("load", "1 x 1K", "plain"), "pv", "", {}),
]


@pytest.mark.parametrize(("case", "read", "written", "widths"), EXPECTED)
def test_bytes_per_element(case, read, written, widths):
    assert bytes_per_element(case) == sum(widths.get(name, 4) for name in read + written)


def test_bytes_of_all_elements():
    assert bytes_moved(Case("step", "161 x 16K", "momentum")) == 28 * 161 * 16_384


def test_nobody_counts_the_bytes_of_a_training_step():
    assert bytes_moved(TRAIN) is None
    with pytest.raises(ValueError, match="'train'"):
        bytes_per_element(TRAIN)
