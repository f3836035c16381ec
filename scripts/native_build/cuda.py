# SPDX-License-Identifier: BSD-2-Clause
"""The CUDA kernels: nvcc, its architectures, and the library that it makes."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import List, Mapping, NamedTuple, Optional, Sequence, Tuple

from .dragon_home import Dragon
from .errors import BuildError
from .incremental import Log, compile_units
from .libraries import CudaParts, Library, Unit, sources_of, wants_werror
from .toolchain import Compiler

CUDA_KERNELS = "dragon_optim_cuda"
USUAL_PLACE = Path("/usr/local/cuda/bin/nvcc")
ARCHS = "DRAGON_OPTIM_CUDA_ARCHS"

# Whose launch arguments a kernel can index without a copy of its own (__grid_constant__).
OLDEST_RELEASE = (11, 7)
OLDEST_ARCHITECTURE = 70

# Those of the cards that people have; of each only what the toolkit still, or already, knows.
USUAL_ARCHITECTURES = (70, 75, 80, 86, 89, 90)

# What Dragon's headers include of the toolkit that is not in each installation of it.
DRAGONS_HEADERS = ("cublas_v2.h", "curand.h")

# The bits of the CPU: no contraction, no approximate division or root, denormals kept. nvcc's own defaults
# but for the first, written down because it matters.
FLAGS = (
    "-std=c++17",
    "-O3",
    "-fmad=false",
    "-prec-div=true",
    "-prec-sqrt=true",
    "-ftz=false",
    "-Xcompiler=-fPIC,-ffp-contract=off,-Wall,-Wextra,-pthread",
    "-I.",
)

# CUDA's runtime inside of our library, and seen by nobody else.
STATIC_RUNTIME = ("-lcudart_static", "-ldl", "-lrt", "-Wl,--exclude-libs,libcudart_static.a")


class Nvcc(NamedTuple):
    """CUDA's compiler: how to call it, its release, and the architectures that it knows."""

    command: Tuple[str, ...]
    version: str
    architectures: Tuple[int, ...]


class Toolkit(NamedTuple):
    """Where CUDA's headers and libraries are."""

    include_dirs: Tuple[Path, ...]
    library_dirs: Tuple[Path, ...]

    def lacks(self, environ: Optional[Mapping[str, str]] = None) -> List[str]:
        """Return the headers among those that Dragon's include which are in no folder, `CPATH` included."""
        environ = os.environ if environ is None else environ
        folders = [*self.include_dirs, *map(Path, filter(None, environ.get("CPATH", "").split(":")))]
        return [name for name in DRAGONS_HEADERS if not any((path / name).is_file() for path in folders)]


def find_nvcc(environ: Optional[Mapping[str, str]] = None, usual_place: Path = USUAL_PLACE) -> Optional[Nvcc]:
    """Return the nvcc that `CUDACXX` names, else the one on the PATH or in its usual place, else None."""
    environ = os.environ if environ is None else environ
    path = environ.get("PATH")
    named = shlex.split(environ.get("CUDACXX", ""))
    if named and not shutil.which(named[0], path=path):
        raise BuildError(f"CUDACXX={environ['CUDACXX']}: there is no such compiler")
    if not named:
        found = shutil.which("nvcc", path=path) or (str(usual_place) if usual_place.is_file() else None)
        if found is None:
            return None
        named = [found]
    release = re.search(r"release ([\d.]+)", _ask(named, "--version"))
    listed = re.findall(r"^sm_(\d+)$", _ask(named, "--list-gpu-code"), re.MULTILINE)
    if not release or not listed:
        raise BuildError(f"`{' '.join(named)}` names no release and no architectures: is it nvcc?")
    cxx = environ.get("CXX", "")
    host = ("-ccbin", shlex.split(cxx)[-1]) if cxx else ()
    return Nvcc((*named, *host), release.group(1), tuple(sorted({int(number) for number in listed})))


def chosen_architectures(nvcc: Nvcc, environ: Optional[Mapping[str, str]] = None) -> Tuple[int, ...]:
    """Return the architectures of `DRAGON_OPTIM_CUDA_ARCHS`, such as `80;90`, else the usual ones."""
    if tuple(map(int, nvcc.version.split("."))) < OLDEST_RELEASE:
        oldest = ".".join(map(str, OLDEST_RELEASE))
        raise BuildError(f"nvcc {nvcc.version} is too old: install CUDA {oldest} or later, or set CUDACXX")
    environ = os.environ if environ is None else environ
    text = environ.get(ARCHS, "")
    words = [word for word in re.split(r"[\s,;]+", text) if word]
    if not words:
        return tuple(number for number in USUAL_ARCHITECTURES if number in nvcc.architectures)
    known = [number for number in nvcc.architectures if number >= OLDEST_ARCHITECTURE]
    for word in words:
        if not word.isdigit() or int(word) not in known:
            raise BuildError(
                f"{ARCHS}={text}: {word} is no architecture of nvcc {nvcc.version} that the kernels can be "
                f"compiled for (need some of {', '.join(map(str, known))})"
            )
    return tuple(sorted({int(word) for word in words}))


