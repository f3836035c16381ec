# SPDX-License-Identifier: BSD-2-Clause
"""What is said about the results of a run: its tables, and what is missing in them."""

from __future__ import annotations

from benchmarks import anatomy, cost, goals
from benchmarks.cases import Case, step
from benchmarks.results import COMPILED, FOR_LOOP, FOREACH, LIMIT, OURS, SIDES, STOCK, Measured, Results
from benchmarks.tables import Table, digits, milliseconds

SECTIONS = {
    "One step()": ["step"],
    "Clipping, sums of gradients, zero_grad()": ["clip_norm", "clip_grad_norm_", "sum_grad", "zero_grad"],
    "Files": ["save", "load"],
    "A training step": ["train"],
}
# The rows of README: what people train, and the two ends.
SELECTED: dict[str, Case] = {
    "1 tensor of 10 M": step("1 x 10M", "plain"),
    "the same, momentum": step("1 x 10M"),
    "the same, momentum and centered": step("1 x 10M", "momentum + centered"),
    "ResNet-50, momentum": step("ResNet-50"),
    "MobileNetV3-Large, momentum": step("MobileNetV3-Large"),
    "12-layer transformer, momentum": step("transformer"),
    "161 tensors of 16 K, momentum": step("161 x 16K"),
    "1000 tensors of 100, momentum": step("1000 x 100"),
    "1 tensor of 100, momentum": step("1 x 100"),
}


def _marked(label: str, measured: Measured) -> str:
    return f"{label} (!)" if measured.disturbed else label


def _with_spread(measured: Measured, side: str) -> str:
    if not measured.has(side):
        return "-"
    return f"{milliseconds(measured.median(side))} +- {milliseconds(measured.half_spread(side))}"


def _row(measured: Measured, sides: list[str], traffic: bool) -> list[str]:
    cells = [_marked(measured.label, measured)]
    if traffic:
        cells.append(digits(measured.bytes / 1e6))
        cells.append(digits(measured.gigabytes_per_second(OURS)) if measured.has(OURS) else "-")
        cells.append(digits(measured.ratio(LIMIT, OURS), 2) if measured.has(LIMIT, OURS) else "-")
    return cells + [_with_spread(measured, side) for side in sides]


def sections(results: Results) -> list[Table]:
    """Everything that was measured."""
    found = []
    for title, kinds in SECTIONS.items():
        measured = results.of_kinds(kinds)
        if not measured:
            continue
        sides = [side for side in SIDES if any(each.has(side) for each in measured)]
        traffic = kinds != ["train"]
        moved = ["MB", "GB/s", "of limit"] if traffic else []
        header = ["milliseconds", *moved, *sides]
        found.append(Table(title, header, [_row(each, sides, traffic) for each in measured]))
    return found


def missing(results: Results) -> list[str]:
    """What could not be measured and why, with the cases that it concerns."""
    cases: dict[str, list[str]] = {f"{what}: {why}": [] for what, why in results.content["missing"].items()}
    for measured in results.measured:
        for side, why in measured.absent.items():
            cases.setdefault(f"{side}: {why}", []).append(measured.label)
    return [f"{reason} ({'; '.join(names)})" if names else reason for reason, names in cases.items()]


def everything(results: Results) -> str:
    """What a run prints."""
    tables = [*sections(results), *goals.tables(results), *cost.tables(results)]
    if results.anatomy:
        tables.append(anatomy.table(results.anatomy))
    parts = [table.as_text() for table in tables]
    if missing(results):
        parts.append("\n".join(["Not measured", "", *missing(results)]))
    return "\n\n".join([*parts, results.surroundings()])


def selected(results: Results) -> Table:
    """The table of README."""
    sides = (LIMIT, STOCK, FOR_LOOP, FOREACH, COMPILED)
    rows = []
    for label, case in SELECTED.items():
        measured = results.find(case)
        if measured is None or not measured.has(OURS):
            continue
        share = f"{measured.ratio(LIMIT, OURS):.2f}" if measured.has(LIMIT) else ""
        medians = [milliseconds(measured.median(side)) if measured.has(side) else "" for side in sides]
        rows.append([_marked(label, measured), milliseconds(measured.median(OURS)), share, *medians])
    stock = f"stock Dragon {results.content['versions']['dragon']}"
    header = ["milliseconds", OURS, "of memory speed", LIMIT, stock, "PyTorch for-loop", "foreach", COMPILED]
    return Table("One step()", header, rows)
