# SPDX-License-Identifier: BSD-2-Clause
"""Descriptions, archives made by hand, and children."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dragon_optim import checkpoint
from tests.checkpoint.description import describe

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).parent / "recorded"


def described(value):
    """A description as JSON gives it back."""
    return json.loads(json.dumps(describe(value)))


def round_trip(value, path):
    checkpoint.save(value, path)
    return checkpoint.load(path)


def left_behind(folder) -> list:
    return [each.name for each in Path(folder).iterdir() if each.name.endswith(".tmp")]


def members(path) -> dict:
    """Names without their folder, and data."""
    with zipfile.ZipFile(path) as archive:
        return {info.filename.partition("/")[2]: archive.read(info) for info in archive.infolist()}


def pack(path, parts, folder="archive/", compression=zipfile.ZIP_STORED) -> None:
    """Write an archive with right checksums. `parts` is a dict or, for names that occur twice, pairs."""
    pairs = parts.items() if isinstance(parts, dict) else parts
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in pairs:
            archive.writestr(zipfile.ZipInfo(folder + name), data, compression)


def with_pickle(path, pickle: bytes, **storages: bytes):
    """An archive that holds this pickle, and storages by names like data_0."""
    data = {name.replace("_", "/"): content for name, content in storages.items()}
    pack(path, {"data.pkl": pickle, "byteorder": b"little", **data, "version": b"3\n"})
    return path


def text(string: str) -> bytes:
    data = string.encode()
    return b"X" + struct.pack("<L", len(data)) + data


def integer(value: int) -> bytes:
    length = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([length]) + value.to_bytes(length, "little", signed=True)


def ints(values) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def storage(numel: int, kind="FloatStorage", key="0", module="torch") -> bytes:
    name = f"c{module}\n{kind}\n".encode()
    return b"(" + text("storage") + name + text(key) + text("cpu") + integer(numel) + b"tQ"


NO_HOOKS = b"ccollections\nOrderedDict\n)R"


def tensor(store: bytes, offset=0, shape=(1,), strides=(1,), grad=b"\x89", hooks=NO_HOOKS) -> bytes:
    arguments = store + integer(offset) + ints(shape) + ints(strides) + grad + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def pickled(body: bytes, protocol=2) -> bytes:
    return b"\x80" + bytes([protocol]) + body + b"."


def refused(path, *words: str) -> str:
    """Loading raises CheckpointError, in one line that has these words. Return it."""
    with pytest.raises(checkpoint.CheckpointError) as caught:
        checkpoint.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"cannot load {str(path)!r}: ")
    for word in words:
        assert word in message, message
    return message


def environment(**more: str) -> dict:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, paths)), **more)


def child(*arguments: str) -> subprocess.Popen:
    """Start a Python with these arguments. Whoever starts it waits for it."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(process: subprocess.Popen, seconds=600) -> str:
    """Wait for a child that must end well; return what it printed."""
    with process:
        try:
            out, error = process.communicate(timeout=seconds)
        except BaseException:
            process.kill()
            raise
    assert process.returncode == 0, f"exit status {process.returncode}\n{out}\n{error}"
    return out
