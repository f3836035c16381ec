# SPDX-License-Identifier: BSD-2-Clause
"""The types of elements: what PyTorch calls them, how they lie in a file, and what they become in Dragon."""

from typing import Dict, NamedTuple, Optional

import numpy


class DType(NamedTuple):
    """One type of elements."""

    name: str
    """PyTorch's name, which is numpy's and Dragon's too where they have the type."""
    storage: Optional[str]
    """The class of PyTorch's storages of it; None for the types that have none of their own."""
    stored: str
    """The numpy type of an element in the file, without a byte order."""
    loaded: str
    """The type that it has in Dragon: a wider one where Dragon lacks it."""

    @property
    def itemsize(self) -> int:
        """Bytes of an element in the file."""
        return numpy.dtype(self.stored).itemsize

    @property
    def loaded_itemsize(self) -> int:
        """Bytes of an element in memory."""
        return numpy.dtype(self.loaded).itemsize

    @property
    def is_floating(self) -> bool:
        """Whether a tensor of it can require a gradient."""
        return self.name in ("float16", "float32", "float64", "bfloat16")

    def in_file(self, byte_order: str) -> numpy.dtype:
        """Return the numpy type with the byte order, which is 'little' or 'big'."""
        return numpy.dtype(self.stored).newbyteorder("<" if byte_order == "little" else ">")

    def numbers(self, chunk: numpy.ndarray, byte_order: str) -> numpy.ndarray:
        """Return the elements that lie in a chunk of the file; the caller's assignment widens them."""
        stored = chunk.view(self.in_file(byte_order))
        if self.name == "bfloat16":  # the upper half of a float32
            return (stored.astype(numpy.uint32) << 16).view(numpy.float32)
        return stored


_ALL = (
    DType("bool", "BoolStorage", "bool", "bool"),
    DType("int8", "CharStorage", "int8", "int8"),
    DType("uint8", "ByteStorage", "uint8", "uint8"),
    DType("int32", "IntStorage", "int32", "int32"),
    DType("int64", "LongStorage", "int64", "int64"),
    DType("float16", "HalfStorage", "float16", "float16"),
    DType("float32", "FloatStorage", "float32", "float32"),
    DType("float64", "DoubleStorage", "float64", "float64"),
    DType("bfloat16", "BFloat16Storage", "uint16", "float32"),
    DType("int16", "ShortStorage", "int16", "int32"),
    DType("uint16", None, "uint16", "int32"),
    DType("uint32", None, "uint32", "int64"),
)
BY_NAME: Dict[str, DType] = {dtype.name: dtype for dtype in _ALL}
BY_STORAGE: Dict[str, DType] = {dtype.storage: dtype for dtype in _ALL if dtype.storage is not None}
SAVED = tuple(dtype.name for dtype in _ALL if dtype.name == dtype.loaded)

# Named by an error when they occur, and good as plain values: `torch.float32` in a dict of settings.
UNSUPPORTED = (
    "uint64",
    "complex32",
    "complex64",
    "complex128",
    "qint8",
    "quint8",
    "qint32",
    "quint4x2",
    "quint2x4",
    "float8_e5m2",
    "float8_e4m3fn",
    "float8_e5m2fnuz",
    "float8_e4m3fnuz",
    "float8_e8m0fnu",
    "float4_e2m1fn_x2",
)
UNSUPPORTED_STORAGES = {
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
}
