# SPDX-License-Identifier: BSD-2-Clause
"""Pickles that try to run something, or to use up time or memory."""

from __future__ import annotations

import struct

import pytest

from dragon_optim import checkpoint
from tests.checkpoint.support import (
    NO_HOOKS,
    integer,
    ints,
    pickled,
    refused,
    storage,
    tensor,
    text,
)

OK = storage(8)


def call(name: bytes, arguments: bytes) -> bytes:
    return b"c" + name + b"\n(" + arguments + b"tR"


def u8(number: int) -> bytes:
    return struct.pack("<Q", number)


def nested_dicts(depth):
    return b"}" + (text("a") + b"}") * depth + b"s" * depth


def recall(index):
    return b"j" + struct.pack("<L", index)


def keep(index):
    return b"r" + struct.pack("<L", index)


def deep_by_sharing():
    """Two lists of 300 levels, the inner one first met on its own, where it is not deep."""
    inner = b"]" + b"]" * 299 + b"a" * 299 + keep(0)
    outer = b"]" * 300 + recall(0) + b"a" * 300
    return b"(" + inner + outer + b"t"


def doubling(levels):
    """Each list holds the one before it twice: as a tree it would have 2**levels leaves."""
    lists = [b"](" + recall(i) * 2 + b"e" + keep(i + 1) for i in range(levels)]
    return b"(]" + keep(0) + b"".join(lists) + b"t"


RUNS = {
    "os.system": call(b"os\nsystem", text("touch hacked")),
    "posix.system": call(b"posix\nsystem", text("touch hacked")),
    "builtins.eval": call(b"builtins\neval", text("1")),
    "__builtin__.eval": call(b"__builtin__\neval", text("1")),
    "builtins.exec": call(b"builtins\nexec", text("1")),
    "builtins.getattr": call(b"builtins\ngetattr", b"NN"),
    "torch.load": call(b"torch\nload", text("x")),
    "torch.hub": call(b"torch.hub\nload", text("x")),
    "numpy": call(b"numpy.core.multiarray\nscalar", b"N"),
    "codecs.decode": call(b"_codecs\ndecode", text("x")),
    "bytearray": call(b"builtins\nbytearray", b"K\x05"),
    "runpy": call(b"runpy\n_run_code", b"N"),
    "dotted": call(b"torch\n_utils._rebuild_tensor_v2", b"N"),
    "dunder": call(b"collections\nOrderedDict.__init__", b"N"),
}

STACKED = {
    "os.system": text("os") + text("system") + b"\x93" + text("ls") + b"\x85R",
    "chain": text("torch") + text("_utils.os.system") + b"\x93" + text("ls") + b"\x85R",
    "eval": text("builtins") + text("eval") + b"\x93" + text("1") + b"\x85R",
    "no string": b"K\x01K\x02\x93",
    "bytes": b"C\x02osC\x06system\x93",
    "none left": text("os") + b"\x93",
}

