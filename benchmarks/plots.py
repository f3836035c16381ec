# SPDX-License-Identifier: BSD-2-Clause
"""The plots: time against elements, and time against the number of tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Sequence

import matplotlib
from matplotlib.figure import Figure

from benchmarks.cases import single, tiny
from benchmarks.results import COMPILED, FOR_LOOP, FOREACH, LIMIT, OURS, STOCK, Measured, Results

# Okabe and Ito's colours, for every colour vision; ours and stock's as in the examples.
LOOKS = {
    FOR_LOOP: dict(color="#CC79A7", marker="v", label="PyTorch for-loop"),
    FOREACH: dict(color="#D55E00", marker="^", label="PyTorch foreach"),
    COMPILED: dict(color="#009E73", marker="s", label="torch.compile"),
    STOCK: dict(color="#E69F00", marker="D", label="stock Dragon"),
    OURS: dict(color="#0072B2", marker="o", label="dragon_optim", linewidth=2.5, zorder=3),
    LIMIT: dict(color="#777777", linestyle="dotted", label="limit: the same bytes, no arithmetic"),
}
# By name of the file: title, cases, and what of them is the abscissa.
PLOTS = {
    "time_by_elements": ("One step() over one float32 tensor", single, "elements"),
    "time_by_tensors": ("One step() with momentum over tensors of 100 elements", tiny, "tensors"),
}
STYLE = {
    "font.size": 11,
    "svg.fonttype": "none",
    "svg.hashsalt": "dragon_optim",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#888888",
    "grid.color": "#e4e4e4",
    "lines.markersize": 5,
    "legend.frameon": False,
}


def draw(results: Results, folder: Path) -> list[Path]:
    """Write both plots as SVG, as far as their cases were measured, and return where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    date, paths = results.content["date"], []
    with matplotlib.rc_context(STYLE):
        for name, (title, cases, over) in PLOTS.items():
            measured = [found for found in map(results.find, cases()) if found is not None]
            if not measured:
                continue
            figure = Figure(figsize=(7.5, 4.6), layout="constrained")
            axes = figure.subplots()
            _plot(axes, measured, over)
            axes.set_title(title)
            paths.append(folder / f"{name}.svg")
            figure.savefig(paths[-1], metadata={"Date": date, "Creator": None})
    return paths


def _plot(axes: Any, measured: Sequence[Measured], over: str) -> None:
    for side, look in LOOKS.items():
        points = [each for each in measured if each.has(side)]
        if not points:
            continue
        xs = [each.entry[over] for each in points]
        axes.plot(xs, [1e3 * each.median(side) for each in points], **look)
        lower, upper = (
            [1e3 * each.sides[side][quartile] for each in points]
            for quartile in ("lower_quartile", "upper_quartile")
        )
        axes.fill_between(xs, lower, upper, color=look["color"], alpha=0.2, linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel=f"number of {over}", ylabel="milliseconds, 2 threads")
    axes.grid(True)
    axes.legend(reverse=True)
