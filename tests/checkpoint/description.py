# SPDX-License-Identifier: BSD-2-Clause
"""What an object holds, as JSON: the same whether Dragon or PyTorch has loaded it. Imports neither."""

from __future__ import annotations

import collections

import numpy as np

# What Dragon does not have, and what it becomes.
WIDENED = {"bfloat16": "float32", "int16": "int32", "uint16": "int32", "uint32": "int64"}


def describe(value, numbers=None):
    """Tensors are numbered as they appear, so that one object in two places can be told from two."""
    numbers = {} if numbers is None else numbers
    kind = type(value)
    if hasattr(value, "requires_grad"):
        return tensor(value, numbers)
    if kind in (dict, collections.OrderedDict):
        items = [[repr(key), describe(each, numbers)] for key, each in value.items()]
        metadata = getattr(value, "_metadata", None)
        return [kind.__name__, items] + ([describe(metadata, numbers)] if metadata is not None else [])
    if kind in (list, tuple):
        return [kind.__name__, [describe(each, numbers) for each in value]]
    if kind.__name__ == "Size":
        return ["tuple", [describe(each, numbers) for each in value]]
    if kind.__name__ == "dtype":
        return ["str", repr(str(value).replace("torch.", ""))]
    assert kind in (type(None), bool, int, float, str, bytes), kind
    return [kind.__name__, value.hex() if kind in (float, bytes) else repr(value)]


def tensor(value, numbers):
    known = id(value) in numbers
    # The object is kept, so that its id stays its own.
    number, _ = numbers.setdefault(id(value), (len(numbers), value))
    if known:
        return ["tensor", number]
    dtype = str(value.dtype).replace("torch.", "")
    if dtype in WIDENED and hasattr(value, "to"):
        method = {"float32": "float", "int32": "int", "int64": "long"}[WIDENED[dtype]]
        array = getattr(value.detach(), method)().numpy()
    else:
        array = value.detach().numpy() if hasattr(value, "resolve_neg") else value.numpy()
    array = np.array(array, order="C")
    is_parameter = type(value).__name__ == "Parameter"
    return ["tensor", number, str(array.dtype), list(array.shape), array.tobytes().hex()] + [
        bool(value.requires_grad),
        is_parameter,
    ]
