# SPDX-License-Identifier: BSD-2-Clause
"""`python -m benchmarks.report`: the tables and plots of README and site, from the results that are kept.

python -m benchmarks.report                      # write them
python -m benchmarks.report --check              # only look whether they are those of the results
python -m benchmarks.report --keep out/benchmarks/results.json    # keep the results of this run, then write
python -m benchmarks.report --keep out/cuda/check.json            # so too those of the two runs on a GPU
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks import anatomy, cost, cuda_results, goals, overview, plots
from benchmarks.results import Results
from benchmarks.tables import Table

ROOT = Path(__file__).resolve().parents[1]
KEPT = Path(__file__).parent / "results" / "cpu.json"
KEPT_OF_GPU = {  # by kind
    cuda_results.KIND: KEPT.with_name("cuda.json"),
    cuda_results.CHECK_KIND: KEPT.with_name("cuda_check.json"),
}
README, PAGE, STATIC = ROOT / "README.md", ROOT / "docs" / "speed.rst", ROOT / "docs" / "_static"
COST = ROOT / "docs" / "cost.rst"


PLOTS = {
    "time_by_elements": "Time of a step against the number of elements",
    "time_by_tensors": "Time of a step against the number of tensors",
}


def kept() -> Results | None:
    """The results that the sources show. Before there are any, they show none."""
    return Results.read(KEPT) if KEPT.exists() else None


def kept_of_gpu() -> list[dict[str, Any] | None]:
    """Those of both runs on a GPU."""
    return [cuda_results.read(path, kind) for kind, path in KEPT_OF_GPU.items()]


def keep(file: Path) -> None:
    """Copy the results to their place, which is that of their kind."""
    kind = json.loads(file.read_text(encoding="utf-8")).get("kind")
    if kind is None:
        Results.read(file)
    elif kind not in KEPT_OF_GPU:
        raise ValueError(f"{file}: nobody knows results of the kind {kind!r}")
    place = KEPT if kind is None else KEPT_OF_GPU[kind]
    place.parent.mkdir(exist_ok=True)
    shutil.copyfile(file, place)


def between(text: str, begin: str, end: str, content: str) -> str:
    """`text` with `content` between two lines that mark its place."""
    for marker in (begin, end):
        if text.count(marker) != 1:
            raise ValueError(f"the line {marker!r} must stand there once, not {text.count(marker)} times")
    head, rest = text.split(begin)
    _, tail = rest.split(end)
    return f"{head}{begin}\n\n{content}\n\n{end}{tail}" if content else f"{head}{begin}\n{end}{tail}"


def readme(results: Results | None) -> str:
    content = ""
    if results is not None:
        images = "\n".join(f"![{label}](docs/_static/{name}.svg)" for name, label in PLOTS.items())
        content = "\n\n".join([overview.selected(results).as_markdown(), results.surroundings(), images])
    markers = "<!-- from here: python -m benchmarks.report -->", "<!-- to here -->"
    return between(README.read_text(encoding="utf-8"), *markers, content)


def page(results: Results | None) -> str:
    parts = []
    if results is not None:
        parts = [f".. image:: _static/{name}.svg\n   :alt: {label}" for name, label in PLOTS.items()]
        parts += [table.as_rst() for table in [*goals.tables(results), *overview.sections(results)]]
    markers = ".. of GPUs from here: python -m benchmarks.report", ".. of GPUs to here"
    return between(_page(PAGE, results, parts), *markers, cuda_results.as_rst(*kept_of_gpu()))


def cost_page(results: Results | None) -> str:
    tables: list[Table] = []
    if results is not None:
        tables = [*cost.tables(results), *([anatomy.table(results.anatomy)] if results.anatomy else [])]
    return _page(COST, results, [table.as_rst() for table in tables])


def _page(path: Path, results: Results | None, parts: list[str]) -> str:
    content = "\n\n".join([results.surroundings(), *parts]) if results is not None else ""
    markers = ".. from here: python -m benchmarks.report", ".. to here"
    return between(path.read_text(encoding="utf-8"), *markers, content)


def _plot_is_of(path: Path, results: Results | None) -> bool:
    """A plot bears the date of its results."""
    if results is None or not path.exists():
        return results is None and not path.exists()
    return f"<dc:date>{results.content['date']}</dc:date>" in path.read_text(encoding="utf-8")


def stale(results: Results | None) -> list[str]:
    """The files that are not those of the results."""
    texts = {README: readme, PAGE: page, COST: cost_page}
    found = [path for path, make in texts.items() if path.read_text(encoding="utf-8") != make(results)]
    found += [path for name in PLOTS if not _plot_is_of(path := STATIC / f"{name}.svg", results)]
    return [str(path.relative_to(ROOT)) for path in found]


def write(results: Results | None) -> None:
    README.write_text(readme(results), encoding="utf-8")
    PAGE.write_text(page(results), encoding="utf-8")
    COST.write_text(cost_page(results), encoding="utf-8")
    if results is not None:
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
        keep(arguments.keep)
    results = kept()
    place = KEPT.relative_to(ROOT)
    if arguments.check:
        if stale(results):
            sys.exit(
                f"not from {place}: {', '.join(stale(results))}; `python -m benchmarks.report` writes them"
            )
    elif results is None and not any(kept_of_gpu()):
        sys.exit(f"{place} is not there: --keep makes it from the results of a run")
    else:
        write(results)


if __name__ == "__main__":
    main()
