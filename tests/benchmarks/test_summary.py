# SPDX-License-Identifier: BSD-2-Clause
"""Medians, quartiles, ratios."""

import numpy as np
import pytest

from benchmarks.summary import gigabytes_per_second, ratio, summary


def test_quartiles_are_numpys():
    samples = [0.4, 0.1, 0.9, 0.25, 0.3, 0.7]
    found = summary(samples)
    quartiles = [found[name] for name in ("lower_quartile", "median", "upper_quartile")]
    np.testing.assert_allclose(quartiles, np.percentile(samples, [25, 50, 75]), rtol=1e-3)


def test_samples_are_kept_to_four_digits_in_their_order():
    assert summary([1.23456e-3, 3.0, 2.0])["samples"] == [1.235e-3, 3.0, 2.0]


def test_a_ratio_compares_the_turns_of_a_round():
    # Twice as slow in each round, on a machine that gets ten times slower after the first of three.
    assert ratio([2, 20, 21], [1, 10, 10]) == 2
    with pytest.raises(ValueError, match="2 rounds cannot be compared with 3"):
        ratio([1, 2], [1, 2, 3])


def test_a_ratio_is_not_that_of_the_medians():
    assert ratio([1, 4, 9], [1, 1, 9]) == 1


def test_gigabytes_are_powers_of_ten():
    assert gigabytes_per_second(200_000_000, 0.01) == 20
