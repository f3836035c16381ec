# SPDX-License-Identifier: BSD-2-Clause
"""Brings the numbers of one storage into memory: straight into that of a tensor wherever one covers them."""

import zlib
from typing import Callable, List, Optional

import numpy

from dragon_optim._torch_file import layout
from dragon_optim._torch_file.archive import Archive, Member
from dragon_optim._torch_file.stored import Storage, StoredTensor

Advance = Callable[[int], None]


def verify(archive: Archive, member: Member, advance: Advance) -> None:
    """Read a member that nobody needs, for its checksum."""
    scratch = memoryview(bytearray(min(layout.CHUNK, member.size)))
    crc = 0
    for position, length in archive.spans(member):
        archive.fill(member, position, scratch[:length])
        crc = zlib.crc32(scratch[:length], crc)
        advance(length)
    archive.check(member, crc)


def read_storage(
    archive: Archive, storage: Storage, byte_order: str, advance: Advance
) -> List[numpy.ndarray]:
    """Return an array for each of the storage's tensors, with memory of its own."""
    return _Reading(archive, storage, byte_order, advance).arrays()


class _Reading:
    """Keeps the run of elements that the tensors use; reads all, for the checksum."""

    def __init__(self, archive: Archive, storage: Storage, byte_order: str, advance: Advance) -> None:
        assert storage.dtype is not None
        self._archive = archive
        self._storage = storage
        self._dtype = storage.dtype
        self._byte_order = byte_order
        self._advance = advance
        used = [tensor for tensor in storage.tensors if tensor.numel]
        self._start = min((tensor.offset for tensor in used), default=0)
        self._end = max((tensor.end for tensor in used), default=0)
        self._direct = self._dtype.name == self._dtype.loaded and self._dtype.in_file(byte_order).isnative
        self._scratch = numpy.empty(min(layout.CHUNK, storage.member.size), numpy.uint8)

    def arrays(self) -> List[numpy.ndarray]:
        run = numpy.empty(self._end - self._start, self._dtype.loaded)
        self._fill(run)
        owner = next((tensor for tensor in self._storage.tensors if self._covers(tensor)), None)
        return [self._array(tensor, run, tensor is owner) for tensor in self._storage.tensors]

    def _covers(self, tensor: StoredTensor) -> bool:
        return tensor.is_contiguous and 0 < tensor.numel == self._end - self._start

    def _array(self, tensor: StoredTensor, run: numpy.ndarray, owns: bool) -> numpy.ndarray:
        if owns:
            return run.reshape(tensor.shape)
        if not tensor.numel:
            # Dragon takes an axis of length 0 for one of length 1: let there be memory.
            return numpy.zeros(tensor.allocated(), self._dtype.loaded)[:0].reshape(tensor.shape)
        view: numpy.ndarray = numpy.ndarray(
            tensor.shape,
            run.dtype,
            buffer=run,
            offset=(tensor.offset - self._start) * run.itemsize,
            strides=[stride * run.itemsize for stride in tensor.strides],
        )
        return numpy.array(view, order="C")

    def _fill(self, run: numpy.ndarray) -> None:
        itemsize = self._dtype.itemsize
        member = self._storage.member
        cuts = (self._start * itemsize, self._end * itemsize)
        crc = 0
        for begin, end in zip((0, *cuts), (*cuts, member.size)):
            for position in range(begin, end, layout.CHUNK):
                length = min(layout.CHUNK, end - position)
                where = position // itemsize - self._start
                kept = (
                    run[where : where + length // itemsize] if begin == cuts[0] and end == cuts[1] else None
                )
                crc = zlib.crc32(self._fill_chunk(position, length, kept), crc)
                if kept is not None and self._dtype.name == "bool":
                    # Other bytes than 0 and 1 are True: as 1 to all.
                    numpy.not_equal(kept.view(numpy.uint8), 0, out=kept)
                self._advance(length)
        self._archive.check(member, crc)

    def _fill_chunk(self, position: int, length: int, kept: Optional[numpy.ndarray]) -> memoryview:
        """Read a chunk, and into `kept`, if that is given. Return its bytes as they are in the file."""
        direct = kept is not None and self._direct
        chunk = kept.view(numpy.uint8) if kept is not None and direct else self._scratch[:length]
        self._archive.fill(self._storage.member, position, chunk.data)
        if kept is not None and not direct:
            kept[...] = self._dtype.numbers(chunk, self._byte_order)
        return chunk.data
