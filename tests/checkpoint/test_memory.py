# SPDX-License-Identifier: BSD-2-Clause
"""A tensor is not copied on its way to the file, and comes from it straight into its own memory."""

from __future__ import annotations

import os

import numpy as np
import pytest

from dragon_optim import checkpoint
from tests.checkpoint.support import child, members, output_of, pack, pickled, storage, tensor

SIZE = 200_000_000

pytestmark = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK),
    reason="this system does not tell the memory of a process",
)


def growth(job, path) -> float:
    """In units of the large tensor."""
    return int(output_of(child("-m", "tests.checkpoint.measuring", job, str(path), str(SIZE)))) / SIZE


def test_save(tmp_path):
    assert growth("save", tmp_path / "file.pt") < 0.1
    assert os.path.getsize(tmp_path / "file.pt") > SIZE


def rewritten(path, **tensors) -> None:
    """A file with one large storage, and these tensors in it."""
    checkpoint.save([np.ones(SIZE // 4, "float32")], path)
    parts = members(path)
    body = b"]" + b"".join(tensor(storage(SIZE // 4), *each) + b"a" for each in tensors.values())
    parts["data.pkl"] = pickled(body)
    pack(path, parts)


def test_load(tmp_path):
    checkpoint.save([np.ones(SIZE // 4, "float32"), np.ones(3)], tmp_path / "file.pt")
    assert growth("load", tmp_path / "file.pt") < 1.1  # the tensor itself is 1


def test_load_of_views_in_one_storage(tmp_path):
    # One tensor covers the others: no buffer besides.
    rewritten(tmp_path / "file.pt", all=(0, (SIZE // 4,), (1,)), some=(5, (1000, 1000), (1, 1000)))
    assert growth("load", tmp_path / "file.pt") < 1.1


def test_load_of_a_small_part(tmp_path):
    rewritten(tmp_path / "file.pt", part=(77, (1000,), (3,)))
    assert growth("load", tmp_path / "file.pt") < 0.1


def test_load_of_a_transposed_tensor(tmp_path):
    # Its storage is held besides while its elements are put in order: 1.2 beyond the tensor is the limit.
    rewritten(tmp_path / "file.pt", transposed=(0, (1000, SIZE // 4000), (1, 1000)))
    assert growth("load", tmp_path / "file.pt") < 2.1
