# SPDX-License-Identifier: BSD-2-Clause
"""How many bytes a call must move, whoever makes it: what the formula needs, each read and written once."""

from __future__ import annotations

from benchmarks.cases import Case

BYTES = {"float16": 2, "float32": 4, "float64": 8}


def state_bytes(dtype: str) -> int:
    """Of an element of a state: states of float16 parameters are float32."""
    return max(4, BYTES[dtype])


def bytes_per_element(case: Case) -> int:
    """What one call moves for each element of the parameters.

    A step reads gradient, parameter and states, and writes parameter and states. float16 parameters have
    master weights besides, which are one state more. Clipping by norm must have read the whole gradient
    before. Clipping all gradients together reads them twice and writes them.
    """
    element, state = BYTES[case.dtype], state_bytes(case.dtype)
    states = case.states + (case.dtype == "float16")
    update = 3 * element + 2 * states * state
    if case.kind == "step":
        return update
    if case.kind == "clip_norm":
        return update + element
    if case.kind == "clip_grad_norm_":
        return 3 * element
    if case.kind == "sum_grad":
        return element + 2 * state
    if case.kind == "zero_grad":
        return element
    if case.kind in ("save", "load"):
        return element + case.states * state  # parameters and states, without what describes them
    raise ValueError(f"the bytes of a {case.kind!r} are not counted")


def bytes_moved(case: Case) -> int | None:
    """What one call moves; None for a training step, whose bytes nobody counts."""
    return None if case.kind == "train" else bytes_per_element(case) * case.elements
