# SPDX-License-Identifier: BSD-2-Clause
"""Pickles whose tensors reach beyond their storages, or would take more memory than there is."""

from __future__ import annotations

import dragon
import numpy as np
import pytest
from dragon.core.framework import workspace

from dragon_optim import checkpoint
from tests.checkpoint.conftest import EIGHT
from tests.checkpoint.support import NO_HOOKS, integer, pickled, refused, storage, tensor, text

OK = storage(8)
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
PARAMETER = b"ctorch._utils\n_rebuild_parameter\n"


def one_tensor_often(times):
    """Five bytes of pickle for each."""
    made = tensor(OK, 0, (8,))
    assert made.startswith(REBUILD)
    first = REBUILD + b"q\x00" + made[len(REBUILD) : -1] + b"q\x01R"
    return first + b"h\x00h\x01R" * (times - 1)


def untyped(dtype):
    """A tensor of a dtype that has no storages of its own."""
    made = tensor(storage(32, "UntypedStorage", module="torch.storage")).replace(b"_v2", b"_v3")
    return made[:-2] + b"ctorch\n" + dtype + b"\ntR"


TABLE = {
    "storage of two parts": (b"(" + text("storage") + b"K\x01tQ", "not described as torch.save"),
    "storage that is none": (text("storage") + b"Q", "not described as torch.save"),
    "storage with a list for a type": (
        b"(" + text("storage") + b"]" + text("0") + text("cpu") + b"K\x08tQ",
        "not described as torch.save",
    ),
    "storage of a function": (storage(8, "Size"), "which is no type of storages"),
    "storage without a member": (storage(8, key="7"), "no storage '7'"),
    "storage key as a path": (storage(8, key="../data.pkl"), "no storage '../data.pkl'"),
    "numel too large": (storage(9), "9 elements, 36 bytes, but has 32"),
    "numel too small": (storage(7), "7 elements, 28 bytes, but has 32"),
    "numel huge": (storage(2**62), "18446744073709551616 bytes, but has 32"),
    "numel negative": (storage(-8), "has -8 elements"),
    "numel a bool": (storage(8).replace(integer(8), b"\x88"), "has True elements"),
    "one storage, two types": (
        b"]" + tensor(OK) + b"a" + tensor(storage(8, "IntStorage")) + b"a",
        "two tensors of different dtypes share storage '0'",
    ),
    "one untyped storage, two types": (
        b"]" + b"".join(untyped(dtype) + b"a" for dtype in (b"uint16", b"uint32")),
        "two tensors of different dtypes share storage '0'",
    ),
    "one storage, two lengths": (
        b"]" + tensor(OK) + b"a" + tensor(storage(7)) + b"a",
        "storage '0' is described in two ways",
    ),
    "other type of the same bytes": (storage(8, "DoubleStorage"), "but has 32"),
    "complex": (storage(4, "ComplexFloatStorage"), "complex64"),
    "beyond the end": (tensor(OK, 0, (9,)), "up to element 9 of a storage that has 8"),
    "offset beyond": (tensor(OK, 8, (1,)), "up to element 9 of a storage that has 8"),
    "empty, offset beyond": (tensor(OK, 9, (0,)), "up to element 9 of a storage that has 8"),
    "offset huge": (tensor(OK, 2**64, (1,)), "up to element 18446744073709551617"),
    "offset negative": (tensor(OK, -1, (1,)), "the offset"),
    "stride beyond": (tensor(OK, 0, (2, 2), (8, 1)), "up to element 10"),
    "stride huge": (tensor(OK, 0, (2,), (2**63 - 1,)), "up to element 9223372036854775808"),
    "stride negative": (tensor(OK, 7, (8,), (-1,)), "strides of a tensor are not"),
    "size negative": (tensor(OK, 0, (-1,), (1,)), "sizes of a tensor are not"),
    "sizes whose product wraps": (tensor(OK, 0, (2**32, 2**32), (1, 1)), "up to element"),
    "33 axes": (tensor(OK, 0, (1,) * 33, (1,) * 33), "at most 32"),
    "sizes and strides": (tensor(OK, 0, (1, 1), (1,)), "2 axes and 1 strides"),
    "repeated number": (tensor(OK, 0, (2**40,), (0,)), "The limit for this file is 671"),
    "repeated square": (tensor(OK, 0, (1 << 13, 1 << 13), (0, 0)), "views that repeat few numbers"),
    "empty and huge": (tensor(OK, 0, (0, 2**60), (1, 1)), "The limit for this file"),
    "one storage many times": (
        b"](" + one_tensor_often(40_000) + b"e",
        "more small tensors than its size explains; if they are views, save copies of them",
    ),
    "hooks": (tensor(OK, hooks=NO_HOOKS + b"K\x01Ns"), "backward hooks"),
    "hooks none": (tensor(OK, hooks=b"N"), "backward hooks"),
    "gradient of numbers": (tensor(storage(4, "LongStorage"), grad=b"\x88"), "int64 requires a gradient"),
    "gradient a number": (tensor(OK, grad=b"K\x01"), "requires_grad"),
    "tensor of nothing": (REBUILD + b"(tR", "_rebuild_tensor_v2 with other"),
    "tensor of a string": (tensor(text("x")), "made of something that is no storage"),
    "tensor of a tensor": (tensor(tensor(OK)), "made of something that is no storage"),
    "metadata": (tensor(OK)[:-2] + b"}" + text("neg") + b"\x88stR", "lazily negated"),
    "parameter of a number": (PARAMETER + b"(K\x01\x88" + NO_HOOKS + b"tR", "_rebuild_parameter with other"),
    "parameter with hooks": (PARAMETER + b"(" + tensor(OK) + b"\x88NtR", "backward hooks"),
    "untyped without a dtype": (
        tensor(storage(32, "UntypedStorage", module="torch.storage")),
        "without a dtype",
    ),
    "v3 with a name": (
        tensor(OK).replace(b"_v2", b"_v3")[:-2] + b"ctorch\nSize\ntR",
        "dtype torch.Size",
    ),
    "v3 of another type": (
        tensor(OK).replace(b"_v2", b"_v3")[:-2] + b"ctorch\nint32\ntR",
        "dtype int32 is made of a torch.FloatStorage",
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_hostile(name, packed):
    body, words = TABLE[name]
    refused(packed(pickled(body)), words)


def test_places_are_short(packed):
    deep = b"]" * 400 + tensor(storage(16, "BFloat16Storage"), 0, (4,)) + b"a" * 400
    with pytest.warns(UserWarning, match="widens bfloat16 to float32") as caught:
        checkpoint.load(packed(pickled(deep)))
    assert len(str(caught[0].message)) < 400


def test_bools_of_other_bytes_are_true(packed):
    body = b"]" + tensor(storage(32, "BoolStorage"), 0, (32,)) + b"a"
    (loaded,) = checkpoint.load(packed(pickled(body)))
    assert loaded.dtype == "bool"
    np.testing.assert_array_equal(loaded.numpy().view("uint8"), np.frombuffer(EIGHT, "uint8") != 0)


def test_other_devices_load_to_the_cpu(packed):
    body = tensor(OK.replace(text("cpu"), text("cuda:3")), 0, (8,))
    np.testing.assert_array_equal(checkpoint.load(packed(pickled(body))).numpy(), np.arange(8))


def test_a_failed_load_makes_no_tensors(packed):
    path = packed(pickled(b"]" + tensor(OK, 0, (8,)) + b"a"))
    with dragon.Workspace().as_default():
        home = workspace.get_workspace()
        (loaded,) = checkpoint.load(path)
        one = home.memory_allocated()
        assert one > 0
        path.write_bytes(path.read_bytes().replace(EIGHT, EIGHT[::-1]))
        refused(path, "damaged")
        assert home.memory_allocated() == one
        del loaded
