# SPDX-License-Identifier: BSD-2-Clause
"""What nvcc makes of the CUDA kernels: nothing approximate or contracted, wide accesses. Needs no GPU."""

from __future__ import annotations

import re
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


@pytest.fixture(scope="module", params=["update_float32.cu", "update_float64.cu", "norms.cu"])
def instructions(native_build, request, tmp_path_factory):
    nvcc = native_build.find_nvcc()
    if nvcc is None:
        pytest.skip("no nvcc is installed")
    target = tmp_path_factory.mktemp("ptx") / "kernel.ptx"
    source = str(ROOT / "kernels" / "cuda" / request.param)
    architecture = f"-arch=compute_{nvcc.architectures[-1]}"
    command = [*nvcc.command, *native_build.FLAGS, architecture, "-ptx", source, "-o", str(target)]
    subprocess.check_call(command, cwd=str(ROOT))
    lines = target.read_text().splitlines()
    return request.param, [line.split()[0] for line in lines if line.startswith("\t") and line.split()]


def test_ieee_arithmetic(instructions):
    name, found = instructions
    operations = [word for word in found if re.match(r"(div|sqrt|rcp|rsqrt|fma|mad)\b.*\.f(32|64)", word)]
    assert {word.split(".")[0] for word in operations} >= {"fma", "sqrt"}, name
    assert [word for word in operations if ".rn" not in word or "approx" in word] == []
    assert [word for word in found if ".ftz" in word] == []
    # A product or sum without a rounding of its own may be contracted when the machine code is made.
    assert [word for word in found if re.match(r"(mul|add|sub)\.f(32|64)", word)] == []


def test_accesses(instructions):
    """16 bytes each; in the norms, where threads take single elements, sixteen loads before an addition."""
    name, found = instructions
    if name == "norms.cu":
        words = [word for word in found if re.match(r"fma|ld\.global", word)]
        assert "l" * 16 in "".join(word[0] for word in words)
        return
    wide = "v4.f32" if "float32" in name else "v2.f64"
    for operation in (f"ld.global.{wide}", f"st.global.{wide}"):
        assert operation in found
