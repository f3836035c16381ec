# SPDX-License-Identifier: BSD-2-Clause
"""Objects to save. Each is made anew, since a test may change it."""

from __future__ import annotations

import collections

import numpy as np
from dragon.vm import torch

import dragon_optim

DTYPES = ("bool", "int8", "uint8", "int32", "int64", "float16", "float32", "float64")


def tensor(array, dtype=None, **options):
    return torch.Tensor(np.array(array, dtype), **options)


def numbers(*shape, dtype="float32"):
    return tensor((np.arange(np.prod(shape)) * 1.25 - 3).reshape(shape).astype(dtype))


def training():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    for i, param in enumerate(model.parameters()):
        param.numpy()[...] = (
            np.arange(param.numpy().size, dtype="float32").reshape(tuple(param.shape)) / 8 - i
        )
    optimizer = dragon_optim.RMSprop(model.parameters(), lr=0.01, momentum=0.9, centered=True)
    for _ in range(2):
        output = model(numbers(5, 3))
        (output * output).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 2}


def parameters():
    first = torch.nn.Parameter(numbers(2, 2))
    frozen = torch.nn.Parameter(numbers(3), requires_grad=False)
    leaf = tensor([1.0, 2.0], "float32", requires_grad=True)
    return collections.OrderedDict(first=first, frozen=frozen, leaf=leaf, again=[first, (first, leaf)])


def ordered():
    state = collections.OrderedDict(weight=numbers(2))
    state._metadata = collections.OrderedDict([("", {"version": 1})])
    return state


def plain():
    return {
        "none": None,
        "bools": [True, False],
        "ints": [0, 1, 255, 256, 65535, 65536, -1, 2**31 - 1, -(2**31), 2**31, 2**63, -(2**200), 2**2039 - 1],
        "floats": [0.0, -0.0, 1.5, float("inf"), 1e-320],
        "strings": ["", "a", "naïve ☃ 😀", "\udc80", "x" * 300],
        "bytes": [b"", b"abc", bytes(range(256)), b"y" * 300],
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "nested": [[], {}, [[[{}]]]],
        1: "int key",
        -5: "negative key",
        2.5: "float key",
        None: "none key",
    }


def shared():
    one, two = numbers(3), [1, 2]
    return {"a": one, "b": [one, one], "c": two, "d": (two, two)}


CASES = {
    "dtypes": lambda: {dtype: numbers(2, 3, dtype=dtype) for dtype in DTYPES},
    "zero_dim": lambda: [tensor(2.5), tensor(7, "int64"), tensor(True)],
    "empty": lambda: [numbers(0), numbers(2, 0, dtype="float64"), numbers(0, 3, dtype="int64"), numbers(3)],
    "parameters": parameters,
    "ordered": ordered,
    "plain": plain,
    "shared": shared,
    "many": lambda: [numbers(2, 2) for _ in range(300)],
    "bare": lambda: numbers(2, 2),
    "just_a_number": lambda: 7,
}
# Not for the recorded digests: their numbers come from Dragon's arithmetic.
LIVE = dict(CASES, training=training)
