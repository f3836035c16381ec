# SPDX-License-Identifier: BSD-2-Clause
"""Finding the native libraries, loading them once, registering their operators."""

import ctypes
import functools
import json
import os
from typing import Dict, List, Tuple

import dragon
from dragon import version as dragon_version

_DIRECTORY = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "_lib")
_KERNELS = "libdragon_optim_kernels.so"
_OPERATORS = "libdragon_optim.so"

# Dragon's registries belong to the process, so the note of who filled them lies on the `dragon` module: it is
# seen by a second copy of this package too, under whatever name that was imported.
_MARKER = "_dragon_optim_library"


def _path(name: str) -> str:
    path = os.path.join(_DIRECTORY, name)
    if not os.path.exists(path):
        raise ImportError(
            f"dragon_optim is not built: {name} is missing. In a source tree run `make build`, or "
            "`pip install .` and import the package from another folder."
        )
    return path


def build_info() -> Dict[str, str]:
    """What the libraries were built with: ``dragon_version``, ``compiler`` and so on."""
    with open(_path("build_info.json"), encoding="utf-8") as file:
        return json.load(file)


def _check_dragon(info: Dict[str, str]) -> None:
    built = (info["dragon_version"], info["dragon_git_version"])
    found = (dragon_version.version, dragon_version.git_version)
    if built != found:
        raise ImportError(
            f"this dragon_optim was built for Dragon {built[0]} ({built[1][:8]}), but Dragon {found[0]} "
            f"({found[1][:8]}) is installed: in the folder of its sources, run "
            "`pip install --no-build-isolation --no-deps .`"
        )


@functools.lru_cache(maxsize=None)
def kernels() -> ctypes.CDLL:
    """The library of kernels through its C interface (``kernels/c_api.h``)."""
    library = ctypes.CDLL(_path(_KERNELS), mode=ctypes.RTLD_GLOBAL)
    for name in ("isa", "compiled_isas", "supported_isas", "last_error"):
        getattr(library, "dragon_optim_" + name).restype = ctypes.c_char_p
    return library


def instruction_set() -> str:
    """The instruction set that the CPU kernels run with: ``baseline``, ``avx2`` or ``avx512``."""
    name = kernels().dragon_optim_isa()
    if name is None:
        raise ImportError(f"DRAGON_OPTIM_ISA: {kernels().dragon_optim_last_error().decode()}")
    return name.decode()


@functools.lru_cache(maxsize=None)
def _operators() -> ctypes.CDLL:
    library = ctypes.CDLL(_path(_OPERATORS))
    library.dragon_optim_operators.restype = ctypes.c_char_p
    library.dragon_optim_operators_cuda.restype = ctypes.c_char_p
    return library


def operators() -> List[str]:
    """The names of our operators in Dragon's CPU registry."""
    return _operators().dragon_optim_operators().decode().split(",")


@functools.lru_cache(maxsize=None)
def cuda_architectures() -> str:
    """The architectures that our operators for CUDA were compiled for; empty if this build has none."""
    return (_operators().dragon_optim_operators_cuda() or b"").decode()


def devices() -> Tuple[str, ...]:
    """The kinds of devices that our operators run on."""
    return ("cpu", "cuda") if cuda_architectures() else ("cpu",)


def check_operator(name: str) -> None:
    """Raise unless Dragon has this operator for the CPU. At one that it lacks it ends the process."""
    if not _operators().dragon_optim_has_operator(name.encode()):
        raise ValueError(f"Dragon has no operator {name!r}: load the library that registers it first")


def load() -> None:
    """Load both libraries and register the operators, once in a process.

    Raises
    ------
    ImportError
        If a library is missing, was built for another Dragon, names an instruction set that this CPU lacks,
        or if another copy of it is loaded already (Dragon would end the process at a second registration).
    """
    path = os.path.realpath(_path(_OPERATORS))
    loaded = getattr(dragon, _MARKER, None)
    if loaded == path:
        return
    if loaded is not None:
        raise ImportError(
            f"another copy of dragon_optim is loaded in this process: {loaded}. Remove one of the two "
            f"installations (this one is {path})."
        )
    _check_dragon(build_info())
    instruction_set()
    dragon.load_library(path)
    if _operators().dragon_optim_register() != 0:
        raise ImportError(
            f"another copy of dragon_optim's operators is registered in this process; {path} was not used. "
            "Remove one of the two."
        )
    setattr(dragon, _MARKER, path)
