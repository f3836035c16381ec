# SPDX-License-Identifier: BSD-2-Clause
"""The table of what is clipped beside PyTorch, and of trainings that clip."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from tests import inputs

SHAPES = ((5, 7), (3,), (), (13, 33), (1,), (130,))


@dataclass(frozen=True)
class ClipCase:
    """Gradients, one of them absent, and how they are clipped."""

    name: str
    function: str  # of torch.nn.utils
    arguments: tuple
    dtypes: tuple = ("float32",) * len(SHAPES)
    special: float = None  # takes the place of one element
    absent: int = 2
    size: float = 1.0  # of the gradients

    def __str__(self):
        return self.name

    def gradients(self) -> list:
        made = []
        for place, (shape, dtype) in enumerate(zip(SHAPES, self.dtypes)):
            grad = (inputs.uniform(300 + place, shape) * self.size).astype(dtype)
            if place == 3 and self.special is not None:
                grad[7, 7] = self.special
            made.append(None if place == self.absent else grad)
        return made


def _norms():
    for order in (2.0, 1, 0, math.inf, -math.inf, 3, 0.5, -1, "inf", "2"):
        for max_norm in (0.5, 1e6, 0.0):
            yield ClipCase(f"norm {order} to {max_norm}", "clip_grad_norm_", (max_norm, order))


DOUBLE = ("float64",) * len(SHAPES)
HALF = ("float16",) * len(SHAPES)
MIXED = ("float32", "float16", "float64", "float16", "float32", "float32")
WITH_DOUBLE = ("float32", "float64", "float16", "float32", "float16", "float64")

CLIP_CASES = [
    *_norms(),
    *[ClipCase(f"norm {n} of float64", "clip_grad_norm_", (0.5, n), DOUBLE) for n in (2.0, 1.0, 3.0)],
    ClipCase("norm of float16", "clip_grad_norm_", (0.5,), HALF),
    ClipCase("norm of float16 and float32", "clip_grad_norm_", (0.5,), MIXED),
    ClipCase("norm of all dtypes", "clip_grad_norm_", (0.5,), WITH_DOUBLE),
    ClipCase("norm only measured", "clip_grad_norm_", (math.inf,)),
    ClipCase("norm, one by one", "clip_grad_norm_", (0.5, 2.0, False, False)),
    ClipCase("norm of what is infinite", "clip_grad_norm_", (0.5,), special=math.inf),
    ClipCase("norm of what is NaN", "clip_grad_norm_", (0.5,), special=math.nan),
    ClipCase("largest, infinite", "clip_grad_norm_", (0.5, math.inf), special=-math.inf),
    ClipCase("largest, NaN", "clip_grad_norm_", (0.5, math.inf), special=math.nan),
    ClipCase("smallest, NaN", "clip_grad_norm_", (0.5, -math.inf), special=math.nan),
    ClipCase("measured, infinite", "clip_grad_norm_", (math.inf,), special=math.inf),
    ClipCase("norm of small ones", "clip_grad_norm_", (1.0,), size=2.0**-40),
    *[ClipCase(f"value {limit}", "clip_grad_value_", (limit,)) for limit in (0.1, 0.0, 2.0, math.inf)],
    ClipCase("value of all dtypes", "clip_grad_value_", (0.1,), WITH_DOUBLE),
    ClipCase("value, one by one", "clip_grad_value_", (0.1, False)),
    ClipCase("value of what is infinite", "clip_grad_value_", (0.1,), special=math.inf),
    ClipCase("value of what is NaN", "clip_grad_value_", (0.1,), special=math.nan),
]


@dataclass(frozen=True)
class Recipe:
    """A published training's settings; some steps of it from given gradients."""

    name: str
    function: str
    argument: float
    options: dict = field(hash=False)
    size: float = 1.0  # of the gradients: some steps are clipped, some are not
    steps: int = 12

    def __str__(self):
        return self.name

    def parameters(self) -> list:
        return [inputs.uniform(500 + place, shape).astype("float32") for place, shape in enumerate(SHAPES)]

    def gradients(self, step: int) -> list:
        size = self.size * 4.0 ** (step % 4 - 2)
        return [
            (inputs.uniform(600 + 10 * step + place, shape) * size).astype("float32")
            for place, shape in enumerate(SHAPES)
        ]


RECIPES = [
    Recipe("A2C", "clip_grad_norm_", 0.5, dict(lr=7e-4, alpha=0.99, eps=1e-5), size=2.0**-6),
    Recipe("IMPALA", "clip_grad_norm_", 40.0, dict(lr=4.8e-4, alpha=0.99, eps=0.01)),
    Recipe("UNet", "clip_grad_value_", 0.1, dict(lr=1e-5, momentum=0.9, weight_decay=1e-8), size=0.5),
]


def flat(arrays) -> np.ndarray:
    """All elements of some arrays in float64; absent ones are left out."""
    return np.concatenate([np.asarray(each, np.float64).ravel() for each in arrays if each is not None])
