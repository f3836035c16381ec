# SPDX-License-Identifier: BSD-2-Clause
"""``python -m dragon_optim``: what a bug report needs; with a script, runs it over this package's classes."""

import argparse
import os
import platform
import sys
import types
from importlib.machinery import SourceFileLoader
from typing import Dict, List

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


def run(script: str, arguments: List[str]) -> None:
    """Run a script as ``python script arguments...`` does, with ``torch.optim`` handing out our classes."""
    path = os.path.abspath(script)
    loader = SourceFileLoader("__main__", path)
    code = loader.source_to_code(loader.get_data(path), path)
    # Not by runpy, which takes its module away at the end: threads and exit handlers still look for it then.
    module = types.ModuleType("__main__")
    module.__file__, module.__loader__ = path, loader
    sys.modules["__main__"] = module
    sys.argv = [script, *arguments]
    if not sys.flags.isolated:  # where Python puts no folder at the front, neither do we
        sys.path[0] = os.path.dirname(os.path.realpath(script))
    dragon_optim.install()
    exec(code, vars(module))


def main(arguments: List[str]) -> None:
    """Print the report, or run a script."""
    parser = argparse.ArgumentParser(
        prog="python -m dragon_optim",
        description="Print what a bug report needs. With SCRIPT: run it, as python does, with "
        "dragon.vm.torch.optim handing out the classes of dragon_optim.",
    )
    parser.add_argument("script", nargs="?", metavar="SCRIPT", help="a Python file")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="what the script is given")
    options = parser.parse_args(arguments)
    if options.script is None:
        print(report())
    elif not os.path.isfile(options.script):
        parser.error(f"there is no file {options.script!r}")
    else:
        run(options.script, options.arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
