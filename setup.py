# SPDX-License-Identifier: BSD-2-Clause
"""Build the package; everything static is in pyproject.toml, the native build in scripts/native_build."""

import pathlib
import sys

from setuptools import setup

ROOT = pathlib.Path(__file__).resolve().parent
# A PEP 517 front end does not put the project's folder on sys.path.
sys.path.insert(0, str(ROOT / "scripts"))

from native_build import commands  # noqa: E402

setup(ext_modules=commands.extensions(ROOT), cmdclass=commands.command_classes(), license="BSD-2-Clause")