TABLE = {
    "number called": (b"K\x01)R", "calls something that is no function"),
    "string called": (text("x") + b")R", "calls something that is no function"),
    "dtype called": (b"ctorch\nfloat32\n)R", "torch.float32, which is no function"),
    "storage class called": (b"ctorch\nFloatStorage\n)R", "torch.FloatStorage, which is no function"),
    "arguments in a list": (b"ccollections\nOrderedDict\n]R", "calls something"),
    "OrderedDict of pairs": (call(b"collections\nOrderedDict", b"]"), "OrderedDict with other arguments"),
    "Counter of a list": (call(b"collections\nCounter", b"]"), "Counter with other arguments"),
    "Counter of nothing": (call(b"collections\nCounter", b""), "Counter with other arguments"),
    "Counter of strings": (
        call(b"collections\nCounter", b"}K\x01" + text("x") + b"s"),
        "a Counter that counts something else than ints",
    ),
    "item of a Counter": (call(b"collections\nCounter", b"}") + b"K\x01Ns", "no dict"),
    "BUILD a Counter": (
        call(b"collections\nCounter", b"}") + b"}b",
        "adds to something that is no OrderedDict",
    ),
    "bytes of a size": (call(b"builtins\nbytes", integer(2**40)), "bytes with other arguments"),
    "encode as utf-7": (call(b"_codecs\nencode", text("x") + text("utf-7")), "encode with other arguments"),
    "encode a number": (call(b"_codecs\nencode", b"K\x01" + text("latin1")), "encode with other arguments"),
    "encode what latin1 lacks": (call(b"_codecs\nencode", text("☃") + text("latin1")), "encode with other"),
    "Size of strings": (call(b"torch\nSize", b"(" + text("x") + b"t"), "Size with other arguments"),
    "long Size": (call(b"torch\nSize", ints(range(33))), "Size with other arguments"),
    "BUILD a dict": (b"}}b", "adds to something that is no OrderedDict"),
    "BUILD a tensor": (tensor(OK) + b"}b", "adds to something that is no OrderedDict"),
    "BUILD a class": (b"ccollections\nOrderedDict\n}b", "adds to something that is no OrderedDict"),
    "BUILD other attributes": (NO_HOOKS + b"}" + text("__class__") + b"Nsb", "other attributes than"),
    "BUILD with slots": (NO_HOOKS + b"(N}tb", "other attributes than"),
    "BUILD metadata that is no dict": (NO_HOOKS + b"}" + text("_metadata") + b"Nsb", "other attributes than"),
    "a name": (b"ctorch\nFloatStorage\n", "checkpoint is torch.FloatStorage, which is no plain value"),
    "a name inside": (b"]ctorch\nSize\na", "checkpoint[0] is torch.Size"),
    "a bare storage": (OK, "checkpoint is a bare storage"),
    "name without end": (b"c" + b"x" * 300, "a name without an end"),
    "name cut off": (b"ctorch", "a name without an end"),
    "name not utf-8": (b"c\xff\n\xff\n", "not UTF-8"),
    # Lengths and indices
    "BINUNICODE": (b"X" + struct.pack("<L", 2**32 - 1) + b"x", "claims 4294967295 bytes"),
    "BINUNICODE8": (b"\x8d" + u8(2**60) + b"x", "claims 1152921504606846976 bytes"),
    "BINBYTES": (b"B" + struct.pack("<L", 2**31) + b"x", "claims 2147483648 bytes"),
    "BINBYTES8": (b"\x8e" + u8(2**63) + b"x", "claims 9223372036854775808 bytes"),
    "BYTEARRAY8": (b"\x96" + u8(2**60), "opcode BYTEARRAY8, which is refused"),
    "FRAME": (b"\x95" + u8(2**62) + b"N", "claims 4611686018427387904 bytes"),
    "LONG1": (b"\x8a\xffx", "claims 255 bytes"),
    "LONG4": (b"\x8b" + struct.pack("<L", 2**31 - 1), "opcode LONG4, which is refused"),
    "INT": (b"I1\n", "opcode INT, which is refused"),
    "LONG": (b"L" + b"9" * 5000 + b"L\n", "opcode LONG, which is refused"),
    "INST": (b"(ios\nsystem\n", "opcode INST, which is refused"),
    "OBJ": (b"(o", "opcode OBJ, which is refused"),
    "NEWOBJ": (b"ccollections\nOrderedDict\n)\x81", "opcode NEWOBJ, which is refused"),
    "EXT4": (b"\x84\x01\0\0\0", "opcode EXT4, which is refused"),
    "PERSID": (b"Px\n", "opcode PERSID, which is refused"),
    "unknown opcode": (b"\xff", "the opcode b'\\xff', which is refused"),
    "recalled, never kept": (b"j" + struct.pack("<L", 2**31), "recalls 2147483648, which it has not kept"),
    "kept from nowhere": (b"q\x00", "empty stack"),
    "nothing": (b"", "leaves more than its one object"),
    "two objects": (b"NN", "leaves more than its one object"),
    "open mark": (b"(N", "leaves more than its one object"),
    "no mark": (b"t", "a mark that is not there"),
    "across a mark": (b"]N(a", "takes from an empty stack"),
    "append to a tuple": (b")Na", "no list"),
    "item of a list": (b"]" + text("x") + b"Ns", "no dict"),
    "odd items": (b"}(" + text("x") + b"u", "a key without a value"),
    "string not utf-8": (b"X\x01\0\0\0\xff", "not UTF-8"),
    # Nesting and keys
    "tuples": (b")" + b"\x85" * 500_000, "nested more than 500 levels deep"),
    "lists": (b"]" * 200_000 + b"a" * 199_999, "nested more than 500 levels deep"),
    "dicts": (nested_dicts(50_000), "nested more than 500 levels deep"),
    "by the memo": (deep_by_sharing(), "nested more than 500 levels deep"),
    "marks": (b"(" * 1_000_000, "leaves more than its one object"),
    "contains itself": (b"]q\x00h\x00a", "checkpoint[0] contains itself"),
    "dict in itself": (b"}q\x00" + text("x") + b"h\x00s", "checkpoint['x'] contains itself"),
    "metadata of itself": (NO_HOOKS + b"q\x00}" + text("_metadata") + b"h\x00sb", "contains itself"),
    "tuple key": (b"})Ns", "a key of type tuple"),
    "nested tuple key": (b"})" + b"\x85" * 100_000 + b"Ns", "a key of type tuple"),
    "list key": (b"}]Ns", "a key of type list"),
    "tensor key": (b"}" + tensor(OK) + b"Ns", "a key of type StoredTensor"),
    "large key": (b"}" + integer(2**63) + b"Ns", "more than 64 bits"),
    "nan key": (b"}G" + struct.pack(">d", float("nan")) + b"Ns", "never be found again"),
    "colliding keys": (
        b"}(" + b"".join(integer(i * i << 30) + b"N" for i in range(1, 20_000)) + b"u",
        "more than 16384 that are neither strings nor",
    ),
    "a key twice": (b"}K\x01NsK\x01Ns", "the key 1 is given twice"),
    "equal keys": (b"}K\x01Ns\x88Ns", "the key True is given twice"),
    "lists within a small file": (
        b"(" + b"]" * 1_000_000 + b"t",
        "more dicts, lists and tuples than its size explains. The limit for this file is 831",
    ),
    "one dict counted often": (
        b"}("
        + b"".join(integer(i) + b"K\x01" for i in range(2_000))
        + b"uq\x00ccollections\nCounter\nq\x01"
        + b"h\x01h\x00\x85R" * 1000,
        "more entries of Counters than it has bytes",
    ),
    "one string encoded often": (
        text("x" * 10_000)
        + b"q\x00"
        + text("latin1")
        + b"q\x01c_codecs\nencode\nq\x02"
        + b"h\x02h\x00h\x01\x86R" * 1000,
        "makes more bytes than it has",
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_nothing(name, packed, tmp_path):
    refused(packed(pickled(RUNS[name])), "not on the short list", "nothing was run")
    assert [each.name for each in tmp_path.iterdir()] == ["file.pt"]


@pytest.mark.parametrize("name", STACKED)
def test_runs_nothing_of_protocol_4(name, packed):
    refused(packed(pickled(STACKED[name], 4)), "data.pkl, byte")


@pytest.mark.parametrize("name", TABLE)
def test_hostile(name, packed):
    body, words = TABLE[name]
    refused(packed(pickled(body)), words)


@pytest.mark.parametrize(
    ("pickle", "words"),
    [
        (b"N.", "not of protocol"),
        (b"\x80\x00N.", "not of protocol"),
        (b"\x80\x06N.", "not of protocol"),
        (b"\x80", "claims 1 bytes where it has 0"),
        (b"\x80\x02N", "claims 1 bytes where it has 0"),
        (b"\x80\x02N.N", "something follows"),
    ],
)
def test_frame_of_the_pickle(pickle, words, packed):
    refused(packed(pickle), words)


def test_memo_index_costs_nothing(packed):
    assert checkpoint.load(packed(pickled(b"]" + keep(2**32 - 1) + recall(2**32 - 1) + b"\x86"))) == ([], [])


def test_shared_containers_are_walked_once(packed):
    loaded = checkpoint.load(packed(pickled(doubling(400))))
    assert len(loaded) == 401
    assert loaded[-1][0] is loaded[-1][1] is loaded[-2]


def test_bytes_as_keys(packed):
    assert checkpoint.load(packed(pickled(b"}C\x01xK\x07s", 3))) == {b"x": 7}


def test_dtype_becomes_its_name(packed):
    assert checkpoint.load(packed(pickled(b"]ctorch\nbfloat16\na"))) == ["bfloat16"]
