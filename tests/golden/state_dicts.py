# SPDX-License-Identifier: BSD-2-Clause
"""State dicts of PyTorch's optimizers: how the recordings are laid out, for the recorder and for the tests.

One file per version of PyTorch. A recording is a tree of dicts, lists, numbers and tensors. The file holds
the trees as JSON, with pairs for dicts (their keys are numbers as well), and each tensor as an array.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import numpy as np

FORMAT = 1
FOLDER = Path(__file__).parent
VERSIONS = ("2.1", "2.13")

# Trajectories of cases.py whose state dict after EARLY steps is recorded, of both dtypes. How they go on from
# there stands in the recordings of recording.py.
CASES = ("defaults", "momentum+centered+decay+maximize", "changing-everything", "empty-group")

# Trainings that are recorded with what they come to: {"params", "state_dict"} when they are interrupted, and
# {"end_params", "end_state_dict"} after as many steps again.
SHAPES = ((2, 3), (4,), (), (3,))
STEPS = 4


class Array:
    """A tensor of PyTorch where PyTorch is not installed: an array, and the name of the dtype that it had."""

    def __init__(self, array: np.ndarray, dtype: str):
        self.array, self.dtype = array, dtype

    def widened(self) -> np.ndarray:
        """The values, those of bfloat16 (which numpy does not have) as float32."""
        if self.dtype == "bfloat16":
            bits = self.array.reshape(-1).astype(np.uint32) << 16
            return bits.view(np.float32).reshape(self.array.shape)
        return self.array


class Foreign:
    """Behaves towards us as a tensor of PyTorch does that wants a gradient and lives on a GPU."""

    def __init__(self, tensor: Array, ready: frozenset = frozenset()):
        self.tensor, self.ready = tensor, ready

    def detach(self) -> Foreign:
        return Foreign(self.tensor, self.ready | {"detached"})

    def cpu(self) -> Foreign:
        return Foreign(self.tensor, self.ready | {"cpu"})

    def float(self) -> Foreign:
        return Foreign(Array(self.tensor.widened().astype("float32"), "float32"), self.ready)

    def numpy(self) -> np.ndarray:
        if "detached" not in self.ready:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad")
        if "cpu" not in self.ready:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if self.tensor.dtype == "bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.tensor.array

    def __array__(self, dtype=None):
        raise RuntimeError("a tensor of PyTorch must be asked for its numpy()")


def path(version: str) -> Path:
    return FOLDER / f"state_dicts_{version}.npz"


def encode(value: Any, arrays: dict, as_array: Callable) -> Any:
    """The tree as JSON. Tensors go to `arrays`; `as_array` makes an Array of one, and None of all else."""
    if isinstance(value, dict):
        pairs = [[encode(part, arrays, as_array) for part in pair] for pair in value.items()]
        return {"dict": pairs}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [encode(each, arrays, as_array) for each in value]}
    tensor = as_array(value)
    if tensor is not None:
        name = f"array{len(arrays)}"
        arrays[name] = tensor.array
        return {"tensor": name, "dtype": tensor.dtype}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"a state dict of PyTorch holds a {type(value)}")


def decode(tree: Any, arrays: dict, tensor: Callable) -> Any:
    """The reverse of `encode`; `tensor(Array)` makes what stands for a tensor."""
    if not isinstance(tree, dict):
        return tree
    if "dict" in tree:
        return {decode(key, arrays, tensor): decode(value, arrays, tensor) for key, value in tree["dict"]}
    if "tensor" in tree:
        return tensor(Array(arrays[tree["tensor"]], tree["dtype"]))
    ((kind, items),) = tree.items()
    return {"list": list, "tuple": tuple}[kind](decode(each, arrays, tensor) for each in items)


class StateDicts:
    """The recordings of one version of PyTorch."""

    def __init__(self, version: str):
        with np.load(path(version), allow_pickle=False) as data:
            self.meta = json.loads(str(data["meta"]))
            self._arrays = {name: data[name] for name in data.files if name != "meta"}
        if self.meta["format"] != FORMAT:
            raise ValueError(f"{path(version).name} has format {self.meta['format']}, not {FORMAT}")

    def __contains__(self, name: str) -> bool:
        return name in self.meta["recordings"]

    def get(self, name: str, tensor: Callable = Array.widened) -> Any:
        """A recording, made anew at each call; `tensor(Array)` makes what stands for a tensor in it."""
        arrays = {name: np.array(array) for name, array in self._arrays.items()}
        return decode(self.meta["recordings"][name], arrays, tensor)
