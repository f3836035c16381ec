# SPDX-License-Identifier: BSD-2-Clause
"""What is saved comes back."""

from __future__ import annotations

import collections
import os
from pathlib import Path

import dragon
import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim import checkpoint
from dragon_optim._torch_file import limits
from tests.checkpoint import ours
from tests.checkpoint.support import described, members, round_trip


@pytest.mark.parametrize("name", ours.LIVE)
def test_round_trip(name, tmp_path):
    value = ours.LIVE[name]()
    loaded = round_trip(value, tmp_path / "file.pt")
    assert described(loaded) == described(value)


@pytest.mark.parametrize("name", ours.CASES)
def test_equal_content_gives_equal_bytes(name, tmp_path):
    checkpoint.save(ours.CASES[name](), tmp_path / "one.pt")
    checkpoint.save(checkpoint.load(tmp_path / "one.pt"), tmp_path / "two.pt")
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()


def test_one_object_stays_one(tmp_path):
    loaded = round_trip(ours.CASES["shared"](), tmp_path / "file.pt")
    assert loaded["a"] is loaded["b"][0] is loaded["b"][1]
    assert loaded["c"] is loaded["d"][0] is loaded["d"][1]
    assert len([name for name in members(tmp_path / "file.pt") if name.startswith("data/")]) == 1


def test_parameter_and_its_tensor_are_stored_once(tmp_path):
    param = torch.nn.Parameter(ours.numbers(1000))
    loaded = round_trip({"param": param, "data": param.data}, tmp_path / "file.pt")
    assert os.path.getsize(tmp_path / "file.pt") < 6000
    assert isinstance(loaded["param"], torch.nn.Parameter)
    assert not isinstance(loaded["data"], torch.nn.Parameter)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24.0).reshape(2, 3, 4).T,
        np.arange(24.0).reshape(4, 6)[::2, ::-3],
        np.broadcast_to(np.float32(2), (3, 2)),
        np.arange(5, dtype=">i4"),
        np.arange(6, dtype=">f8").reshape(2, 3).T,
        np.arange(3 << 18, dtype=">f4").reshape(3, 1 << 18).T,
        np.asfortranarray(np.arange(3 << 18, dtype="int8").reshape(3, 1 << 18)),
        np.zeros((3, 0, 2), "uint8"),
        np.array(True),
    ],
    ids=lambda array: f"{array.dtype.str}-{array.shape}-{array.strides}",
)
def test_numpy_arrays_come_back_as_tensors(array, tmp_path):
    loaded = round_trip([array], tmp_path / "file.pt")[0]
    assert isinstance(loaded, torch.Tensor)
    assert loaded.dtype == array.dtype.name
    assert tuple(loaded.shape) == array.shape
    np.testing.assert_array_equal(loaded.numpy(), array)


@pytest.mark.parametrize(
    ("scalar", "plain"),
    [(np.float32(1.5), 1.5), (np.int8(-3), -3), (np.bool_(True), True), (np.uint64(2**64 - 1), 2**64 - 1)]
    + [(np.float16(0.5), 0.5), (np.str_("x"), "x"), (np.bytes_(b"x"), b"x")],
)
def test_numpy_scalars_become_pythons(scalar, plain, tmp_path):
    loaded = round_trip({"value": scalar, np.int64(4): 1}, tmp_path / "file.pt")
    assert (type(loaded["value"]), loaded) == (type(plain), {"value": plain, 4: 1})


def test_counters(tmp_path):
    """What a scheduler with milestones has in its state dict. One object stays one."""
    counter = collections.Counter({30: 2, np.int64(80): 1})
    loaded = round_trip(
        {"milestones": counter, "again": [counter], "none": collections.Counter()}, tmp_path / "a.pt"
    )
    assert loaded == {"milestones": counter, "again": [counter], "none": collections.Counter()}
    assert loaded["again"][0] is loaded["milestones"]
    assert type(loaded["milestones"]) is type(loaded["none"]) is collections.Counter


@pytest.mark.parametrize(
    ("counter", "message"),
    [
        ({"a": 1.5}, r"obj\['m'\] counts 'a' as a float"),
        ({"a": True}, r"obj\['m'\] counts 'a' as a bool"),
        ({("a",): 1}, r"obj\['m'\] has a key of type tuple"),
    ],
)
def test_counters_of_other_things(counter, message, tmp_path):
    with pytest.raises(TypeError, match=message):
        checkpoint.save({"m": collections.Counter(counter)}, tmp_path / "a.pt")


def test_values_to_the_bit(tmp_path):
    numbers = np.array([0.0, -0.0, np.nan, -np.nan, np.inf, 1e-45, 3.4e38], "float32")
    numbers.view("uint32")[2] = 0x7FA00001  # a signalling NaN with a payload
    loaded = round_trip([ours.tensor(numbers), float("nan")], tmp_path / "file.pt")
    assert loaded[0].numpy().tobytes() == numbers.tobytes()
    assert loaded[1] != loaded[1]


def test_a_shape_becomes_a_tuple(tmp_path):
    loaded = round_trip(ours.numbers(2, 3).shape, tmp_path / "file.pt")
    assert (type(loaded), loaded) == (tuple, (2, 3))


