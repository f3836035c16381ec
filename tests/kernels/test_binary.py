# SPDX-License-Identifier: BSD-2-Clause
"""What the compiler made of the kernels: nothing approximate, nothing shared."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kernels import library

ROOT = Path(__file__).resolve().parents[2]

APPROXIMATE = re.compile(r"\bv?(rcp|rsqrt)(14|28)?[ps][sd]\b|\bf(rsqrte|recpe|rsqrts|recps)\b")

ISA_FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mf16c"],
}


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def functions() -> dict:
    """Function name -> its instructions, of the whole library."""
    command = [tool("objdump"), "-d", "--no-show-raw-insn", str(library.path())]
    found, lines = {}, []
    for line in subprocess.check_output(command, universal_newlines=True).splitlines():
        header = re.match(r"[0-9a-f]+ <(.+)>:$", line)
        if header:
            lines = found.setdefault(header.group(1), [])
        elif line.startswith(" "):
            lines.append(line.split("\t", 1)[-1])
    return found


def test_no_approximate_instructions():
    instructions = [line for lines in functions().values() for line in lines]
    assert any(re.search(r"\bv?f?sqrt", line) for line in instructions), "no square root at all"
    assert [line for line in instructions if APPROXIMATE.search(line)] == []
    assert all(map(APPROXIMATE.search, ["vrsqrt14ps %zmm0,%zmm1", "rcpps %xmm0,%xmm1"]))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86 instructions")
def test_all_forms_use_the_wide_registers():
    """Both dtypes of every form, vectorised: a division and a root of whole registers."""
    for register, count in (("ymm", 72), ("zmm", 72)):
        both = [re.compile(rf"\b{word}p[sd]\s.*%{register}") for word in ("vdiv", "vsqrt")]
        texts = ["\n".join(lines) for lines in functions().values()]
        loops = sum(all(instruction.search(text) for instruction in both) for text in texts)
        assert loops >= count, f"{loops} loops on {register}"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86 instructions")
def test_no_weak_function_needs_a_wider_instruction_set():
    """The linker and the loader may take a weak function from any file: then it must run on every CPU."""
    output = subprocess.check_output([tool("nm"), "--defined-only", str(library.path())])
    symbols = [line.split() for line in output.decode().splitlines()]
    weak = {name for _, kind, name in symbols if kind in "WVu"}
    wide = [
        name
        for name, lines in functions().items()
        if name in weak and any(line.startswith("v") or "%ymm" in line or "%zmm" in line for line in lines)
    ]
    assert wide == []


@pytest.mark.parametrize("isa", sorted(ISA_FLAGS))
def test_an_instruction_sets_file_defines_one_symbol(isa, tmp_path):
    """Its table. Compiled without optimisation, which shows every function that inlining would hide."""
    source = ROOT / "kernels" / "cpu" / f"isa_{isa}.cc"
    if not source.exists():
        pytest.skip("the sources are not here: the installed package is tested")
    if isa != "baseline" and platform.machine() != "x86_64":
        pytest.skip("an x86 file")
    compiler = tool(os.environ.get("CXX", "g++"))
    compiled = tmp_path / "isa.o"
    flags = ["-std=c++17", "-O0", *ISA_FLAGS[isa], f"-I{ROOT}"]
    subprocess.check_call([compiler, *flags, "-c", str(source), "-o", str(compiled)])
    output = subprocess.check_output([tool("nm"), "-C", "--extern-only", "--defined-only", str(compiled)])
    names = [line.split(" ", 2)[2] for line in output.decode().splitlines()]
    assert names == [f"dragon_optim::k{isa.capitalize()}Kernels"]
