# SPDX-License-Identifier: BSD-2-Clause
"""What cannot be saved is named with its place, and the file that was there stays."""

from __future__ import annotations

import collections
import datetime
import enum
import functools
import re
import types

import dragon
import numpy as np
import pytest
from dragon.core.framework import workspace
from dragon.vm import torch

import dragon_optim
from dragon_optim import checkpoint
from tests.checkpoint import ours
from tests.checkpoint.support import left_behind


class Colour(enum.IntEnum):
    RED = 1


Point = collections.namedtuple("Point", "x y")


def with_attribute():
    state = collections.OrderedDict()
    state.note = "x"
    return state


def cleared():
    with dragon.Workspace().as_default():
        value = ours.numbers(3)
        workspace.get_workspace().clear()
    return value


def inside_itself():
    value = {"list": []}
    value["list"].append(value)
    return value


def deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


def nested(key, levels):
    value = {1}
    for _ in range(levels):
        value = {key: value}
    return value


def deep_by_sharing():
    inner = deep(300)
    outer = inner
    for _ in range(300):
        outer = [outer]
    return {"first": inner, "second": outer}


TABLE = {
    "set": (lambda: {"model": [1, 2, 3, {1, 2}]}, TypeError, "obj['model'][3] is of type set"),
    "object": (lambda: [object()], TypeError, "obj[0] is of type object"),
    "function": (lambda: {"f": len}, TypeError, "obj['f'] is of type builtin_function_or_method"),
    "complex": (lambda: 1j, TypeError, "obj is of type complex"),
    "bytearray": (lambda: [bytearray(b"x")], TypeError, "obj[0] is of type bytearray"),
    "enum": (lambda: {"c": Colour.RED}, TypeError, "convert it with int()"),
    "namedtuple": (lambda: {"p": Point(1, 2)}, TypeError, "convert it with tuple()"),
    "defaultdict": (lambda: {"d": collections.defaultdict(int)}, TypeError, "convert it with dict()"),
    "proxy": (lambda: {"d": types.MappingProxyType({})}, TypeError, "convert it with dict()"),
    "date": (lambda: [datetime.date(2020, 1, 1)], TypeError, "datetime.date"),
    "module": (
        lambda: {"m": torch.nn.Linear(1, 1)},
        TypeError,
        "obj['m'] is of type dragon",
    ),
    "optimizer": (
        lambda: dragon_optim.RMSprop([torch.nn.Parameter(ours.numbers(1))]),
        TypeError,
        "save its state_dict()",
    ),
    "timedelta": (lambda: [np.timedelta64(1, "s")], TypeError, "numpy.timedelta64"),
    "longdouble": (lambda: [np.longdouble(1)], TypeError, "numpy."),
    "int16": (lambda: {"a": np.zeros(2, "int16")}, TypeError, "obj['a'] has dtype int16"),
    "uint16": (lambda: {"a": np.zeros(2, "uint16")}, TypeError, "obj['a'] has dtype uint16"),
    "complex array": (lambda: {"a": np.zeros(2, "complex64")}, TypeError, "obj['a'] has dtype complex64"),
    "object array": (lambda: {"a": np.array([None])}, TypeError, "obj['a'] has dtype object"),
    "strings": (lambda: {"a": np.array(["x"])}, TypeError, "obj['a'] has dtype str"),
    "structured": (lambda: {"a": np.zeros(2, "i4,f4")}, TypeError, "obj['a'] has dtype void"),
    "masked": (lambda: {"a": np.ma.zeros(2)}, TypeError, "give it as a numpy array"),
    "no data": (lambda: {"t": [torch.Tensor()]}, RuntimeError, "obj['t'][0] has no data"),
    "cleared": (lambda: {"t": cleared()}, RuntimeError, "obj['t'] "),
    "large int": (lambda: {"i": 2**2040}, ValueError, "obj['i'] is an int of more than 255 bytes"),
    "tuple key": (lambda: {"a": [{(1, 2): 3}]}, TypeError, "obj['a'][0] has a key of type tuple"),
    "bytes key": (lambda: {b"a": 1}, TypeError, "obj has a key of type bytes"),
    "tensor key": (lambda: {ours.numbers(1): 1}, TypeError, "obj has a key of type dragon"),
    "large key": (lambda: {"a": {2**63: 1}}, ValueError, "the key 9223372036854775808 of obj['a']"),
    "huge key": (lambda: {2**9000: 1}, ValueError, "the key an int of 9001 bits of obj is an int of more"),
    "long key": (lambda: {"ü\n" * 1000: {1}}, TypeError, r"...] is of type set"),
    "many long keys": (lambda: nested("x" * 50, 100), TypeError, "... is of type set"),
    "nan key": (lambda: {float("nan"): 1}, ValueError, "the key nan of obj"),
    "sparse keys": (lambda: {i * i: 1 for i in range(17000)}, ValueError, "more than 16384"),
    "itself": (inside_itself, ValueError, "obj['list'][0] contains itself"),
    "deep": (lambda: deep(501), ValueError, "obj is nested more than 500 levels deep"),
    "very deep": (lambda: deep(100_000), ValueError, "obj is nested more than 500 levels deep"),
    "deep by sharing": (deep_by_sharing, ValueError, "obj is nested more than 500 levels deep"),
    "attribute": (with_attribute, TypeError, "obj has an attribute note"),
}


@pytest.mark.parametrize("name", TABLE)
def test_refused(name, tmp_path):
    make, error, words = TABLE[name]
    path = tmp_path / "file.pt"
    path.write_bytes(b"old")
    with pytest.raises(error, match=re.escape(words)) as caught:
        checkpoint.save(make(), path)
    assert not isinstance(caught.value, checkpoint.CheckpointError)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isascii()
    assert path.read_bytes() == b"old"
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("path", [3, None, b"x.pt", object()])
@pytest.mark.parametrize(
    "job", [lambda path: checkpoint.save({}, path), checkpoint.load], ids=["save", "load"]
)
def test_no_path(job, path):
    with pytest.raises(TypeError, match="path must be a str or an os.PathLike"):
        job(path)


@pytest.mark.parametrize(
    "job", [functools.partial(checkpoint.save, {}), checkpoint.load], ids=["save", "load"]
)
def test_progress_that_cannot_be_called(job, tmp_path):
    path = tmp_path / "file.pt"
    path.write_bytes(b"old")
    with pytest.raises(TypeError, match="progress must be callable or None, but got int"):
        job(path, progress=3)
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("change", ["shape", "clear"])
def test_a_tensor_that_changes_meanwhile(change, tmp_path):
    with dragon.Workspace().as_default():
        large = torch.Tensor(np.zeros(3 << 20, "float32"))

        def progress(done, total):
            if done > 1 << 20:
                if change == "clear":
                    workspace.get_workspace().clear()
                else:
                    workspace.get_workspace().get_tensor(large.id).FromNumpy(np.zeros(5, "float32"), True)

        with pytest.raises(RuntimeError, match=r"obj\[0\] has"):
            checkpoint.save([large], tmp_path / "file.pt", progress)
    assert list(tmp_path.iterdir()) == []
