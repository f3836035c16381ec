# SPDX-License-Identifier: BSD-2-Clause
"""What a storage is written from: the memory of a Dragon tensor or a numpy array, without a copy of it."""

from typing import Any, Iterator, Tuple

import numpy
from dragon.vm import torch

from dragon_optim._dragon import tensors, workspace
from dragon_optim._torch_file import layout
from dragon_optim._torch_file.archive_writer import Buffer
from dragon_optim._torch_file.dtypes import BY_NAME, SAVED, DType


class Source:
    """One tensor or array that is to be saved."""

    def __init__(self, value: Any, path: str) -> None:
        self._value = value
        self._path = path
        name = value.dtype.name if isinstance(value, numpy.ndarray) else None
        if name is None:
            workspace.check_readable(value, path)
            name = str(value.dtype)
        if name not in SAVED:
            raise TypeError(
                f"{path} has dtype {name}, which cannot be saved, since Dragon and PyTorch do not both have "
                f"it: convert it to one of {', '.join(SAVED)}."
            )
        self.dtype: DType = BY_NAME[name]
        self.shape: Tuple[int, ...] = tuple(int(each) for each in value.shape)
        self.numel = 1
        for each in self.shape:
            self.numel *= each

    @property
    def nbytes(self) -> int:
        """How many bytes `chunks` yields."""
        return self.numel * self.dtype.itemsize

    @property
    def strides(self) -> Tuple[int, ...]:
        """PyTorch's, of a tensor without gaps: that of an axis of length 0 counts as 1."""
        strides, step = [], 1
        for each in reversed(self.shape):
            strides.append(step)
            step *= max(each, 1)
        return tuple(reversed(strides))

    @property
    def identity(self) -> int:
        """A number for the memory: equal for a Parameter and the tensor that it wraps."""
        return id(self._value) if isinstance(self._value, numpy.ndarray) else tensors.identity(self._value)

    def chunks(self) -> Iterator[Buffer]:
        """Yield the elements as bytes, in row-major order."""
        if self.numel == 0:
            return
        array = self._array()
        if array.flags.c_contiguous and array.dtype.isnative:
            step = layout.CHUNK // self.dtype.itemsize
            for start in range(0, self.numel, step):
                # Anew each time: whoever looks at the progress may have let go of the memory.
                flat = self._array().reshape(-1)
                yield self._normal(flat[start : start + step]).view(numpy.uint8).data
            return
        native = array.dtype.newbyteorder("=")
        pieces: Any = numpy.nditer(
            array,
            flags=["external_loop", "buffered"],
            order="C",
            op_dtypes=[native],
            casting="equiv",
            buffersize=layout.CHUNK // self.dtype.itemsize,
        )
        for piece in pieces:
            yield self._normal(piece).tobytes()

    def _normal(self, piece: numpy.ndarray) -> numpy.ndarray:
        # A bool may be another byte than 0 and 1: a uint8 that is looked at as one. As 1 it is True to all.
        return piece.view(numpy.uint8) != 0 if self.dtype.name == "bool" else piece

    def _array(self) -> numpy.ndarray:
        if isinstance(self._value, numpy.ndarray):
            array = self._value
        else:
            workspace.check_readable(self._value, self._path)
            array = tensors.view(self._value)
        if array.shape != self.shape or array.dtype.name != self.dtype.name:
            raise RuntimeError(f"{self._path} has changed its shape or dtype while it was saved.")
        return array


def is_source(value: Any) -> bool:
    """Whether it is a tensor or an array."""
    return isinstance(value, torch.Tensor) or type(value) is numpy.ndarray
