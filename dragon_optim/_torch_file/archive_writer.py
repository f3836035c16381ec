# SPDX-License-Identifier: BSD-2-Clause
"""Writes a zip archive as ``torch.save`` lays it out: members stored, their data at multiples of 64 bytes.

Python's zipfile would do most of it, but its headers differ between versions of Python, and equal content
with equal sharing is to give equal bytes.
"""

import os
import zlib
from typing import Any, Iterable, List, NamedTuple, Union

from dragon_optim._torch_file import layout

_DATE = 1 << 5 | 1  # 1980-01-01: the first there is, and the same for ever
_VERSION, _VERSION64 = 20, 45
_MADE_BY = _VERSION  # on DOS: no attributes to keep

Buffer = Union[bytes, memoryview]


class _Member(NamedTuple):
    name: bytes
    crc: int
    size: int
    offset: int


class ArchiveWriter:
    """An archive in the making, in an empty file that is open for writing."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0
        self._members: List[_Member] = []

    def add(self, name: str, size: int, chunks: Iterable[Buffer]) -> None:
        """Write one member. The chunks must have `size` bytes in all."""
        member = _Member(name.encode(), 0, size, self._position)
        self._write(_local_header(member))  # to hold the place: the checksum is not known yet
        written = crc = 0
        for chunk in chunks:
            # A copy: somebody may change the tensor between the checksum and the write, and the file would be
            # refused. Of a tensor that changes meanwhile there is a mixture, in a file that loads.
            chunk = bytes(chunk)
            crc = zlib.crc32(chunk, crc)
            written += len(chunk)
            self._write(chunk)
        if written != size:
            raise RuntimeError(f"{name} had {size} bytes when the saving began, and now {written}.")
        member = member._replace(crc=crc)
        _write_all(self._descriptor, _local_header(member), member.offset)
        self._members.append(member)

    def finish(self) -> None:
        """Write the central directory."""
        start = self._position
        self._write(b"".join(_central_header(member) for member in self._members))
        count, size = len(self._members), self._position - start
        if count >= layout.MAX16 or size >= layout.MAX32 or start >= layout.MAX32:
            self._write_end64(start, count, size)
        count16 = min(count, layout.MAX16)
        self._write(
            layout.END.pack(
                layout.END_SIGNATURE,
                *(0, 0, count16, count16, min(size, layout.MAX32), min(start, layout.MAX32), 0),
            )
        )

    def _write_end64(self, start: int, count: int, size: int) -> None:
        position = self._position
        rest = layout.END64.size - 12
        self._write(
            layout.END64.pack(
                layout.END64_SIGNATURE, rest, _VERSION64, _VERSION64, 0, 0, count, count, size, start
            )
        )
        self._write(layout.LOCATOR.pack(layout.LOCATOR_SIGNATURE, 0, position, 1))

    def _write(self, data: Buffer) -> None:
        _write_all(self._descriptor, data, self._position)
        self._position += len(data)


def _write_all(descriptor: int, data: Buffer, position: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, position)
        rest, position = rest[written:], position + written


def _needs_zip64(member: _Member) -> bool:
    return member.size >= layout.MAX32


def _common(member: _Member, extra: bytes) -> List[Any]:
    """The fields that both headers have, in their order."""
    size = layout.MAX32 if _needs_zip64(member) else member.size
    version = _VERSION64 if _needs_zip64(member) or member.offset >= layout.MAX32 else _VERSION
    return [
        *(version, 0, layout.STORED, 0, _DATE, member.crc, size, size),
        *(len(member.name), len(extra)),
    ]


def _local_header(member: _Member) -> bytes:
    extra = b""
    if _needs_zip64(member):
        extra = _field(layout.EXTRA_ZIP64, _eight(member.size) + _eight(member.size))
    end = member.offset + layout.LOCAL.size + len(member.name) + len(extra) + layout.EXTRA.size
    extra += _field(layout.EXTRA_PADDING, layout.PADDING * (-end % layout.ALIGNMENT))
    return layout.LOCAL.pack(layout.LOCAL_SIGNATURE, *_common(member, extra)) + member.name + extra


def _central_header(member: _Member) -> bytes:
    large = b""
    if _needs_zip64(member):
        large += _eight(member.size) + _eight(member.size)
    if member.offset >= layout.MAX32:
        large += _eight(member.offset)
    extra = _field(layout.EXTRA_ZIP64, large) if large else b""
    offset = min(member.offset, layout.MAX32)
    header = layout.CENTRAL.pack(
        layout.CENTRAL_SIGNATURE, _MADE_BY, *_common(member, extra), 0, 0, 0, 0, offset
    )
    return header + member.name + extra


def _field(identifier: int, content: bytes) -> bytes:
    return layout.EXTRA.pack(identifier, len(content)) + content


def _eight(number: int) -> bytes:
    return number.to_bytes(8, "little")
