# SPDX-License-Identifier: BSD-2-Clause
"""Files of other formats, archives that lack a part, and those packed anew by other programs."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
import subprocess
import zipfile

import numpy as np
import pytest

from dragon_optim import checkpoint
from tests.checkpoint.support import RECORDED, described, pack, refused


def repack_by_zipfile(source, target):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))


def repack_to_a_stream(source, target):
    class Stream(io.RawIOBase):
        def __init__(self):
            self.data = b""

        def writable(self):
            return True

        def write(self, data):
            self.data += bytes(data)
            return len(data)

    stream = Stream()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(stream, "w") as new:
        for info in old.infolist():
            with new.open(info.filename, "w", force_zip64=info.filename.endswith("0")) as file:
                file.write(old.read(info))
    target.write_bytes(stream.data)


def repack_as_if_large(source, target):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            with new.open(zipfile.ZipInfo(info.filename), "w", force_zip64=True) as file:
                file.write(old.read(info))


def repack_by_info_zip(source, target):
    folder = target.parent / "unpacked"
    with zipfile.ZipFile(source) as old:
        old.extractall(folder)
    subprocess.run(["zip", "-q", "-0", "-r", str(target), "."], cwd=folder, check=True)


@pytest.mark.parametrize(
    "repack",
    [
        repack_by_zipfile,
        repack_to_a_stream,
        repack_as_if_large,
        pytest.param(
            repack_by_info_zip,
            marks=pytest.mark.skipif(shutil.which("zip") is None, reason="there is no zip program"),
        ),
    ],
)
@pytest.mark.parametrize("name", ["parameters", "empty", "training"])
def test_packed_anew(repack, name, tmp_path):
    target = tmp_path / "new.zip"
    repack(RECORDED / f"{name}.pt", target)
    assert described(checkpoint.load(target)) == described(checkpoint.load(RECORDED / f"{name}.pt"))


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"version": b"3\n"}, "it has no data.pkl"),
        ({"data.pkl": b"\x80\x02N."}, "it has no version"),
        ({"data.pkl": b"\x80\x02N.", "version": b"11\n"}, "version b'11'"),
        ({"data.pkl": b"\x80\x02N.", "version": b"x"}, "version b'x'"),
        ({"data.pkl": b"\x80\x02N.", "version": b"\xb2"}, "version"),
        ({"data.pkl": b"\x80\x02N.", "version": b"3" * 100}, "100 bytes"),
        ({"data.pkl": b"\x80\x02N.", "version": b"3", "byteorder": b"middle"}, "byte order 'middle'"),
        ({"data.pkl": b"", "version": b"3"}, "claims 1 bytes where it has 0"),
        ({"data.pkl": b"\x80\x02N.", "version": b"3", "constants.pkl": b""}, "TorchScript"),
        ({"data.pkl": b"\x80\x02N.", "version": b"3", "code/x.py": b""}, "TorchScript"),
    ],
)
def test_parts_missing_or_wrong(parts, words, tmp_path):
    pack(tmp_path / "file.pt", parts)
    refused(tmp_path / "file.pt", words)


def foreign():
    archive = io.BytesIO()
    np.savez(archive, x=np.ones(3))
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return {
        "empty": (b"", "the file is empty"),
        "pickle": (pickle.dumps({"x": 1}, 2), "plain pickle"),
        "pickle 4": (pickle.dumps({"x": 1}, 4), "plain pickle"),
        "safetensors": (struct.pack("<Q", len(header)) + header + bytes(4), "safetensors"),
        "npz": (archive.getvalue(), "not one that torch.save writes"),
        "tar": (bytes(257) + b"ustar" + bytes(300), "tar archive"),
        "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        "text": (b"hello", "no zip archive"),
        "zeros": (bytes(1000), "no zip archive"),
        "empty zip": (b"PK\x05\x06" + bytes(18), "empty zip archive"),
        "first bytes": (b"PK\x03\x04", "truncated"),
    }


@pytest.mark.parametrize("name", foreign())
def test_other_formats(name, tmp_path):
    content, words = foreign()[name]
    (tmp_path / "file.pt").write_bytes(content)
    refused(tmp_path / "file.pt", words)
