# SPDX-License-Identifier: BSD-2-Clause
"""What stands in the headers of an archive, compared field by field with what may stand there."""

import struct
from typing import Callable, Dict, Iterator, List, Tuple

from dragon_optim._torch_file import layout
from dragon_optim._torch_file.errors import TORCHSCRIPT, CheckpointError, shown

# What PyTorch, this package, Python's zipfile and Info-ZIP write. Of the operating systems DOS and Unix.
_VERSIONS = (0, 10, 20, 30, 45)
_SYSTEMS = (0, 3)
# Times and owners in the manner of Unix, which `zip` adds.
_IGNORED_FIELDS = (0x5455, 0x7875)


class Member:
    """One member of an archive, as the central directory has it."""

    __slots__ = ("common", "crc", "data", "flags", "name", "offset", "raw_name", "size")

    def __init__(self, common: Tuple[int, ...], raw_name: bytes, crc: int, size: int, offset: int) -> None:
        self.common = common  # version, flags, method, time, date: the same in both headers
        self.flags = common[1]
        self.raw_name = raw_name
        self.crc = crc
        self.size = size
        self.offset = offset
        self.data = 0  # where the data begin: the local header tells
        try:
            self.name = raw_name.decode()
        except UnicodeDecodeError:
            raise _damaged(f"the name {shown(raw_name)} is not UTF-8") from None


class Ending:
    """The records at the very end: where the directory is."""

    def __init__(self, pread: Callable[[int, int], bytes], file_size: int) -> None:
        if file_size < layout.END.size:
            raise CheckpointError("the archive is truncated.")
        position = file_size - layout.END.size
        signature, *fields = layout.END.unpack(pread(position, layout.END.size))
        if signature != layout.END_SIGNATURE:
            raise CheckpointError(
                "the archive is truncated, or something was added to it: a zip archive's end record is not "
                "at the end of the file."
            )
        disk, directory_disk, here, self.count, self.size, self.start, comment = fields
        if disk or directory_disk or here != self.count or comment:
            raise _damaged("its end record is not as it should be")
        end = position
        if position >= layout.LOCATOR.size:
            locator = pread(position - layout.LOCATOR.size, layout.LOCATOR.size)
            if locator.startswith(layout.LOCATOR_SIGNATURE):
                end = self._read_end64(pread, position - layout.LOCATOR.size, locator)
        if self.start + self.size != end:
            raise _damaged("its directory is not where it should be")

    def _read_end64(self, pread: Callable[[int, int], bytes], position: int, locator: bytes) -> int:
        _, disk, offset, disks = layout.LOCATOR.unpack(locator)
        if disk or disks != 1 or offset != position - layout.END64.size:
            raise _damaged("its end record for large archives is not where it should be")
        signature, rest, made_by, version, *fields = layout.END64.unpack(pread(offset, layout.END64.size))
        disk, directory_disk, here, count, size, start = fields
        right = (
            (signature, rest) == (layout.END64_SIGNATURE, layout.END64.size - 12)
            and _is_known(made_by)
            and version in _VERSIONS
            and not disk
            and not directory_disk
            and here == count
            and self.count in (count, layout.MAX16)
            and self.size in (size, layout.MAX32)
            and self.start in (start, layout.MAX32)
        )
        if not right:
            raise _damaged("its end record for large archives is not as it should be")
        self.count, self.size, self.start = count, size, start
        return offset


def read_directory(data: bytes, count: int) -> Iterator[Member]:
    """Yield the members that the central directory lists."""
    position = 0
    for _ in range(count):
        fixed = data[position : position + layout.CENTRAL.size]
        if len(fixed) < layout.CENTRAL.size or not fixed.startswith(layout.CENTRAL_SIGNATURE):
            raise _damaged("its directory is not as it should be")
        (
            _,
            made_by,
            *common,
            crc,
            packed,
            size,
            name_length,
            extra_length,
            comment,
            disk,
            internal,
            external,
            at,
        ) = layout.CENTRAL.unpack(fixed)
        position += len(fixed) + name_length + extra_length
        name = data[position - extra_length - name_length : position - extra_length]
        extra = data[position - extra_length : position]
        if len(name) + len(extra) != name_length + extra_length:
            raise _damaged("its directory is not as it should be")
        what = shown(name.decode("utf-8", "replace"))
        _check_common(common, what)
        # Attributes mean something only where a system is named; PyTorch and this package name none.
        attributes = internal in (0, 1) if made_by >> 8 else internal == 0 and external == 0
        if comment or disk or not attributes or not _is_known(made_by):
            raise _damaged(f"the directory's header of {what} is not as it should be")
        packed, size, at = _enlarge([packed, size, at], extra, what)
        if packed != size:
            raise _damaged(f"{what} is said to be compressed and not to be")
        yield Member(tuple(common), name, crc, size, at)
    if position != len(data):
        raise _damaged("its directory is not as it should be")


