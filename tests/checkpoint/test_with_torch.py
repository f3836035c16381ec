# SPDX-License-Identifier: BSD-2-Clause
"""Both directions with real PyTorch, where an interpreter that has it is named."""

from __future__ import annotations

import json
import os
import warnings

import numpy as np
import pytest

from dragon_optim import checkpoint, lr_scheduler
from tests.checkpoint import ours
from tests.checkpoint.record import VARIABLE, torch_side, write_ours
from tests.checkpoint.support import described, members, pack
from tests.golden import schedules
from tests.optim.schedulers import optimizer_of

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


def test_schedulers_of_pytorch_go_on_from_our_files(tmp_path):
    for name, case in schedules.CASES.items():
        checkpoint.save(schedules.run(case, optimizer_of, lr_scheduler)["middle"], tmp_path / f"{name}.pt")
    done = torch_side("check", tmp_path, module="torch_schedules")
    assert f"goes on from {len(schedules.CASES)} files" in done


def test_our_schedulers_go_on_from_files_of_pytorch(tmp_path):
    torch_side("write", tmp_path, module="torch_schedules")
    recorded = schedules.load()["cases"]
    for name, case in schedules.CASES.items():
        start = checkpoint.load(tmp_path / f"{name}.pt")
        found = schedules.run(case, optimizer_of, lr_scheduler, start=start)
        np.testing.assert_array_equal(found["lr"], recorded[name]["lr"][case.steps // 2 :], name)
