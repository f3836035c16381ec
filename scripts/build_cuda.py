# SPDX-License-Identifier: BSD-2-Clause
"""Build the CUDA kernels, and the CPU's beside them to compare with, into build/native.

    python scripts/build_cuda.py [--cuda-only]

It needs nvcc and g++, no GPU and no Dragon. `DRAGON_OPTIM_CUDA_ARCHS="80;90"` chooses architectures,
`CUDACXX` the compiler, `DRAGON_OPTIM_JOBS` how many run at a time.
"""

import argparse
import sys
from pathlib import Path

from native_build import cuda, libraries
from native_build.errors import BuildError
from native_build.incremental import build_library
from native_build.toolchain import Compiler, find_compiler, require_linux

ROOT = Path(__file__).resolve().parents[1]
NO_NVCC = 3  # the exit status that lets a gate tell this from a failure


def main() -> int:
    """Build, print where the libraries are, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cuda-only", action="store_true", help="leave the CPU's kernels out")
    arguments = parser.parse_args()
    try:
        require_linux()
        nvcc = cuda.find_nvcc()
        if nvcc is None:
            log("no nvcc here: the CUDA kernels are left out (install CUDA's toolkit, or set CUDACXX)")
            return NO_NVCC
        build_dir = ROOT / "build" / "native"
        if not arguments.cuda_only:
            compiler = find_compiler()
            log(str(build_library(libraries.kernels(ROOT, compiler.machine), compiler, ROOT, build_dir, log)))
        architectures = cuda.chosen_architectures(nvcc)
        log(f"nvcc {nvcc.version}, architectures {', '.join(map(str, architectures))} and PTX of the last")
        compiler = Compiler(nvcc.command, nvcc.version, "")
        log(str(build_library(cuda.cuda_kernels(ROOT, architectures), compiler, ROOT, build_dir, log)))
    except BuildError as error:
        log(f"dragon_optim: {error}")
        return 1
    return 0


def log(line: str) -> None:
    """Print a line of progress at once, also into a pipe."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
