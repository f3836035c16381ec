# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of the build share. They look at the source folder: they cannot run beside a mere wheel."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The build's own modules are not part of the package: setup.py and these tests put their folder on the path.
sys.path.insert(0, str(ROOT / "scripts"))


@pytest.fixture(scope="session")
def root():
    """Folder of the sources."""
    return ROOT


@pytest.fixture
def make_dragon(tmp_path):
    """Return a function that lays out the parts of a Dragon that a build looks for."""

    def make(name, *, headers=True, library=True, version="0.3.0", cuda=b""):
        home = tmp_path / name
        home.mkdir(parents=True)
        (home / "__init__.py").write_text("raise ImportError('a build must not import Dragon')\n")
        if headers:
            (home / "include" / "dragon" / "core").mkdir(parents=True)
            (home / "include" / "dragon" / "core" / "operator.h").touch()
        if library:
            (home / "lib").mkdir()
            (home / "lib" / "libdragon.so").write_bytes(cuda)
        if version:
            (home / "version.py").write_text(f"version = '{version}'\ngit_version = 'abc'\n")
        return home

    return make


@pytest.fixture
def script(tmp_path):
    """Return a function that writes an executable shell script into a folder below `tmp_path`."""

    def write(folder, name, body):
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return write
