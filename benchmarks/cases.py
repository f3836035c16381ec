# SPDX-License-Identifier: BSD-2-Clause
"""What is measured: the cases, and which of them a run takes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Sequence

from benchmarks import shapes

VARIANTS: dict[str, dict] = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "momentum + centered": {"momentum": 0.9, "centered": True},
}
DTYPES = ("float32", "float64", "float16")
THREADS = (2, 1)
# The norm that clip_grad_norm_ clips to: with any other, nothing would be left to scale after the first call.
CLIPPED_TO = 0.0
# A step; a step that clips the gradient of each tensor by its norm; what else touches gradients; files; a
# training step: forward, backward and update.
KINDS = ("step", "clip_norm", "clip_grad_norm_", "sum_grad", "zero_grad", "save", "load", "train")
GRADIENT_KINDS = KINDS[1:5]

# torch.compile takes some 0.2 seconds for each tensor of a list.
COMPILED_TENSORS = 200


@dataclass(frozen=True)
class Case:
    """One row of the results.

    `compiled`: whether torch.compile takes part, whose compilation may last longer than all the rest.
    """

    kind: str
    parameters: str
    variant: str = "plain"
    dtype: str = "float32"
    threads: int = 2
    compiled: bool = False

    @property
    def name(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.kind}, {self.parameters}, {self.variant}, {self.dtype}, {threads}"

    @property
    def options(self) -> dict:
        """Arguments of RMSprop. A small rate: thousands of steps with one gradient must not overflow."""
        clipping = {"clip_norm": 1.0} if self.kind == "clip_norm" else {}
        return {"lr": 1e-4, **VARIANTS[self.variant], **clipping}

    @property
    def shapes(self) -> list[shapes.Shape]:
        return shapes.LISTS[self.parameters]() if self.kind != "train" else shapes.MLP

    @property
    def tensors(self) -> int:
        return len(self.shapes)

    @property
    def elements(self) -> int:
        return sum(map(shapes.size, self.shapes))

    @property
    def states(self) -> int:
        """How many buffers of the parameter's size the variant keeps, master weights not counted."""
        return 1 + len(VARIANTS[self.variant])


def step(parameters: str, variant: str = "momentum", **other: object) -> Case:
    return Case("step", parameters, variant, **other)  # type: ignore[arg-type]


def single() -> list[Case]:
    """One tensor of every size: the plot of time against elements."""
    return [step(name, "plain", compiled=True) for name in shapes.SINGLE]


def tiny() -> list[Case]:
    """Tensors of 100 elements: the plot of time against the number of parameters."""
    return [step(name, compiled=count <= 10) for name, count in shapes.TINY.items()]


TRAIN = Case("train", "MLP", "momentum")


def default() -> list[Case]:
    """Every value of every axis, not every combination: some ten minutes on two cores."""
    large, medium, many = "1 x 10M", shapes.MEDIUM, "1000 x 100"
    return [
        *single(),
        *(step(large, variant, compiled=True) for variant in VARIANTS if variant != "plain"),
        *(step(large, variant, threads=1, compiled=True) for variant in VARIANTS),
        step(large, "plain", dtype="float64", compiled=True),
        step(large, dtype="float16", compiled=True),
        step(medium, compiled=True),
        *(step(name) for name in shapes.NETWORKS),
        *tiny(),
        *(step(name, threads=1) for name in (medium, many)),
        step("1 x 100", threads=1, compiled=True),
        *(Case(kind, name) for kind in GRADIENT_KINDS for name in (large, medium, many)),
        *(Case(kind, "MobileNetV3-Large", "momentum + centered") for kind in ("save", "load")),
        TRAIN,
    ]


def full() -> list[Case]:
    """All combinations. Hours, most of them spent in torch.compile."""
    lists = shapes.LISTS
    once = "1000 x 100"  # of the long lists only this one, once, is compiled
    cases = [
        step(
            name,
            variant,
            dtype=dtype,
            threads=threads,
            compiled=len(lists[name]()) <= COMPILED_TENSORS
            or (name, variant, dtype, threads) == (once, "momentum", "float32", 2),
        )
        for name, variant, dtype, threads in itertools.product(lists, VARIANTS, DTYPES, THREADS)
    ]
    for kind, name, dtype, threads in itertools.product(GRADIENT_KINDS[1:], lists, DTYPES[:2], THREADS):
        cases.append(Case(kind, name, dtype=dtype, threads=threads))
    for name, variant, threads in itertools.product(lists, VARIANTS, THREADS):
        cases.append(Case("clip_norm", name, variant, threads=threads))
    for kind, name in itertools.product(("save", "load"), shapes.NETWORKS):
        cases.append(Case(kind, name, "momentum + centered"))
    return [*cases, TRAIN, Case("train", "MLP", "momentum", threads=1)]


def quick() -> list[Case]:
    """One case of each kind, on little: does everything work?"""
    few = "10 x 100"
    steps = [step("1 x 10K", variant, dtype=dtype) for variant, dtype in zip(VARIANTS, DTYPES)]
    return [*steps, *(Case(kind, few, threads=1) for kind in KINDS[1:-1]), TRAIN]


SELECTIONS = {"default": default, "full": full, "quick": quick}


def find(cases: Sequence[Case], name: str) -> Case | None:
    return next((case for case in cases if case.name == name), None)
