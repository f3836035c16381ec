# SPDX-License-Identifier: BSD-2-Clause
"""Tables as text, as Markdown and as reStructuredText."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Sequence


@dataclass(frozen=True)
class Table:
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        wrong = [row for row in self.rows if len(row) != len(self.header)]
        if wrong:
            raise ValueError(f"{self.title}: {len(self.header)} columns, but a row is {wrong[0]}")

    def as_text(self) -> str:
        columns = list(zip(self.header, *self.rows))
        widths = [max(map(len, column)) for column in columns]

        def line(cells: Sequence[str]) -> str:
            first, *others = (
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(cells, widths))
            )
            return "  ".join([first, *others]).rstrip()

        rule = "  ".join("-" * width for width in widths)
        return "\n".join([self.title, "", line(self.header), rule, *map(line, self.rows)])

    def as_markdown(self) -> str:
        lines = [self.header, ["---"] + ["---:"] * (len(self.header) - 1), *self.rows]
        return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)

    def as_rst(self) -> str:
        lines: list[str] = [f".. list-table:: {self.title}", "   :header-rows: 1", ""]
        for row in (self.header, *self.rows):
            for place, cell in enumerate(row):
                cell = re.sub(r"_(?!\w)", r"\_", cell)  # else `clip_grad_norm_` is a reference
                lines.append(f"   {'* -' if place == 0 else '  -'} {cell}".rstrip())
        return "\n".join(lines)


def digits(value: float, significant: int = 3) -> str:
    """A number with so many significant digits, never in the form 1e+03."""
    exponent = int(f"{value:.{significant - 1}e}".split("e")[1])  # after rounding: 9.999 has that of 10.0
    return f"{value:.{max(0, significant - 1 - exponent)}f}"


def milliseconds(seconds: float) -> str:
    return digits(1e3 * seconds)
