# SPDX-License-Identifier: BSD-2-Clause
"""Loads a hostile file and a harmless one of the same size, with little memory to spare.

Prints how much longer the hostile one takes, and what came of it.

python -m tests.checkpoint.bounding NAME BYTES FOLDER
"""

from __future__ import annotations

import json
import struct
import sys
import time
from pathlib import Path

from dragon_optim import checkpoint
from tests.checkpoint.conftest import EIGHT
from tests.checkpoint.mutating import limit_memory
from tests.checkpoint.support import NO_HOOKS, integer, pickled, storage, text, with_pickle

REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
LARGE = integer(2**2030)


def recall(index):
    return b"h" + bytes([index])


def keep(index):
    return b"q" + bytes([index])


def tensors(sizes, size):
    """One tensor of 32 axes, made again and again by five bytes each."""
    shape = b"(" + sizes + b"t"
    strides = b"(" + b"K\x00" * 32 + b"t"
    arguments = b"(" + storage(8) + b"K\x00" + shape + strides + b"\x89" + NO_HOOKS + b"t"
    again = (recall(0) + recall(1) + b"R") * (size // 5)
    return b"(" + REBUILD + keep(0) + arguments + keep(1) + b"R" + again + b"t"


def duplicate(size):
    """Two equal strings, which Python compares to the end each time that one is looked up."""
    key = text("x" * (size // 3))
    return b"}" + key + keep(0) + b"Ns" + key + keep(1) + b"Ns" + (recall(1) + b"Ns") * (size // 12)


# Each function gets the bytes that the pickle should have.
HOSTILE = {
    # One key of half the file in a hundred thousand dicts: a message for each would be too much.
    "longkey": lambda size: b"(" + text("\0" * (size // 2)) + keep(0) + b"}h\x00Ns" * (size // 10) + b"t",
    "bigshape": lambda size: tensors(LARGE + keep(5) + recall(5) * 31, size),
    "rebuild": lambda size: tensors(b"K\x02" * 32, size),
    "dupkey": duplicate,
    "lists": lambda size: b"(" + b"]" * size + b"t",
    # A message with all its digits would be one more ValueError.
    "intstr": lambda size: tensors(LARGE + keep(5) + recall(5) * 31, 0),
}


def harmless(size):
    numbers = (b"G" + struct.pack(">d", i * 1.1) for i in range(size // 9))
    return b"(" + b"".join(numbers) + b"t"


def timed(path) -> tuple:
    start = time.perf_counter()
    try:
        checkpoint.load(path)
        outcome = "loaded"
    except checkpoint.CheckpointError as error:
        outcome = str(error)
    return time.perf_counter() - start, outcome


def main(name: str, size: int, folder: Path) -> None:
    hostile = with_pickle(folder / "hostile.pt", pickled(HOSTILE[name](size), 4), data_0=EIGHT)
    plain = with_pickle(folder / "plain.pt", pickled(harmless(size), 4), data_0=EIGHT)
    timed(plain)  # all that is made once
    limit_memory()
    expected, loaded = timed(plain)
    assert loaded == "loaded", loaded
    seconds, outcome = timed(hostile)
    print(json.dumps({"ratio": seconds / expected, "outcome": outcome}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