def test_an_integer_parameter_loses_requires_grad(tmp_path):
    loaded = round_trip(torch.nn.Parameter(ours.numbers(2, dtype="int64")), tmp_path / "file.pt")
    assert isinstance(loaded, torch.nn.Parameter)
    assert not loaded.requires_grad


def test_loaded_tensors_can_be_trained(tmp_path):
    param = round_trip([torch.nn.Parameter(ours.numbers(4))], tmp_path / "file.pt")[0]
    optimizer = dragon_optim.RMSprop([param], lr=0.1)
    before = param.numpy().copy()
    (param * param).sum().backward()
    optimizer.step()
    assert not np.array_equal(param.numpy(), before)


def test_loads_into_the_current_workspace(tmp_path):
    checkpoint.save([ours.numbers(3)], tmp_path / "file.pt")
    with dragon.Workspace().as_default():
        (loaded,) = checkpoint.load(tmp_path / "file.pt")
        assert float((loaded + loaded).sum()) == pytest.approx(-10.5)


def test_each_tensor_has_memory_of_its_own(tmp_path):
    loaded = round_trip([ours.numbers(3), ours.numbers(3)], tmp_path / "file.pt")
    loaded[0].numpy()[...] = 9
    np.testing.assert_array_equal(loaded[1].numpy(), ours.numbers(3).numpy())


def test_deep_and_wide(tmp_path):
    deep = []
    for i in range(498):
        deep = [deep] if i % 2 else {"x": (deep,)}
        if i > 330:
            break
    wide = {"deep": deep, **{str(i): i for i in range(5000)}, "ints": {i: -i for i in range(50000)}}
    assert round_trip(wide, tmp_path / "file.pt") == wide


@pytest.mark.parametrize(
    "keys",
    [
        range(1, 20_001),
        range(0, 60_000, 3),
        [i + i // 3 for i in range(20_000)],
        range(5_000, 200_000_000, 5_000),
        range(0, -20_000, -1),
        range(-(2**62), 2**62, 1 << 48),
        np.random.default_rng(0).permutation(20_000).tolist(),
    ],
    ids=["from 1", "every third", "gaps", "steps", "down", "wide", "shuffled"],
)
def test_many_ints_as_keys(keys, tmp_path):
    value = dict.fromkeys(keys)
    assert round_trip(value, tmp_path / "file.pt") == value


@pytest.mark.parametrize("layout", ["contiguous", "strided"])
def test_bools_of_other_bytes_are_saved_as_one(layout, tmp_path):
    array = np.array([[2, 0, 1], [255, 0, 0]], "uint8").view(bool)
    checkpoint.save([array if layout == "contiguous" else array.T], tmp_path / "file.pt")
    expected = np.array([[1, 0, 1], [1, 0, 0]], "uint8")
    expected = expected if layout == "contiguous" else expected.T
    assert members(tmp_path / "file.pt")["data/0"] == expected.tobytes()
    np.testing.assert_array_equal(checkpoint.load(tmp_path / "file.pt")[0].numpy().view("uint8"), expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: [[] for _ in range(5000)],
        lambda: [{} for _ in range(5000)],
        lambda: [(None,) for _ in range(5000)],
        lambda: [collections.OrderedDict() for _ in range(5000)],
        lambda: [torch.nn.Parameter(ours.numbers(1)) for _ in range(1000)],
        lambda: [ours.numbers(1, dtype="int8") for _ in range(1000)],
    ],
    ids=["lists", "dicts", "tuples", "OrderedDicts", "parameters", "tensors"],
)
def test_what_is_saved_is_within_the_limit_of_loading(make, tmp_path, monkeypatch):
    # Without what every file may take: what is in proportion to its size must do.
    monkeypatch.setattr(limits, "BASE", 0)
    value = make()
    assert len(round_trip(value, tmp_path / "file.pt")) == len(value)


def test_paths_of_every_kind(tmp_path):
    class Place(os.PathLike):
        def __fspath__(self):
            return str(tmp_path / "place.pt")

    for path in (str(tmp_path / "string.pt"), Path(tmp_path / "path.pt"), Place(), tmp_path / "☃ größe\n.pt"):
        assert round_trip({"x": 1}, path) == {"x": 1}


def test_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert round_trip(collections.OrderedDict(x=1), "file.pt") == collections.OrderedDict(x=1)


@pytest.mark.parametrize("job", ["save", "load"])
def test_progress(job, tmp_path):
    value = {"large": np.zeros(3_000_000, "float32"), "small": np.zeros(3)}
    path = tmp_path / "file.pt"
    calls = []
    checkpoint.save(value, path, progress=lambda *call: calls.append(call))
    if job == "load":
        calls.clear()
        checkpoint.load(path, progress=lambda *call: calls.append(call))
    total = sum(len(data) for data in members(path).values())
    assert {each for _, each in calls} == {total}
    done = [each for each, _ in calls]
    assert done == sorted(done)
    assert done[-1] == total
    assert len(done) > 12000000 / 2**20


def test_progress_may_end_the_loading(tmp_path):
    checkpoint.save([np.zeros(10)], tmp_path / "file.pt")

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint.load(tmp_path / "file.pt", progress=stop)
