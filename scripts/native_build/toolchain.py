# SPDX-License-Identifier: BSD-2-Clause
"""Finds the C++ compiler and asks it what it is."""

import os
import shlex
import shutil
import subprocess
import sys
from typing import Mapping, NamedTuple, Optional, Tuple

from .errors import BuildError

CANDIDATES = ("g++", "c++", "clang++")


class Compiler(NamedTuple):
    """A C++ compiler: how to call it, its version line, and the machine it compiles for."""

    command: Tuple[str, ...]
    version: str
    machine: str


def find_compiler(environ: Optional[Mapping[str, str]] = None) -> Compiler:
    """Return the compiler that `CXX` names, else the first of the usual ones on the PATH."""
    environ = os.environ if environ is None else environ
    path = environ.get("PATH")
    named = shlex.split(environ.get("CXX", ""))
    if named:
        if not shutil.which(named[0], path=path):
            raise BuildError(f"CXX={environ['CXX']}: there is no such compiler")
        return _describe(tuple(named))
    for name in CANDIDATES:
        if shutil.which(name, path=path):
            return _describe((name,))
    raise BuildError(
        "no C++ compiler found: install g++ (Debian and Ubuntu: apt-get install g++), or set CXX"
    )


def require_linux(platform: str = sys.platform) -> None:
    """Refuse other systems: flags, names and the linker's script below are those of Linux."""
    if platform != "linux":
        raise BuildError(f"only Linux is supported, and this is {platform}")


def _describe(command: Tuple[str, ...]) -> Compiler:
    # The compiler's word and not platform.machine(): CXX may be a cross compiler.
    target = _ask(command, "-dumpmachine")
    return Compiler(command, _ask(command, "--version"), target.split("-")[0])


def _ask(command: Tuple[str, ...], option: str) -> str:
    try:
        run = subprocess.run([*command, option], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"`{' '.join(command)} {option}` failed: is it a C++ compiler? ({error})") from error
    lines = run.stdout.decode(errors="replace").splitlines()
    return lines[0].strip() if lines else ""
