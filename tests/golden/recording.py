# SPDX-License-Identifier: BSD-2-Clause
"""What PyTorch made of the cases: how the recordings are laid out, for the recorder and for the tests.

One file per optimizer and dtype. Each case was run twice: `native`, PyTorch as it is, and `ieee`, with every
square root rounded correctly (PyTorch's own one depends on how it was built). Of each run the file holds all
parameters and states at the last step; of the `ieee` run also those at an early step, and one CRC for each
parameter and step, so that a test can say where a trajectory leaves the recorded one.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

FORMAT = 1
FOLDER = Path(__file__).parent
DTYPES = ("float32", "float64")
NAMES = ("param", "square_avg", "momentum_buffer", "grad_avg")
EARLY = 6  # steps done at the early snapshot: one parameter has just had its first gradient

# A snapshot is a list with one dict for each parameter: {"step": int, "param": array, "square_avg": array,
# ...}, where only what is in use has an entry; "step" is 0 and the states are missing before the first
# update.


def crc(entry: dict) -> int:
    """Of all the bits of one parameter and its states; every NaN counts as the same."""
    digest = 0
    for name in NAMES:
        if name in entry:
            array = np.array(entry[name])
            array = np.where(np.isnan(array), array.dtype.type("nan"), array)
            digest = zlib.crc32(array.astype(array.dtype.newbyteorder("<")).tobytes(), digest)
    return digest


def pack(snapshot: list) -> np.ndarray:
    return np.concatenate([entry[name].ravel() for entry in snapshot for name in NAMES if name in entry])


def unpack(flat: np.ndarray, shapes, layout: list) -> list:
    """The reverse of `pack`; `layout` is what `describe` gave."""
    snapshot, offset = [], 0
    for shape, (step, names) in zip(shapes, layout):
        entry = {"step": step}
        for name in names:
            size = int(np.prod(shape, dtype=int))
            entry[name] = flat[offset : offset + size].reshape(shape)
            offset += size
        snapshot.append(entry)
    if offset != flat.size:
        raise ValueError(
            f"{flat.size} recorded values for {offset} of the case: record again (see golden/README.md)"
        )
    return snapshot


def describe(snapshot: list) -> list:
    return [[entry["step"], [name for name in NAMES if name in entry]] for entry in snapshot]


class Recording:
    """The recordings of one optimizer and dtype."""

    def __init__(self, dtype: str, optimizer: str = "rmsprop"):
        self.dtype = dtype
        with np.load(path(dtype, optimizer), allow_pickle=False) as data:
            self.meta = json.loads(str(data["meta"]))
            self._arrays = {name: data[name] for name in data.files if name != "meta"}
        if self.meta["format"] != FORMAT:
            raise ValueError(
                f"{path(dtype, optimizer).name} has format {self.meta['format']}, not {FORMAT}: see "
                "golden/README.md"
            )

    def inputs_crc(self, case) -> int:
        return self.meta["cases"][case.name]["inputs"]

    def snapshot(self, case, run: str) -> list:
        """`run` is "native" or "ieee" (after the last step), or "early" (ieee, after EARLY steps)."""
        return unpack(self._arrays[f"{case.name}/{run}"], case.shapes, self.meta["cases"][case.name][run])

    def crcs(self, case) -> np.ndarray:
        """uint32 [steps, parameters] of the ieee run."""
        return self._arrays[f"{case.name}/crcs"]


def path(dtype: str, optimizer: str = "rmsprop") -> Path:
    return FOLDER / f"{optimizer}_{dtype}.npz"


def inputs_crc(case, dtype) -> int:
    """Of all parameters and gradients of a case: a recording is only good for the inputs it was made with."""
    digest = 0
    arrays = case.parameters(dtype)
    for step in range(case.steps):
        arrays += [case.gradient(step, place, dtype) for place in range(len(case.shapes))]
    for array in arrays:
        digest = zlib.crc32(b"none", digest) if array is None else crc_chain(array, digest)
    return digest


def crc_chain(array: np.ndarray, digest: int) -> int:
    return zlib.crc32(np.array(crc({"param": array})).tobytes(), digest)
