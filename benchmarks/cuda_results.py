# SPDX-License-Identifier: BSD-2-Clause
"""The results of a run on a GPU: their tables, and what is to be reached."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Callable

from benchmarks.results import COMPILED, FOR_LOOP, FOREACH, OURS, Measured
from benchmarks.tables import Table, digits

GRAPH, TORCH_GRAPH, COPY = "in a graph", "torch graph", "copy"
SIDES = (OURS, GRAPH, FOR_LOOP, FOREACH, TORCH_GRAPH, COMPILED, COPY)

KIND, CHECK_KIND = "cuda", "cuda check"

LARGE = 1_000_000  # elements of one tensor, from which on the bandwidth decides
BEYOND_CACHES = 1 << 24  # from which on a goal asks for the copy's bandwidth
MANY = "1000 x 100, momentum"


def read(path: Path, kind: str) -> dict[str, Any] | None:
    """What a file of this kind holds, or None where there is none."""
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("kind") != kind:
        raise ValueError(f"{path}: its kind is {content.get('kind')!r}, not {kind!r}")
    return content


def measured(content: dict[str, Any]) -> list[Measured]:
    return [Measured(entry) for entry in content["cases"]]


def is_large(tensors: int, elements: int) -> bool:
    return tensors == 1 and elements >= LARGE


def times(content: dict[str, Any]) -> Table:
    header = ["microseconds", "MB", "GB/s", "of the copy", *SIDES]
    rows = []
    for case in measured(content):
        speed = digits(case.gigabytes_per_second(OURS)) if case.has(OURS) else "-"
        share = f"{case.ratio(COPY, OURS):.2f}" if case.has(OURS, COPY) else "-"
        medians = [digits(1e6 * case.median(side)) if case.has(side) else "-" for side in SIDES]
        rows.append([case.name, digits(case.bytes / 1e6), speed, share, *medians])
    return Table("One step on a GPU, float32", header, rows)


def goals(content: dict[str, Any]) -> Table:
    rows: list[list[str]] = []
    for case in measured(content):
        large = is_large(case.tensors, case.elements)
        if large and case.elements >= BEYOND_CACHES:
            rows.append(_times(case, COPY, "of the copy's bandwidth", 0.9))
        if large:
            rows.append(_times(case, FOREACH, "x as fast as torch foreach", 3))
            rows.append(_times(case, COMPILED, "x as fast as torch.compile", 1))
        if case.name == MANY:
            rows.append(_launches(case))
            rows.append(_times(case, FOR_LOOP, "x as fast as torch for-loop", 20))
    return Table("Goals on a GPU", ["goal", "wanted", "found", "reached"], rows)


def _times(case: Measured, other: str, what: str, wanted: float) -> list[str]:
    goal = [case.name, f">= {wanted:g} {what}"]
    if not case.has(OURS, other):
        return [*goal, "-", "not measured"]
    found = case.ratio(other, OURS)
    return [*goal, f"{found:.2f}", "yes" if found >= wanted else "no"]


def _launches(case: Measured) -> list[str]:
    goal = [case.name, "<= 3 launches"]
    if case.launches is None:
        return [*goal, "-", "not measured"]
    return [*goal, str(case.launches), "yes" if case.launches <= 3 else "no"]


def absent(content: dict[str, Any]) -> list[str]:
    """What was not measured, and why; the cases of a reason together."""
    reasons: dict[str, list[str]] = {}
    for case in measured(content):
        for side, why in case.absent.items():
            reasons.setdefault(f"{side}: {why}", []).append(case.name)
    return [f"{reason} ({'; '.join(names)})" for reason, names in reasons.items()]


def checks(content: dict[str, Any]) -> Table:
    """What `check_cuda.py` found."""
    rows = []
    for name, found in content["checks"].items():
        same = "the same bits" if found.get("cases") else "left out"
        count = str(found.get("cases", "-"))
        rows.append([name.replace("_", " "), count, "FAILED" if "failed" in found else same])
    rows += [[f"compute-sanitizer {tool}", "-", said] for tool, said in content["sanitizer"].items()]
    title = "Against the CPU's kernels" + (", a short selection" if content["quick"] else "")
    return Table(title, ["check", "cases", "found"], rows)


def surroundings(content: dict[str, Any]) -> str:
    """The card, versions, commit and date."""
    card, date = content["card"], content["date"][:10]
    driver = f", driver {card['driver']}" if "driver" in card else ""
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    commit = re.sub(r"^(\w{9})\w*", r"\1", content["commit"] or "unknown")
    return f"{card['name']}{driver}; {versions}. Run on {date} at commit {commit}.{_clocks(content)}"


def _clocks(content: dict[str, Any]) -> str:
    clocks = [case["clocks"].get("sm_mhz") for case in content.get("cases", [])]
    known = [clock for clock in clocks if isinstance(clock, (int, float))]
    return f" Its multiprocessors ran at {min(known):.0f} to {max(known):.0f} MHz." if known else ""


def as_text(content: dict[str, Any]) -> str:
    """What a run prints."""
    parts = [times(content).as_text(), goals(content).as_text()]
    if absent(content):
        parts.append("\n".join(["Not measured", "", *absent(content)]))
    return "\n\n".join([*parts, surroundings(content)])


NOT_RUN: dict[str, str] = {
    CHECK_KIND: "The kernels have not been run on a GPU so far: run ``python tests/kernels/check_cuda.py``.",
    KIND: "Their speed on a GPU has not been measured so far: run ``python benchmarks/cuda.py``.",
}


def as_rst(speed: dict[str, Any] | None, check: dict[str, Any] | None) -> str:
    """What the site shows of both runs, or that there was none."""
    tables: dict[str, tuple[dict[str, Any] | None, list[Callable[[dict[str, Any]], Table]]]] = {
        CHECK_KIND: (check, [checks]),
        KIND: (speed, [goals, times]),
    }
    parts = []
    for kind, (content, makers) in tables.items():
        if content is None:
            parts.append(NOT_RUN[kind])
        else:
            parts += [surroundings(content), *(make(content).as_rst() for make in makers)]
    return "\n\n".join(parts)
