# SPDX-License-Identifier: BSD-2-Clause
"""`python -m benchmarks.report`: the tables and plots of README and site, from the results that are kept.

python -m benchmarks.report                      # write them
python -m benchmarks.report --check              # only look whether they are those of the results
python -m benchmarks.report --keep out/benchmarks/results.json    # keep the results of this run, then write
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path

from benchmarks import anatomy, cost, goals, overview, plots
from benchmarks.results import Results
from benchmarks.tables import Table

ROOT = Path(__file__).resolve().parents[1]
KEPT = Path(__file__).parent / "results" / "cpu.json"
README, PAGE, STATIC = ROOT / "README.md", ROOT / "docs" / "speed.rst", ROOT / "docs" / "_static"
COST = ROOT / "docs" / "cost.rst"


def between(text: str, begin: str, end: str, content: str) -> str:
    """`text` with `content` between two lines that mark its place."""
    for marker in (begin, end):
        if text.count(marker) != 1:
            raise ValueError(f"the line {marker!r} must stand there once, not {text.count(marker)} times")
    head, rest = text.split(begin)
    _, tail = rest.split(end)
    return f"{head}{begin}\n\n{content}\n\n{end}{tail}"


def readme(results: Results) -> str:
    content = f"{overview.selected(results).as_markdown()}\n\n{results.surroundings()}"
    markers = "<!-- from here: python -m benchmarks.report -->", "<!-- to here -->"
    return between(README.read_text(encoding="utf-8"), *markers, content)


def page(results: Results) -> str:
    tables = [*goals.tables(results), *overview.sections(results)]
    return _page(PAGE, results, tables)


def cost_page(results: Results) -> str:
    parts = [anatomy.table(results.anatomy)] if results.anatomy else []
    return _page(COST, results, [*cost.tables(results), *parts])


def _page(path: Path, results: Results, tables: list[Table]) -> str:
    content = "\n\n".join([results.surroundings(), *(table.as_rst() for table in tables)])
    markers = ".. from here: python -m benchmarks.report", ".. to here"
    return between(path.read_text(encoding="utf-8"), *markers, content)


def stale(results: Results) -> list[str]:
    """The files that are not those of the results."""
    texts = {README: readme, PAGE: page, COST: cost_page}
    found = [path for path, make in texts.items() if path.read_text(encoding="utf-8") != make(results)]
    # A plot bears the date of its results.
    date = re.escape(results.content["date"])
    for path in (STATIC / f"{name}.svg" for name in plots.PLOTS):
        if not path.exists() or not re.search(f"<dc:date>{date}</dc:date>", path.read_text(encoding="utf-8")):
            found.append(path)
    return [str(path.relative_to(ROOT)) for path in found]


def write(results: Results) -> None:
    README.write_text(readme(results), encoding="utf-8")
    PAGE.write_text(page(results), encoding="utf-8")
    COST.write_text(cost_page(results), encoding="utf-8")
    plots.draw(results, STATIC)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description=__doc__.splitlines()[0].split(": ")[1]
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--check", action="store_true", help="write nothing; fail if something is stale")
    group.add_argument("--keep", type=Path, metavar="JSON", help="keep these results from now on")
    arguments = parser.parse_args()
    if arguments.keep is not None:
        Results.read(arguments.keep)
        shutil.copyfile(arguments.keep, KEPT)
    results = Results.read(KEPT)
    if not arguments.check:
        write(results)
    elif stale(results):
        names = ", ".join(stale(results))
        sys.exit(f"not from {KEPT.relative_to(ROOT)}: {names}; `python -m benchmarks.report` writes them")


if __name__ == "__main__":
    main()
