# SPDX-License-Identifier: BSD-2-Clause
"""Running the example scripts, and looking at what they leave behind."""

import importlib.util
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
DEMO_EXTRA = ("matplotlib", "sklearn", "tqdm")

needs_examples = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples are not beside these tests")
needs_demo = [
    needs_examples,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in DEMO_EXTRA),
        reason="the examples need what `pip install dragon_optim[demo]` brings",
    ),
]


def run_python(*arguments, directory):
    """Run Python in `directory` with the `dragon_optim` that this process would import."""
    package = Path(importlib.util.find_spec("dragon_optim").origin).parent
    search_path = [str(package.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search_path))}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)


def run_example(name, *arguments, directory):
    return run_python(EXAMPLES / name, *arguments, directory=directory)


def png_size(path):
    """Return width and height of a PNG file."""
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", header[16:24])
