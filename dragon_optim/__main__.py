# SPDX-License-Identifier: BSD-2-Clause
"""``python -m dragon_optim``: what a bug report needs."""

import platform
from typing import Dict

import dragon
import numpy

import dragon_optim
from dragon_optim._dragon import library


def cuda(info: Dict[str, str]) -> str:
    """Return what the operators for CUDA were compiled with and for."""
    architectures = library.cuda_architectures()
    if not architectures:
        return "no: this build has CPU operators only"
    return f"{architectures}, by {info['cuda_compiler']}"


def report() -> str:
    """Return versions, instruction set, threads and operators, a line each."""
    info = library.build_info()
    kernels = library.kernels()
    rows = [
        ("dragon_optim", dragon_optim.__version__),
        ("dragon", f"{dragon.__version__} ({info['dragon_git_version'][:8]})"),
        ("numpy", numpy.__version__),
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        ("compiler", info["compiler"]),
        (
            "instruction set",
            f"{library.instruction_set()} (this CPU has {kernels.dragon_optim_supported_isas().decode()})",
        ),
        ("threads", str(dragon.get_num_threads())),
        ("operators", ", ".join(library.operators())),
        ("CUDA", cuda(info)),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


if __name__ == "__main__":
    print(report())
