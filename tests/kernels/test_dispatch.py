# SPDX-License-Identifier: BSD-2-Clause
"""The choice of the instruction set."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels import library
from tests.kernels.conftest import ISAS

ROOT = Path(__file__).resolve().parents[2]

ASK = """
from tests.kernels import library
import ctypes
try:
    print(library.isa())
except ValueError as error:
    print(error)
try:
    library.call("half_to_float", None, None, ctypes.c_int64(0))
    print("works")
except ValueError as error:
    print(error)
library.set_isa("baseline")
print(library.isa())
"""


def ask(**environment) -> list:
    """What a new process answers: the set in use, whether kernels run, and what set_isa then makes of it."""
    variables = {name: value for name, value in os.environ.items() if name != "DRAGON_OPTIM_ISA"}
    variables.update(environment)
    output = subprocess.check_output([sys.executable, "-c", ASK], cwd=str(ROOT), env=variables)
    return output.decode().splitlines()


def compiled_isas() -> list:
    return library.load().dragon_optim_compiled_isas().decode().split(",")


def test_compiled_and_supported():
    expected = list(ISAS) if platform.machine() in ("x86_64", "AMD64") else ["baseline"]
    assert compiled_isas() == expected
    assert library.supported_isas() == [name for name in expected if name in library.supported_isas()]
    assert "baseline" in library.supported_isas()


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="asks /proc/cpuinfo what the CPU has")
def test_supported_is_what_the_cpu_has():
    flags = Path("/proc/cpuinfo").read_text().split()
    needs = {"baseline": [], "avx2": ["avx2", "fma", "f16c"]}
    needs["avx512"] = needs["avx2"] + ["avx512f", "avx512bw", "avx512vl", "avx512dq"]
    expected = [name for name in compiled_isas() if all(flag in flags for flag in needs[name])]
    assert library.supported_isas() == expected


def test_the_widest_is_the_default():
    widest = library.supported_isas()[-1]
    assert ask() == [widest, "works", "baseline"]
    assert ask(DRAGON_OPTIM_ISA="") == [widest, "works", "baseline"]


@pytest.mark.parametrize("name", ISAS)
def test_the_environment_forces(name):
    answer = ask(DRAGON_OPTIM_ISA=name)
    if name in library.supported_isas():
        assert answer == [name, "works", "baseline"]
    else:
        assert answer[0] == answer[1]
        assert answer[0].startswith(f"Invalid instruction set: {name} (this ")


def test_an_unknown_name_in_the_environment_is_an_error_at_every_call():
    message = f"Invalid instruction set: sse9 (this build has {','.join(compiled_isas())})"
    assert ask(DRAGON_OPTIM_ISA="sse9") == [message, message, "baseline"]


@pytest.mark.parametrize("name", ["", "AVX2", "avx", "baseline,avx2"])
def test_setting_an_unknown_name_changes_nothing(name):
    before = library.isa()
    with pytest.raises(ValueError, match="Invalid instruction set"):
        library.set_isa(name)
    assert library.isa() == before


def test_setting_null_is_an_error():
    with pytest.raises(ValueError, match="Invalid instruction set"):
        library.call("set_isa", None)
