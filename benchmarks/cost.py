# SPDX-License-Identifier: BSD-2-Clause
"""How the time of a step grows: three prices, and what they say of other models."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.cases import Case, step
from benchmarks.results import OURS, Results
from benchmarks.tables import Table, digits, milliseconds
from benchmarks.traffic import bytes_moved

ONE, MANY, LARGE = step("1 x 100"), step("1000 x 100"), step("1 x 10M")
COMPARED = ("ResNet-50", "MobileNetV3-Large", "transformer", "161 x 16K", "100 x 100")
BILLION = 10**9
TENSORS_OF_A_BILLION = 500


@dataclass(frozen=True)
class Prices:
    """Seconds for each step, for each tensor and for each byte that is moved: with momentum, two threads."""

    step: float
    tensor: float
    byte: float

    def of(self, tensors: int, moved: int) -> float:
        """Seconds of a step."""
        return self.step + tensors * self.tensor + moved * self.byte


def prices(results: Results) -> Prices | None:
    """From three cases; None if one was not measured."""
    found = [results.find(case) for case in (ONE, MANY, LARGE)]
    if any(each is None or not each.has(OURS) for each in found):
        return None
    one, many, large = (each.median(OURS) for each in found if each is not None)
    # A tensor of 100 elements is in the caches, where its bytes cost next to nothing.
    tensor = max(0.0, (many - one) / (MANY.tensors - ONE.tensors))
    return Prices(max(0.0, one - tensor), tensor, large / bytes_moved(LARGE))


def tables(results: Results) -> list[Table]:
    """The prices, and what they say, beside what was measured."""
    found = prices(results)
    if found is None:
        return []
    price = Table(
        "What a step costs (momentum, float32, 2 threads)",
        ["for each", "time"],
        [
            ["step", f"{digits(1e6 * found.step)} us"],
            ["tensor", f"{digits(1e9 * found.tensor)} ns"],
            ["element (28 bytes)", f"{digits(28e9 * found.byte)} ns"],
        ],
    )
    rows = []
    for case in map(step, COMPARED):
        measured = results.find(case)
        if measured is not None and measured.has(OURS):
            rows.append(_row(case, found, measured.median(OURS)))
    seconds = found.of(TENSORS_OF_A_BILLION, 28 * BILLION)
    rows.append(
        [
            f"{TENSORS_OF_A_BILLION} tensors of 2 M",
            str(TENSORS_OF_A_BILLION),
            "1000",
            milliseconds(seconds),
            "-",
        ]
    )
    header = ["parameters", "tensors", "million elements", "ms, by these prices", "ms, measured"]
    return [price, Table("What the prices say of other models", header, rows)]


def _row(case: Case, found: Prices, measured: float) -> list[str]:
    said = found.of(case.tensors, bytes_moved(case))
    elements = digits(case.elements / 1e6)
    return [case.parameters, str(case.tensors), elements, milliseconds(said), milliseconds(measured)]
