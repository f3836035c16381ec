# SPDX-License-Identifier: BSD-2-Clause
"""compute-sanitizer over a command: what each of its tools says."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
USUAL_PLACE = Path("/usr/local/cuda/bin/compute-sanitizer")

CLEAN = "clean"
NOT_INSTALLED = "not run: compute-sanitizer is not installed"


def find() -> str | None:
    return shutil.which("compute-sanitizer") or (str(USUAL_PLACE) if USUAL_PLACE.exists() else None)


def sanitize(tool: str, command: list, seconds: float) -> tuple[str, str]:
    """What the tool finds: "clean", or what is wrong; and what it and the command have printed."""
    program = find()
    if program is None:
        return NOT_INSTALLED, ""
    # Not the calls of CUDA that fail: others try some in vain, and of ours each is an exception.
    options = ["--tool", tool, "--report-api-errors", "no", "--error-exitcode", "9"]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [program, *options, *command], stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(seconds)
        except BaseException as error:
            # The command too, the tool's child: it would go on, and the next tool have to share the GPU.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            status = None
        output.seek(0)
        printed = output.read().decode(errors="replace")
    if status is None:
        return f"not finished in {seconds:g} s", printed
    if status != 0:
        return f"exit status {status}", printed
    return (CLEAN if " SUMMARY: 0 " in printed else "exit status 0, but no summary of no errors"), printed
