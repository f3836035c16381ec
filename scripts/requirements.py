# SPDX-License-Identifier: BSD-2-Clause
"""Print requirements that pyproject.toml lists, one a line, for pip.

pip can install the requirements of an extra only together with the project itself, and the project cannot
be built before the requirements of its build are there. Usage: requirements.py build | runtime | EXTRA ...
"""

import sys
from pathlib import Path
from typing import List

if sys.version_info >= (3, 11):
    import tomllib
else:  # pip brings a reader along for the same reason that we need one
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]


def requirements(groups: List[str], root: Path = ROOT) -> List[str]:
    """Return the requirements of `groups`: `build`, `runtime` or names of extras."""
    table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    known = {
        "build": table["build-system"]["requires"],
        "runtime": table["project"]["dependencies"],
        **table["project"]["optional-dependencies"],
    }
    unknown = [group for group in groups if group not in known]
    if unknown:
        raise SystemExit(
            f"requirements.py: no group {unknown[0]!r} in pyproject.toml, only {', '.join(known)}"
        )
    return [line for group in groups for line in known[group]]


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1:])))