def code_flags(architectures: Sequence[int]) -> Tuple[str, ...]:
    """Return nvcc's flags for machine code of each, and PTX of the last for those that come after it."""
    last = architectures[-1]
    pairs = [(number, f"sm_{number}") for number in architectures] + [(last, f"compute_{last}")]
    return tuple(f"-gencode=arch=compute_{number},code={code}" for number, code in pairs)


def cuda_sources(root: Path) -> List[Path]:
    """Return the sources of the CUDA kernels, relative to `root`."""
    return sources_of(root, "kernels/cuda/*.cc", "kernels/cuda/*.cu")


def cuda_kernels(
    root: Path, architectures: Sequence[int], environ: Optional[Mapping[str, str]] = None
) -> Library:
    """Describe the CUDA kernels: a library of their own, with CUDA's runtime in it."""
    werror = ("-Werror=all-warnings", "-Xcompiler=-Werror") if wants_werror(environ) else ()
    names = [*(f"sm_{number}" for number in architectures), f"compute_{architectures[-1]}"]
    define = f'-DDRAGON_OPTIM_CUDA_ARCHITECTURES="{",".join(names)}"'
    flags = (*FLAGS, *code_flags(architectures), define, *werror)
    units = [Unit(source, flags) for source in cuda_sources(root)]
    if not units:
        raise BuildError("no CUDA sources in kernels/cuda/: this copy of the project is incomplete")
    return Library(CUDA_KERNELS, units, (), linker_option="-Xlinker=")


def toolkit(nvcc: Nvcc) -> Toolkit:
    """Return the folders that nvcc itself hands to compiler and linker."""
    text = _ask(nvcc.command, "--dryrun", "-x", "cu", "-c", os.devnull, "-o", os.devnull)
    lines = dict(re.findall(r"^#\$ (INCLUDES|LIBRARIES)=(.*)$", text, re.MULTILINE))
    include = re.findall(r'"-I([^"]+)"', lines.get("INCLUDES", ""))
    libraries = re.findall(r'"-L([^"]+)"', lines.get("LIBRARIES", ""))
    if not include or not libraries:
        command = " ".join(nvcc.command)
        raise BuildError(f"`{command} --dryrun` does not say where CUDA's headers and libraries are")
    return Toolkit(tuple(map(Path, include)), tuple(map(Path, libraries)))


def parts(
    nvcc: Nvcc, found: Toolkit, root: Path, build_dir: Path, log: Log, shared_runtime: bool = False
) -> CudaParts:
    """Compile the CUDA kernels and return what the operators take to run on a GPU."""
    library = cuda_kernels(root, chosen_architectures(nvcc))
    objects = compile_units(library, Compiler(nvcc.command, nvcc.version, ""), root, build_dir, log)
    runtime = ("-lcudart",) if shared_runtime else STATIC_RUNTIME
    return CudaParts(
        tuple(objects), found.include_dirs, (*(f"-L{path}" for path in found.library_dirs), *runtime)
    )


def toolkit_for(dragon: Dragon, nvcc: Optional[Nvcc]) -> Optional[Toolkit]:
    """Return the toolkit for a Dragon with CUDA, None for one without. Raise if something is missing."""
    if not dragon.has_cuda:
        return None
    if nvcc is None:
        raise BuildError(
            f"Dragon at {dragon.home} was built with CUDA, and its operators need nvcc: install CUDA's "
            "toolkit, or set CUDACXX"
        )
    chosen_architectures(nvcc)
    found = toolkit(nvcc)
    missing = found.lacks()
    if missing:
        raise BuildError(
            f"CUDA's toolkit in {found.include_dirs[0]} lacks {' and '.join(missing)}, which Dragon's "
            "headers include: install the rest of the toolkit, or name the folders of these headers in CPATH"
        )
    return found


def shares_runtime(dragon: Dragon, nvcc: Nvcc) -> bool:
    """Whether our operators can take CUDA's runtime from where Dragon has it: that of the same release."""
    return dragon.shared_cuda_runtime == nvcc.version.split(".")[0]


def _ask(command: Sequence[str], *options: str) -> str:
    try:
        run = subprocess.run(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"`{' '.join([*command, *options])}` failed: is it nvcc? ({error})") from error
    return run.stdout.decode(errors="replace")
