# SPDX-License-Identifier: BSD-2-Clause
"""Which sources were measured."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def commit() -> str | None:
    """The commit of the sources, with a + where files differ from it; None outside of a repository."""
    git = ["git", "-C", str(ROOT)]
    try:
        name, changes = (
            subprocess.run([*git, *command], capture_output=True, text=True, check=True).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return name + ("+" if changes else "")
