# SPDX-License-Identifier: BSD-2-Clause
"""Parameters and gradients: the same on all sides, in both processes."""

from __future__ import annotations

from typing import Iterator

import numpy as np

from benchmarks.cases import Case

# A minibatch for the perceptron.
ROWS, FEATURES, CLASSES = 16, 32, 10


def pairs(case: Case) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each tensor its values and its gradient."""
    random = np.random.default_rng(0)
    for shape in case.shapes:
        values, gradient = (random.standard_normal(shape, "float32") for _ in range(2))
        yield values.astype(case.dtype), gradient.astype(case.dtype)


def minibatch() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    return random.standard_normal((ROWS, FEATURES), "float32"), random.integers(0, CLASSES, ROWS)
