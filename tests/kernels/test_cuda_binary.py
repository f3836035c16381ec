# SPDX-License-Identifier: BSD-2-Clause
"""What nvcc makes of the CUDA kernels: nothing approximate or contracted, wide accesses, no spills."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def native_build():
    if not (ROOT / "scripts" / "native_build").is_dir():
        pytest.skip("the build's scripts are not here: the installed package is tested")
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from native_build import cuda
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    return cuda


@pytest.fixture(scope="module")
def compiled(native_build, tmp_path_factory):
    """A function that has nvcc make something of a source, and gives the file."""
    nvcc = native_build.find_nvcc()
    if nvcc is None:
        pytest.skip("no nvcc is installed")

    newest = native_build.chosen_architectures(nvcc, {})[-1]

    def make(name: str, kind: str, machine: str) -> Path:
        target = tmp_path_factory.mktemp(kind) / name
        source = str(ROOT / "kernels" / "cuda" / name)
        architecture = f"-arch={machine}_{newest}"
        command = [*nvcc.command, *native_build.FLAGS, architecture, f"-{kind}", source, "-o", str(target)]
        subprocess.check_call(command, cwd=str(ROOT))
        return target

    make.beside = str(Path(shutil.which(nvcc.command[0]) or nvcc.command[0]).resolve().parent)
    return make


@pytest.fixture(
    scope="module",
    params=["update_float16.cu", "update_float32.cu", "update_float64.cu", "norms.cu", "clip_norms.cu"],
)
def instructions(compiled, request):
    lines = compiled(request.param, "ptx", "compute").read_text().splitlines()
    return request.param, [line.split()[0] for line in lines if line.startswith("\t") and line.split()]


def test_ieee_arithmetic(instructions):
    name, found = instructions
    operations = [word for word in found if re.match(r"(div|sqrt|rcp|rsqrt|fma|mad)\b.*\.f(32|64)", word)]
    # To the shorter: from double to float, from float to half, from an integer.
    operations += [word for word in found if re.match(r"cvt\..*(f32\.f64|f16\.f32|f(32|64)\.[su])", word)]
    assert {word.split(".")[0] for word in operations} >= {"fma", "sqrt"}, name
    assert [word for word in operations if ".rn" not in word or "approx" in word] == []
    assert [word for word in found if ".ftz" in word or ".sat" in word] == []
    # A product or sum without a rounding of its own may be contracted when the machine code is made.
    assert [word for word in found if re.match(r"(mul|add|sub)\.f(32|64)", word)] == []
    # The smaller of a NaN and a limit is the limit, to these.
    assert [word for word in found if re.match(r"(min|max)\.(NaN\.)?f(32|64)", word)] == []
    assert name != "update_float16.cu" or {"cvt.rn.f16.f32", "cvt.f32.f16"} <= set(found)


def test_accesses(instructions):
    """16 bytes each, and half of it to short parameters."""
    name, found = instructions
    if "norms" in name:
        return
    wide = "v2.f64" if "float64" in name else "v4.f32"
    for operation in (f"ld.global.{wide}", f"st.global.{wide}"):
        assert operation in found
    assert ("st.global.v4.u16" in found) == (name == "update_float16.cu")


@pytest.fixture(scope="module")
def machine_code(compiled):
    """A function that gives the instructions of a source's kernels, as a processor gets them."""
    disassembler = shutil.which("cuobjdump") or shutil.which("cuobjdump", path=compiled.beside)
    if disassembler is None:
        pytest.skip("cuobjdump is not installed, which comes with CUDA's toolkit")

    def disassemble(name: str) -> list:
        command = [disassembler, "-sass", str(compiled(name, "cubin", "sm"))]
        text = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.decode()
        return re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+ )?([A-Z][\w.]*)", text)

    return disassemble


@pytest.mark.parametrize("name", ["update_float16.cu", "update_float32.cu", "update_float64.cu"])
def test_registers_are_enough(machine_code, name):
    found = machine_code(name)
    assert "LDG.E.128" in found
    assert [word for word in found if re.match("LDL|STL", word)] == []


def test_norms_load_ahead(machine_code):
    """In all kernels of squares: as many loads as the source says before an addition waits for the first."""
    source = (ROOT / "kernels" / "cuda" / "lane_terms.cuh").read_text()
    ahead = int(re.search(r"kAhead = (\d+);", source).group(1))
    found = "".join(word[0] for word in machine_code("norms.cu") if re.match(r"LDG|DFMA", word))
    assert found.count("L" * ahead + "D" * ahead) == 2 * 4  # lists, short and long, of each dtype
