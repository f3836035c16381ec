# SPDX-License-Identifier: BSD-2-Clause
"""Both directions with real PyTorch, where an interpreter that has it is named."""

from __future__ import annotations

import json
import os
import warnings

import pytest

from dragon_optim import checkpoint
from tests.checkpoint import ours
from tests.checkpoint.record import VARIABLE, torch_side, write_ours
from tests.checkpoint.support import described, members, pack

pytestmark = pytest.mark.skipif(
    VARIABLE not in os.environ, reason=f"{VARIABLE} names no Python that has torch"
)


def test_pytorch_loads_our_files(tmp_path):
    write_ours(tmp_path, ours.LIVE)
    assert f"accepts {len(ours.LIVE)} files" in torch_side("check", tmp_path)


def test_we_load_files_of_this_pytorch(tmp_path):
    torch_side("write", tmp_path)
    expected = json.loads((tmp_path / "expected.json").read_text())["files"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for name, description in expected.items():
            assert described(checkpoint.load(tmp_path / f"{name}.pt")) == description, name


def test_both_read_big_endian_files_alike(tmp_path):
    write_ours(tmp_path, {"dtypes": ours.CASES["dtypes"]})
    parts = members(tmp_path / "dtypes.pt")
    for name, data in parts.items():
        if name.startswith("data/"):
            size = len(data) // 6
            parts[name] = b"".join(data[i : i + size][::-1] for i in range(0, len(data), size))
    parts["byteorder"] = b"big"
    pack(tmp_path / "dtypes.pt", parts)
    expected = json.loads((tmp_path / "expected.json").read_text())["files"]["dtypes"]
    assert described(checkpoint.load(tmp_path / "dtypes.pt")) == expected
    # PyTorch maps only files of its own byte order into memory.
    torch_side("check_without_mmap", tmp_path)
