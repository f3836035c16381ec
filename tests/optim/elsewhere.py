# SPDX-License-Identifier: BSD-2-Clause
"""Code that runs elsewhere: in another thread, or in an interpreter of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def in_thread(function):
    """Call it in another thread; return what it returns, raise what it raises."""
    outcome = []

    def work():
        try:
            outcome.append((function(), None))
        except Exception as error:  # handed to the caller, who raises it
            outcome.append((None, error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    ((result, error),) = outcome
    if error is not None:
        raise error
    return result


def run_script(
    code: str, *arguments: str, seconds: float = 120, **environment: str
) -> subprocess.CompletedProcess:
    """Run a script in an interpreter of its own. `returncode` is negative where a signal ended it."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, paths)), **environment)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
