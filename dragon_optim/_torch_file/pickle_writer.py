# SPDX-License-Identifier: BSD-2-Clause
"""Writes the pickle of a checkpoint: the names and opcodes that PyTorch's ``weights_only=True`` takes.

Strings and bytes are written once by their value, so that equal content gives equal bytes whatever the
interpreter has interned; containers and tensors once by their identity.
"""

import collections
import struct
from collections.abc import Mapping
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy
from dragon.vm import torch

from dragon_optim._torch_file import opcodes as op
from dragon_optim._torch_file.errors import shown
from dragon_optim._torch_file.nesting import KEY_TYPES, Keys, Walk, go_through
from dragon_optim._torch_file.sources import Source, is_source

_REBUILD_TENSOR = ("torch._utils", "_rebuild_tensor_v2")
_REBUILD_PARAMETER = ("torch._utils", "_rebuild_parameter")
_ORDERED_DICT = ("collections", "OrderedDict")
_COUNTER = ("collections", "Counter")
_MAX_INT_BYTES = 255

Values = Iterator[Any]


class PickleWriter:
    """One pickle, and the storages that it refers to."""

    def __init__(self, root: Any) -> None:
        self.sources: List[Source] = []
        self._out = bytearray()
        self._memo_size = 0
        self._by_identity: Dict[int, Tuple[int, Any]] = {}  # the object too: its id must stay its own
        self._by_value: Dict[Tuple[type, Any], int] = {}
        self._keys: Dict[int, int] = {}  # identity of the memory -> number of its storage
        self._walk = Walk("obj", ValueError)
        self._out += op.PROTO + b"\x02"
        go_through(root, self._write)
        self._out += op.STOP

    def pickle(self) -> bytes:
        """Return the pickle."""
        return bytes(self._out)

    def _write(self, value: Any) -> Optional[Values]:
        # A container is a generator that writes itself and asks for its values.
        return None if self._write_leaf(value) else self._container(value)

    # Leaves

    def _write_leaf(self, value: Any) -> bool:
        """Write anything but a container. Return False for a container."""
        value = _plain(value)
        kind = type(value)
        if kind in (dict, collections.OrderedDict, list, tuple, torch.Size):
            return False
        if value is None:
            self._out += op.NONE
        elif kind is bool:
            self._out += op.TRUE if value else op.FALSE
        elif kind is int:
            self._int(value)
        elif kind is float:
            self._out += op.BINFLOAT + struct.pack(">d", value)
        elif kind is str:
            self._str(value)
        elif kind is bytes:
            self._bytes(value)
        elif kind is collections.Counter:
            self._counter(value)
        elif is_source(value):
            self._tensor(value)
        else:
            raise TypeError(
                f"{self._walk.path()} is of type {_type_name(value)}, which cannot be saved: {_advice(value)}"
            )
        return True

    def _int(self, value: int) -> None:
        if 0 <= value < 1 << 8:
            self._out += op.BININT1 + struct.pack("<B", value)
        elif 0 <= value < 1 << 16:
            self._out += op.BININT2 + struct.pack("<H", value)
        elif -(1 << 31) <= value < 1 << 31:
            self._out += op.BININT + struct.pack("<i", value)
        else:
            length = value.bit_length() // 8 + 1
            if length > _MAX_INT_BYTES:
                raise ValueError(f"{self._walk.path()} is an int of more than {_MAX_INT_BYTES} bytes.")
            self._out += op.LONG1 + struct.pack("<B", length) + value.to_bytes(length, "little", signed=True)

    def _str(self, value: str) -> None:
        if self._get((str, value)):
            return
        data = value.encode("utf-8", "surrogatepass")
        if len(data) >= 1 << 32:
            raise ValueError(f"{self._walk.path()} is a string of 4 GiB or more.")
        self._out += op.BINUNICODE + struct.pack("<L", len(data)) + data
        self._put((str, value))

    def _bytes(self, value: bytes) -> None:
        if self._get((bytes, value)):
            return
        self._global("_codecs", "encode")
        self._str(value.decode("latin-1"))
        self._str("latin1")
        self._out += op.TUPLE2 + op.REDUCE
        self._put((bytes, value))

    def _global(self, module: str, name: str) -> None:
        key = (tuple, (module, name))
        if not self._get(key):
            self._out += op.GLOBAL + f"{module}\n{name}\n".encode()
            self._put(key)

    def _empty_ordered_dict(self) -> None:
        self._global(*_ORDERED_DICT)
        self._out += op.EMPTY_TUPLE + op.REDUCE

    # Tensors

    def _tensor(self, value: Any) -> None:
        if self._get_object(value):
            return
        source = Source(value, self._walk.path())
        # An integer has no gradient, and PyTorch would refuse the file.
        requires_grad = (
            isinstance(value, torch.Tensor) and bool(value.requires_grad) and source.dtype.is_floating
        )
        if isinstance(value, torch.nn.Parameter):
            self._global(*_REBUILD_PARAMETER)
            self._rebuild_tensor(source, False)
            self._out += op.TRUE if requires_grad else op.FALSE
            self._empty_ordered_dict()
            self._out += op.TUPLE3 + op.REDUCE
        else:
            self._rebuild_tensor(source, requires_grad)
        self._put_object(value)

    def _rebuild_tensor(self, source: Source, requires_grad: bool) -> None:
        if source.identity not in self._keys:
            self._keys[source.identity] = len(self.sources)
            self.sources.append(source)
        self._global(*_REBUILD_TENSOR)
        self._out += op.MARK + op.MARK
        self._str("storage")
        self._global("torch", str(source.dtype.storage))
        self._str(str(self._keys[source.identity]))
        self._str("cpu")
        self._int(source.numel)
        self._out += op.TUPLE + op.BINPERSID
        self._int(0)
        self._ints(source.shape)
        self._ints(source.strides)
        self._out += op.TRUE if requires_grad else op.FALSE
        self._empty_ordered_dict()  # backward hooks
        self._out += op.TUPLE + op.REDUCE

    def _ints(self, values: Tuple[int, ...]) -> None:
        self._out += op.MARK
        for each in values:
            self._int(each)
        self._out += op.TUPLE

    # Containers

    def _container(self, value: Any) -> Values:
        if not self._walk.enter(value):
            self._get_object(value)
            return
        if isinstance(value, tuple):
            yield from self._tuple(value)
        elif type(value) is list:
            yield from self._list(value)
        else:
            yield from self._dict(value)
        self._walk.leave()

    def _tuple(self, value: Tuple) -> Values:
        self._out += op.MARK
        for i, each in enumerate(value):
            self._walk.step(f"[{i}]")
            yield each
        self._out += op.TUPLE
        self._put_object(value)

    def _list(self, value: List) -> Values:
        self._out += op.EMPTY_LIST
        self._put_object(value)
        for i, each in enumerate(value):
            self._walk.step(f"[{i}]")
            yield each
            self._out += op.APPEND

    def _dict(self, value: Dict) -> Values:
        if type(value) is dict:
            self._out += op.EMPTY_DICT
        else:
            self._empty_ordered_dict()
        self._put_object(value)
        keys = Keys()
        for key, each in value.items():
            key = _plain(key)
            self._key(key, keys, self._walk.inside())
            self._walk.step(f"[{shown(key)}]")
            yield each
            self._out += op.SETITEM
        yield from self._attributes(value)

    def _key(self, key: Any, keys: Keys, place: str) -> None:
        if type(key) not in KEY_TYPES:
            raise TypeError(
                f"{place} has a key of type {_type_name(key)}, which cannot be saved: keys are str, int, "
                "float, bool or None."
            )
        problem = keys.problem(key)
        if problem:
            raise ValueError(f"the key {shown(key)} of {place} {problem}.")
        self._write_leaf(key)

    def _counter(self, value: "collections.Counter[Any]") -> None:
        """Write a Counter, which is a leaf here: it holds nothing but ints."""
        if self._get_object(value):
            return
        self._global(*_COUNTER)
        self._out += op.EMPTY_DICT
        keys = Keys()
        for key, times in value.items():
            key, times = _plain(key), _plain(times)
            if type(times) is not int:
                raise TypeError(
                    f"{self._walk.path()} counts {shown(key)} as a {_type_name(times)}, which cannot be "
                    "saved: only ints can be in a Counter."
                )
            self._key(key, keys, self._walk.path())
            self._int(times)
            self._out += op.SETITEM
        self._out += op.TUPLE1 + op.REDUCE
        self._put_object(value)

    def _attributes(self, value: Any) -> Values:
        """PyTorch and its users keep the versions of modules in an attribute of a state dict."""
        attributes = getattr(value, "__dict__", {})
        for name in attributes:
            if name != "_metadata" or not isinstance(attributes[name], dict):
                raise TypeError(
                    f"{self._walk.inside()} has an attribute {name}, which cannot be saved: only a dict "
                    "_metadata can."
                )
            self._out += op.EMPTY_DICT
            self._str(name)
            self._walk.step(f".{name}")
            yield attributes[name]
            self._out += op.SETITEM + op.BUILD

    # What was written before

    def _put(self, key: Tuple[type, Any]) -> None:
        self._by_value[key] = self._memo_size
        self._put_next()

    def _get(self, key: Tuple[type, Any]) -> bool:
        return self._recall(self._by_value.get(key))

    def _put_object(self, value: Any) -> None:
        self._by_identity[id(value)] = (self._memo_size, value)
        self._put_next()

    def _get_object(self, value: Any) -> bool:
        return self._recall(self._by_identity.get(id(value), (None,))[0])

    def _put_next(self) -> None:
        self._out += _indexed(op.BINPUT, op.LONG_BINPUT, self._memo_size)
        self._memo_size += 1

    def _recall(self, index: Any) -> bool:
        if index is None:
            return False
        self._out += _indexed(op.BINGET, op.LONG_BINGET, index)
        return True


def _indexed(short: bytes, long: bytes, index: int) -> bytes:
    return short + struct.pack("<B", index) if index < 1 << 8 else long + struct.pack("<L", index)


def _plain(value: Any) -> Any:
    """Return the Python number, bool, string or bytes that a numpy scalar is."""
    # By the kind: a timedelta64 is an integer to numpy's classes.
    return value.item() if isinstance(value, numpy.generic) and value.dtype.kind in "biufSU" else value


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _advice(value: Any) -> str:
    if callable(getattr(value, "state_dict", None)):
        return "save its state_dict()."
    for base in (dict, list, tuple, str, bytes, int, float):
        if isinstance(value, base):
            return f"only {base.__name__} itself can, no subclass; convert it with {base.__name__}()."
    if isinstance(value, Mapping):
        return "convert it with dict()."
    if hasattr(value, "numpy"):
        return "give its .numpy()."
    if hasattr(value, "__array__"):
        return "give it as a numpy array."
    return (
        "a checkpoint holds dicts, lists and tuples of Dragon tensors, numpy arrays, numbers, strings, "
        "bytes, bools and None."
    )