def _enlarge(fields: List[int], extra: bytes, what: str) -> List[int]:
    """Return packed size, size and offset with those that did not fit into 32 bits taken from `extra`."""
    content = _fields(extra, what).get(layout.EXTRA_ZIP64, b"")
    # Size stands before packed size there.
    wide = [i for i in (1, 0, 2) if fields[i] == layout.MAX32]
    if len(content) != 8 * len(wide):
        raise _damaged(f"the sizes of {what} are not as they should be")
    for i, number in zip(wide, struct.unpack(f"<{len(wide)}Q", content)):
        fields[i] = number
    return fields


def check_local_header(member: Member, header: bytes, name_length: int) -> None:
    """Raise unless the local header says what the directory says."""
    what = shown(member.name)
    signature, *common, crc, packed, size, _, _ = layout.LOCAL.unpack(header[: layout.LOCAL.size])
    name = header[layout.LOCAL.size : layout.LOCAL.size + name_length]
    fields = _fields(header[layout.LOCAL.size + name_length :], what)
    _check_common(common, what, member.common)
    sizes = struct.pack("<2Q", member.size, member.size)
    offset = struct.pack("<Q", member.offset)
    right = signature == layout.LOCAL_SIGNATURE and name == member.raw_name
    small, wide = (member.size, member.size), (layout.MAX32, layout.MAX32)
    large: Tuple[bytes, ...] = (sizes,)
    if member.flags & layout.HAS_DESCRIPTOR:  # the numbers stand behind the data
        right = right and crc in (0, member.crc) and (packed, size) in ((0, 0), wide, small)
        unknown = sizes[:8] + bytes(8)  # PyTorch's, of the packed size before it is known
        large = (sizes, sizes + offset, unknown, unknown + offset, offset, bytes(16))
    elif layout.EXTRA_ZIP64 in fields:
        right = right and crc == member.crc and (packed, size) in (wide, small)
    else:
        right = right and crc == member.crc and (packed, size) == small
    if not right or fields.get(layout.EXTRA_ZIP64, large[0]) not in large:
        raise _damaged(f"the header of {what} and the directory do not agree")


def descriptors(member: Member) -> Dict[int, bytes]:
    """Return what may follow the data of a member, by its length."""
    if not member.flags & layout.HAS_DESCRIPTOR:
        return {0: b""}
    found = {}
    for sizes in ("<3L", "<L2Q"):
        if sizes == "<3L" and member.size > layout.MAX32:
            continue
        numbers = struct.pack(sizes, member.crc, member.size, member.size)
        found[len(numbers)] = numbers
        found[len(numbers) + 4] = layout.DESCRIPTOR_SIGNATURE + numbers
    return found


def _fields(extra: bytes, what: str) -> Dict[int, bytes]:
    """Return the extra fields by their ids."""
    found: Dict[int, bytes] = {}
    position = 0
    while position < len(extra):
        if len(extra) - position < layout.EXTRA.size:
            raise _damaged(f"an extra field of {what} is cut off")
        identifier, length = layout.EXTRA.unpack_from(extra, position)
        position += layout.EXTRA.size + length
        content = extra[position - length : position]
        if len(content) != length or identifier in found:
            raise _damaged(f"an extra field of {what} is cut off, or there twice")
        if identifier == layout.EXTRA_PADDING:
            if content.strip(layout.PADDING):
                raise _damaged(f"the padding of {what} is not as it should be")
        elif identifier not in (layout.EXTRA_ZIP64, *_IGNORED_FIELDS):
            raise _damaged(f"{what} has an extra field {identifier:#06x}, which nobody should write here")
        found[identifier] = content
    return found


def _check_common(common: List[int], what: str, expected: Tuple[int, ...] = ()) -> None:
    version, flags, method, _, _ = common
    if flags & layout.ENCRYPTED:
        raise CheckpointError(f"{what} is encrypted, which is not supported.")
    if method != layout.STORED:
        if "/code/" in what:
            raise CheckpointError(TORCHSCRIPT)
        raise CheckpointError(
            f"{what} is compressed (method {method}), which is not supported: PyTorch stores. Unpack the "
            "archive and pack it again with `zip -0`."
        )
    if version not in _VERSIONS or flags & ~(layout.HAS_DESCRIPTOR | layout.UTF8):
        raise _damaged(f"a header of {what} is not as it should be")
    if expected and tuple(common) != expected:
        raise _damaged(f"the header of {what} and the directory do not agree")


def _is_known(made_by: int) -> bool:
    # Info-ZIP counts its own versions: 3.0 is 30.
    return made_by & 0xFF in _VERSIONS and made_by >> 8 in _SYSTEMS


def _damaged(what: str) -> CheckpointError:
    return CheckpointError(f"the archive is damaged: {what}.")
