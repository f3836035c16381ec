# SPDX-License-Identifier: BSD-2-Clause
"""What is said about samples."""

from __future__ import annotations

import statistics
from typing import Sequence


def summary(samples: Sequence[float]) -> dict[str, object]:
    """Median and quartiles, and the samples themselves, to four digits."""
    lower, median, upper = statistics.quantiles(samples, n=4, method="inclusive")
    return {
        "median": _short(median),
        "lower_quartile": _short(lower),
        "upper_quartile": _short(upper),
        "samples": [_short(sample) for sample in samples],
    }


def _short(seconds: float) -> float:
    return float(f"{seconds:.4g}")


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the rounds' ratios.

    Both sides had their turns close to each other, so that a machine that is slow for some rounds is slow in
    both; the ratio of two medians would take the one from another time than the other.
    """
    if len(above) != len(below):
        raise ValueError(f"{len(above)} rounds cannot be compared with {len(below)}")
    return statistics.median(first / second for first, second in zip(above, below))


def gigabytes_per_second(nbytes: int, seconds: float) -> float:
    return nbytes / seconds / 1e9
