# SPDX-License-Identifier: BSD-2-Clause
"""Compile and link Dragon's operators for CUDA as for a Dragon with CUDA, against one that has none.

    python scripts/check_cuda_adapter.py

It needs nvcc, g++, Dragon's headers and the CPU's kernels in build/native, no GPU. Headers of CUDA that the
toolkit lacks are taken from NVIDIA's packages on PyPI, once, into build/cuda_adapter. The result cannot run:
what only a Dragon with CUDA defines is left out.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from native_build import cuda, libraries
from native_build.dragon_home import CUDA_SYMBOL, find_dragon
from native_build.errors import BuildError
from native_build.incremental import build_library
from native_build.toolchain import find_compiler, require_linux

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ROOT / "build" / "native"
BUILD = ROOT / "build" / "cuda_adapter"
LEFT_OUT = 3  # the exit status that lets a gate tell this from a failure

# Package of each header. Before CUDA 13 its name ends in the release.
PACKAGES = {"cublas_v2.h": "nvidia-cublas", "curand.h": "nvidia-curand"}
PACKAGED_TOGETHER = 13
# Everything else must be there: these two make the difference between a Dragon with CUDA and one without.
DRAGONS_CUDA = (CUDA_SYMBOL.decode(), "_ZN6dragon6Tensor16raw_mutable_dataINS_11CUDAContextEEEvPPv")


def main() -> int:
    """Check, say what was done, and return the exit status."""
    try:
        require_linux()
        nvcc, dragon = cuda.find_nvcc(), find_dragon()
        if nvcc is None:
            log("no nvcc here: nothing is compiled for CUDA (install CUDA's toolkit, or set CUDACXX)")
            return LEFT_OUT
        found = cuda.toolkit(nvcc)
        missing = found.lacks()
        if missing:
            headers = fetch(missing, int(nvcc.version.split(".")[0]))
            if headers is None:
                return LEFT_OUT
            found = found._replace(include_dirs=(*found.include_dirs, headers))
        parts = cuda.parts(nvcc, found, ROOT, KERNELS, log)
        library = libraries.operators(ROOT, dragon, KERNELS, cuda=parts)
        if not dragon.has_cuda:
            missing_symbols = tuple(f"-Wl,--defsym={name}=0" for name in DRAGONS_CUDA)
            library = library._replace(link_flags=(*library.link_flags, *missing_symbols))
        log(str(build_library(library, find_compiler(), ROOT, BUILD, log)))
    except BuildError as error:
        log(f"dragon_optim: {error}")
        return 1
    return 0


def fetch(missing: list, release: int) -> "Path | None":
    """Return a folder with these headers, from NVIDIA's packages; None where they cannot be had."""
    folder = BUILD / "include"
    if all((folder / name).is_file() for name in missing):
        return folder
    suffix = "" if release >= PACKAGED_TOGETHER else f"-cu{release}"
    names = [PACKAGES[name] + suffix for name in missing]
    log(f"fetching headers of {' and '.join(names)} (some 500 MB, of which 2 MB are kept)")
    with tempfile.TemporaryDirectory() as wheels:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps"]
        if subprocess.run([*pip, "--only-binary=:all:", "-d", wheels, *names], check=False).returncode != 0:
            log("they cannot be had here: the operators are not compiled for CUDA")
            return None
        folder.mkdir(parents=True, exist_ok=True)
        for wheel in Path(wheels).glob("*.whl"):
            extract(wheel, folder)
    return folder


def extract(wheel: Path, folder: Path) -> None:
    """Copy the headers of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            path = Path(name)
            if path.parent.name == "include" and path.suffix in (".h", ".hpp"):
                with archive.open(name) as source, (folder / path.name).open("wb") as target:
                    shutil.copyfileobj(source, target)


def log(line: str) -> None:
    """Print a line of progress at once, also into a pipe."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
