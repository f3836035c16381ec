# SPDX-License-Identifier: BSD-2-Clause
"""What the two libraries are made of: their sources and the flags of each."""

import os
from pathlib import Path
from typing import List, Mapping, NamedTuple, Optional, Tuple

from .dragon_home import Dragon
from .errors import BuildError

KERNELS = "dragon_optim_kernels"
OPERATORS = "dragon_optim"
EXPORTS = Path("dragon_optim", "csrc", "exports.map")

# The results are the same to the bit for every compiler and instruction set only if no multiplication and
# addition are contracted behind our back. So CXXFLAGS of the environment is not consulted: distributions put
# what they like there.
FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wall",
    "-Wextra",
    "-I.",
    "-pthread",
)
# Each of these files is one instruction set, chosen at run time. On other machines they compile to nothing.
X86_64_FLAGS = {
    "kernels/cpu/isa_avx2.cc": ("-mavx2", "-mfma", "-mf16c"),
    "kernels/cpu/isa_avx512.cc": (
        "-mavx512f",
        "-mavx512bw",
        "-mavx512vl",
        "-mavx512dq",
        "-mfma",
        "-mf16c",
        "-mprefer-vector-width=512",
    ),
}


class Unit(NamedTuple):
    """One source, relative to the project's folder, and its flags."""

    source: Path
    flags: Tuple[str, ...]


class CudaParts(NamedTuple):
    """What the operators take besides, where Dragon has CUDA: kernels, headers, CUDA's runtime."""

    objects: Tuple[Path, ...]
    include_dirs: Tuple[Path, ...]
    link_flags: Tuple[str, ...]


class Library(NamedTuple):
    """A shared library: its units and what the linker is told besides their objects."""

    name: str
    units: List[Unit]
    link_flags: Tuple[str, ...]
    link_inputs: Tuple[Path, ...] = ()
    linker_option: str = "-Wl,"  # what the compiler that links wants in front of an option of the linker

    @property
    def file_name(self) -> str:
        """Name of the file, which is also its SONAME."""
        return f"lib{self.name}.so"

    @property
    def shared_flags(self) -> Tuple[str, ...]:
        """What makes a shared library of it, which stays loaded once it is."""
        option = self.linker_option
        return ("-shared", f"{option}-z,nodelete", f"{option}-soname,{self.file_name}")


def kernel_sources(root: Path) -> List[Path]:
    """Return the sources of the kernels, relative to `root`."""
    return sources_of(root, "kernels/*.cc", "kernels/cpu/*.cc")


def operator_sources(root: Path) -> List[Path]:
    """Return the sources of the operators, relative to `root`."""
    return sources_of(root, "dragon_optim/csrc/*.cc")


def cuda_operator_sources(root: Path) -> List[Path]:
    """Return the sources that the operators need besides, to run on a GPU."""
    return sources_of(root, "dragon_optim/csrc/cuda/*.cc")


def kernels(root: Path, machine: str, environ: Mapping[str, str] = os.environ) -> Library:
    """Describe the kernels: C++17 and threads, nothing of Dragon."""
    extra = _extra_flags(environ)
    isa = X86_64_FLAGS if machine == "x86_64" else {}
    units = [
        Unit(source, FLAGS + isa.get(source.as_posix(), ()) + extra)
        for source in _present(kernel_sources(root), "kernels/")
    ]
    return Library(KERNELS, units, ("-pthread", *extra))


def operators(
    root: Path,
    dragon: Dragon,
    kernels_dir: Path,
    environ: Mapping[str, str] = os.environ,
    cuda: Optional[CudaParts] = None,
) -> Library:
    """Describe the operators: Dragon's headers and library, and the kernels beside them.

    With `cuda` they are for GPUs too, and their kernels are part of the library: so there is one copy of
    CUDA's runtime for both.
    """
    extra = _extra_flags(environ)
    # -isystem: Dragon's and protobuf's headers are not free of warnings, ours are.
    include_dirs = (dragon.include_dir, *(cuda.include_dirs if cuda else ()))
    system = [word for path in include_dirs for word in ("-isystem", str(path))]
    # Not USE_CUDNN and USE_NCCL too, whatever Dragon has: they add headers, and nothing that we touch.
    flags = (*FLAGS, *(("-DUSE_CUDA",) if cuda else ()), *system, *extra)
    objects = cuda.objects if cuda else ()
    link_flags = (
        *map(str, objects),
        *(cuda.link_flags if cuda else ()),
        "-pthread",
        f"-L{kernels_dir}",
        f"-l{KERNELS}",
        f"-L{dragon.library_dir}",
        "-ldragon",
        "-Wl,-rpath,$ORIGIN",
        "-Wl,--no-undefined",
        # Visibility stays at its default, and only what must not be shared with Dragon is hidden here: its
        # type ids are addresses of statics in inline functions, which -fvisibility=hidden would split in two.
        f"-Wl,--version-script={EXPORTS}",
        *extra,
    )
    sources = _present(operator_sources(root), "dragon_optim/csrc/")
    if cuda:
        sources += _present(cuda_operator_sources(root), "dragon_optim/csrc/cuda/")
    units = [Unit(source, flags) for source in sources]
    inputs = (*objects, root / EXPORTS, kernels_dir / f"lib{KERNELS}.so", dragon.library_dir / "libdragon.so")
    return Library(OPERATORS, units, link_flags, inputs)


def _extra_flags(environ: Mapping[str, str]) -> Tuple[str, ...]:
    """Return -Werror on request (a user's newer compiler must not fail), and a developer's own flags."""
    werror = ("-Werror",) if wants_werror(environ) else ()
    return werror + tuple(environ.get("DRAGON_OPTIM_CXXFLAGS", "").split())


def wants_werror(environ: Optional[Mapping[str, str]] = None) -> bool:
    """Tell whether warnings are errors."""
    environ = os.environ if environ is None else environ
    return environ.get("DRAGON_OPTIM_WERROR", "0") not in ("", "0")


def sources_of(root: Path, *patterns: str) -> List[Path]:
    """Return the files that match, relative to `root`."""
    return sorted(path.relative_to(root) for pattern in patterns for path in root.glob(pattern))


def _present(sources: List[Path], folder: str) -> List[Path]:
    if not sources:
        raise BuildError(f"no C++ sources in {folder}: this copy of the project is incomplete")
    return sources
