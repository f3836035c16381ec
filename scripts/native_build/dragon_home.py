# SPDX-License-Identifier: BSD-2-Clause
"""Finds the Dragon to build against, without importing it.

Importing would start the framework, and would need its run-time dependencies in the build environment.
"""

import importlib.util
import mmap
import os
import re
from pathlib import Path
from typing import List, Mapping, NamedTuple, Optional

from .errors import BuildError

# The header that makes a folder ours: PyPI's unrelated package `dragon` has no C++ at all.
MARK = Path("include", "dragon", "core", "operator.h")
LIBRARY = Path("lib", "libdragon.so")
INSTALL = "pip install seeta-dragon==0.3.0"
# In libdragon.so: what only a build with CUDA defines; what it needs where it shares CUDA's runtime.
CUDA_SYMBOL = b"_ZN6dragon11CUDAContext7objectsEv"
SHARED_RUNTIME = rb"libcudart\.so\.(\d+)"


class Dragon(NamedTuple):
    """A Dragon installation that has what a C++ build needs."""

    home: Path
    version: str
    git_version: str

    @property
    def include_dir(self) -> Path:
        """Folder of the headers."""
        return self.home / "include"

    @property
    def library_dir(self) -> Path:
        """Folder of libdragon.so."""
        return self.home / "lib"

    @property
    def has_cuda(self) -> bool:
        """Whether it was built with CUDA. Dragon itself would have to be imported to be asked."""
        return self._find_in_library(re.escape(CUDA_SYMBOL)) is not None

    @property
    def shared_cuda_runtime(self) -> str:
        """The release of CUDA, such as ``12``, whose runtime it takes from a library of its own; or empty."""
        return self._find_in_library(SHARED_RUNTIME) or ""

    def _find_in_library(self, pattern: bytes) -> Optional[str]:
        path = self.home / LIBRARY
        if path.stat().st_size == 0:  # cannot be mapped
            return None
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            found = re.search(pattern, view)
            return found.group(found.lastindex or 0).decode() if found else None


def find_dragon(environ: Optional[Mapping[str, str]] = None) -> Dragon:
    """Return the Dragon that `DRAGON_HOME` names, else the installed one."""
    environ = os.environ if environ is None else environ
    named = environ.get("DRAGON_HOME")
    package = installed_package()
    home = _named_home(Path(named)) if named else _installed_home(package)
    if not (home / LIBRARY).is_file():
        raise BuildError(
            f"Dragon at {home} has headers but no {LIBRARY}: it is not built, or not completely installed"
        )
    # A build folder of Dragon has no version.py; the Python package made from it has.
    version_files = [home / "version.py"] + ([package / "version.py"] if package else [])
    for path in version_files:
        if path.is_file():
            return Dragon(home, *read_version(path))
    raise BuildError(
        f"Dragon at {home} has no version.py and no Dragon package is installed: install this build's package"
    )


def installed_package() -> Optional[Path]:
    """Return the folder of the importable package `dragon`, or None."""
    spec = importlib.util.find_spec("dragon")
    locations: List[str] = list(spec.submodule_search_locations or []) if spec else []
    return Path(locations[0]).resolve() if locations else None


def read_version(path: Path) -> "tuple[str, str]":
    """Return `(version, git_version)` as the text of a version.py has them."""
    text = path.read_text(encoding="utf-8")
    found = {}
    for name in ("version", "git_version"):
        match = re.search(rf"^{name}\s*=\s*['\"]([^'\"]*)['\"]", text, re.MULTILINE)
        if not match:
            raise BuildError(f"{path} has no line `{name} = '...'`: this is not a version.py of Dragon")
        found[name] = match.group(1)
    return found["version"], found["git_version"]


def _named_home(named: Path) -> Path:
    """Accept an install folder, the package's folder, or a source folder with Dragon's own build in it."""
    for home in (named, named / "dragon", named / "targets" / "native"):
        if (home / MARK).is_file():
            return home.resolve()
    raise BuildError(
        f"DRAGON_HOME={named} is not a Dragon: no {MARK} in it, nor in its dragon/ or targets/native/"
    )


def _installed_home(package: Optional[Path]) -> Path:
    if package is None:
        raise BuildError(
            f"Dragon is not installed here: {INSTALL}, or set DRAGON_HOME to a folder with include/ and lib/"
        )
    if not (package / MARK).is_file():
        raise BuildError(
            f"the package 'dragon' at {package} is not the Dragon framework, which PyPI calls seeta-dragon "
            f"(no {MARK} in it): pip uninstall dragon, then {INSTALL}"
        )
    return package
