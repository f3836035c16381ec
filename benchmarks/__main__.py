# SPDX-License-Identifier: BSD-2-Clause
"""`python -m benchmarks`: measure, print tables, write the results as JSON."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import sys
from pathlib import Path

from benchmarks import cases
from benchmarks.timing import SPIN, Settings

os.environ.update({name: value for name, value in SPIN.items() if name not in os.environ})

OUTPUT = Path(__file__).resolve().parents[1] / "out" / "benchmarks"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure dragon_optim beside stock Dragon, PyTorch and the limit of the memory.",
    )
    selection = parser.add_mutually_exclusive_group()
    selection.add_argument("--full", action="store_true", help="all combinations: hours")
    selection.add_argument("--quick", action="store_true", help="little of each: does everything work?")
    parser.add_argument("--only", metavar="REGEX", type=pattern, help="only cases whose names have a match")
    parser.add_argument("--list", action="store_true", help="print the names of the cases, measure nothing")
    parser.add_argument("--rounds", type=int, help=f"turns of each side at most ({Settings.rounds})")
    parser.add_argument("--seconds", type=float, help=f"of each turn at least ({Settings.seconds})")
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out")
    parser.add_argument("--json", type=Path, help=f"where to write the results ({OUTPUT}/results.json)")
    arguments = parser.parse_args()
    if arguments.rounds is not None and arguments.rounds < 2:
        parser.error(f"--rounds {arguments.rounds}: a spread needs at least 2")
    if arguments.seconds is not None and not arguments.seconds > 0:
        parser.error(f"--seconds {arguments.seconds}: a turn needs some time")
    return arguments


def pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None


def chosen_settings(arguments: argparse.Namespace) -> Settings:
    settings = Settings(rounds=3, fewest_rounds=3, seconds=0.002) if arguments.quick else Settings()
    if arguments.rounds is not None:
        fewest = min(settings.fewest_rounds, arguments.rounds)
        settings = dataclasses.replace(settings, rounds=arguments.rounds, fewest_rounds=fewest)
    if arguments.seconds is not None:
        settings = dataclasses.replace(settings, seconds=arguments.seconds)
    return settings


def main() -> None:
    arguments = parse_arguments()
    selection = "full" if arguments.full else "quick" if arguments.quick else "default"
    chosen = cases.SELECTIONS[selection]()
    if arguments.only is not None:
        chosen = [case for case in chosen if arguments.only.search(case.name)]
    if arguments.list:
        print("\n".join(case.name for case in chosen))
        return
    if not chosen:
        sys.exit(f"--only {arguments.only.pattern}: no case has such a name; --list prints them")
    from benchmarks import run  # imports Dragon, whose threads have looked at the environment by then

    run.main(
        chosen,
        chosen_settings(arguments),
        {"selection": selection, "only": arguments.only.pattern if arguments.only else None},
        with_torch=not arguments.no_torch,
        output=arguments.json or OUTPUT / "results.json",
    )


if __name__ == "__main__":
    main()
