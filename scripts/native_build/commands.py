# SPDX-License-Identifier: BSD-2-Clause
"""The setuptools commands: build_ext that makes the libraries, bdist_wheel that names what it has made."""

import filecmp
import json
import os
import shutil
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from setuptools import Extension
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError

from . import cuda, libraries
from .dragon_home import Dragon, find_dragon
from .errors import BuildError
from .incremental import build_library
from .toolchain import Compiler, find_compiler, require_linux

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools < 70.1 leaves this command to the package `wheel`
    try:
        from wheel.bdist_wheel import bdist_wheel
    except ImportError:  # no wheel can be made then, yet `build_ext --inplace` works
        bdist_wheel = None

ROOT = Path(__file__).resolve().parents[2]
PACKAGE_LIB = Path("dragon_optim", "_lib")
BUILD_INFO = "build_info.json"
FILES = (f"lib{libraries.KERNELS}.so", f"lib{libraries.OPERATORS}.so", BUILD_INFO)


def extensions(root: Path) -> List[Extension]:
    """Return the libraries as setuptools sees them: a wheel that is not pure, and sources for the sdist."""
    return [
        Extension(f"dragon_optim._lib.lib{libraries.KERNELS}", _names(libraries.kernel_sources(root))),
        Extension(f"dragon_optim._lib.lib{libraries.OPERATORS}", _names(libraries.operator_sources(root))),
    ]


def command_classes() -> Dict[str, Any]:
    """Return our commands under the names they replace."""
    classes: Dict[str, Any] = {"build_ext": BuildNative}
    if bdist_wheel is not None:
        classes["bdist_wheel"] = platform_wheel(bdist_wheel)
    return classes


def wheel_tag(tag: Tuple[str, str, str]) -> Tuple[str, str, str]:
    """Return `tag` without Python version and ABI: the libraries never touch Python's C API."""
    return "py3", "none", tag[2]


def platform_wheel(base: Any) -> Any:
    """Return a bdist_wheel, made from setuptools' or wheel's own, whose wheels serve every Python 3."""

    class PlatformWheel(base):
        def finalize_options(self) -> None:
            super().finalize_options()
            self.root_is_pure = False

        def get_tag(self) -> Tuple[str, str, str]:
            return wheel_tag(super().get_tag())

    return PlatformWheel


class BuildNative(build_ext):
    """Builds both libraries with our own flags instead of those that Python itself was built with."""

    def run(self) -> None:
        """Build the libraries and put them, with build_info.json, into the package's `_lib`."""
        try:
            self._build()
        except BuildError as error:
            raise BaseError(f"dragon_optim: {error}") from error

    def get_outputs(self) -> List[str]:
        """Return the files that `run` makes, where a wheel takes them from."""
        return [str(Path(self.build_lib, PACKAGE_LIB, name)) for name in FILES]

    def get_output_mapping(self) -> Dict[str, str]:
        """Return where each output is in the source folder, for an editable install."""
        in_place = self._target_dir() == ROOT / PACKAGE_LIB
        return {path: str(PACKAGE_LIB / Path(path).name) for path in self.get_outputs()} if in_place else {}

    def _build(self) -> None:
        require_linux()
        compiler, dragon = find_compiler(), find_dragon()
        # Not self.build_temp: an editable install gets a new one each time, and would compile all again.
        build_dir = ROOT / "build" / "native"
        nvcc = cuda.find_nvcc() if dragon.has_cuda else None
        toolkit = cuda.toolkit_for(dragon, nvcc)
        target = self._target_dir()
        target.mkdir(parents=True, exist_ok=True)
        info = target / BUILD_INFO
        # Nothing loads the libraries without it: a build that fails half-way leaves no mixture behind.
        info.unlink(missing_ok=True)
        kernels = libraries.kernels(ROOT, compiler.machine)
        install(build_library(kernels, compiler, ROOT, build_dir, log), target)
        parts = None
        if nvcc and toolkit:
            shared = cuda.shares_runtime(dragon, nvcc)
            parts = cuda.parts(nvcc, toolkit, ROOT, build_dir, log, shared_runtime=shared)
        operators = libraries.operators(ROOT, dragon, build_dir, cuda=parts)
        install(build_library(operators, compiler, ROOT, build_dir, log), target)
        info.write_text(json.dumps(build_info(dragon, compiler, nvcc), indent=2) + "\n", encoding="utf-8")

    def _target_dir(self) -> Path:
        in_place = self.inplace or getattr(self, "editable_mode", False)
        return (ROOT if in_place else Path(self.build_lib).resolve()) / PACKAGE_LIB


def build_info(dragon: Dragon, compiler: Compiler, nvcc: Optional[cuda.Nvcc] = None) -> Dict[str, str]:
    """Return what the loader compares with the Dragon it finds, and what a bug report needs."""
    info = {
        "dragon_version": dragon.version,
        "dragon_git_version": dragon.git_version,
        "compiler": compiler.version,
        "machine": compiler.machine,
    }
    return dict(info, cuda_compiler=f"nvcc {nvcc.version}") if nvcc else info


def install(source: Path, folder: Path) -> None:
    """Put a library in place at once: a process that has the old one loaded keeps its old file."""
    target = folder / source.name
    if target.exists() and filecmp.cmp(source, target, shallow=False):
        return
    unfinished = target.with_name(target.name + ".tmp")
    shutil.copy2(source, unfinished)
    os.replace(unfinished, target)


def log(line: str) -> None:
    """Print a line of progress at once, also into a pipe."""
    print(line, flush=True)


def _names(paths: List[Path]) -> List[str]:
    return [path.as_posix() for path in paths]
