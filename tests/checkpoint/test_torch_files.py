# SPDX-License-Identifier: BSD-2-Clause
"""Files that real PyTorch has written, recorded here, load without it; ours are those that it took."""

from __future__ import annotations

import json
import warnings

import pytest

from dragon_optim import checkpoint
from tests.checkpoint import ours
from tests.checkpoint.record import digest
from tests.checkpoint.support import RECORDED, described, refused

EXPECTED = json.loads((RECORDED / "expected.json").read_text())
OURS = json.loads((RECORDED / "ours.json").read_text())

WIDENED = {
    "bfloat16": r"bfloat16 to float32: checkpoint\['model'\]\[0\], checkpoint\['model'\]\[1\]",
    "dtypes": r"int16 to int32: checkpoint\['int16'\]; bfloat16 to float32: checkpoint\['bfloat16'\]",
    "untyped": r"uint16 to int32: checkpoint\['uint16'\]; uint32 to int64: checkpoint\['uint32'\]",
}

REFUSED = {
    "complex": ("complex64", "'0'"),
    "quantized": ("quantized", "_rebuild_qtensor"),
    "sparse": ("sparse",),
    "float8": ("float8_e5m2",),
    "uint64": ("uint64",),
    "meta": ("meta",),
    "negated": ("negated", "resolve_neg"),
    "module": ("'torch.nn.modules.linear'.'Linear'", "nothing was run"),
    "set": ("'set'",),
    "storage": ("checkpoint['model'][0] is a bare storage",),
    "legacy": ("before 1.6",),
    "script": ("TorchScript",),
    "no_checksums": ("set_crc32_options",),
}


@pytest.mark.parametrize("name", EXPECTED["files"])
def test_file_of_pytorch(name):
    with warnings.catch_warnings():
        if name in WIDENED:
            warnings.simplefilter("ignore", UserWarning)
        else:
            warnings.simplefilter("error")
        assert described(checkpoint.load(RECORDED / f"{name}.pt")) == EXPECTED["files"][name]


@pytest.mark.parametrize("name", WIDENED)
def test_widening_is_said_once(name):
    with pytest.warns(UserWarning, match=WIDENED[name]) as caught:
        checkpoint.load(RECORDED / f"{name}.pt")
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", REFUSED)
def test_refused_file_of_pytorch(name):
    refused(RECORDED / f"refused_{name}.pt", *REFUSED[name])


def test_every_recorded_file_is_tested():
    names = {each.stem for each in RECORDED.glob("*.pt")}
    assert names == set(EXPECTED["files"]) | {f"refused_{name}" for name in REFUSED}


@pytest.mark.parametrize("name", ours.CASES)
def test_our_file_is_the_one_that_pytorch_accepted(name, tmp_path):
    checkpoint.save(ours.CASES[name](), tmp_path / "file.pt")
    assert digest(tmp_path / "file.pt") == OURS["sha256"][name]
