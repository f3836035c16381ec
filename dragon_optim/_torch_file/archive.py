# SPDX-License-Identifier: BSD-2-Clause
"""Reads a zip archive and trusts nothing in it.

Python's zipfile lets pass what a damaged or a hostile archive may hold: members that overlap, local headers
that contradict the directory, bytes that belong to nothing. Here the members must tile the file from its
first byte to the directory, and the directory must end where the file does. In files of torch.save and of
this package there is no bit that nobody looks at; in those of `zip` there are times and owners.
"""

import os
import zlib
from typing import Dict, Iterator, List, Tuple

from dragon_optim._torch_file import layout
from dragon_optim._torch_file.errors import CheckpointError, shown
from dragon_optim._torch_file.headers import Ending, Member, check_local_header, descriptors, read_directory

__all__ = ["Archive", "Member"]


class Archive:
    """The members of an archive, by their names without the folder in which all of them lie."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self.members: Dict[str, Member] = {}
        ending = Ending(self._pread, self._size)
        for member in read_directory(self._pread(ending.start, ending.size), ending.count):
            if member.name in self.members:
                raise CheckpointError(f"the archive has two members named {shown(member.name)}.")
            self.members[member.name] = member
        self._check_tiling(ending.start)
        self.members = _without_folder(self.members)

    def __len__(self) -> int:
        return self._size

    def in_file_order(self) -> List[Tuple[str, Member]]:
        """Names and members, as they lie in the file."""
        return sorted(self.members.items(), key=lambda item: item[1].offset)

    def read(self, member: Member) -> bytes:
        """Return the verified data of a member."""
        data = bytearray(member.size)
        for position, length in self.spans(member):
            self.fill(member, position, memoryview(data)[position : position + length])
        self.check(member, zlib.crc32(data))
        return bytes(data)

    @staticmethod
    def spans(member: Member) -> Iterator[Tuple[int, int]]:
        """Offsets and lengths of the chunks of a member."""
        for position in range(0, member.size, layout.CHUNK):
            yield position, min(layout.CHUNK, member.size - position)

    def fill(self, member: Member, position: int, memory: memoryview) -> None:
        """Read a part of a member into memory."""
        start, done = member.data + position, 0
        while done < len(memory):
            count = os.preadv(self._descriptor, [memory[done:]], start + done)
            if count == 0:
                raise CheckpointError("the file became shorter while it was read.")
            done += count

    def check(self, member: Member, crc: int) -> None:
        """Raise unless this is the checksum of the member."""
        if crc == member.crc:
            return
        if not any(each.crc for each in self.members.values()):
            raise CheckpointError(
                "the file has no checksums: it was written under "
                "torch.serialization.set_crc32_options(False). Load it in PyTorch and save it with checksums."
            )
        raise CheckpointError(
            f"{shown(member.name)} is damaged: its checksum is {crc:08x}, and should be {member.crc:08x}."
        )

    def _pread(self, offset: int, length: int) -> bytes:
        data = b""
        if offset >= 0 and offset + length <= self._size:
            data = os.pread(self._descriptor, length, offset)
        if len(data) != length:
            raise CheckpointError("the archive is damaged or truncated: a part of it lies beyond its end.")
        return data

    def _check_tiling(self, directory: int) -> None:
        members = sorted(self.members.values(), key=lambda member: member.offset)
        position = 0
        for i, member in enumerate(members):
            if member.offset != position:
                raise CheckpointError(
                    f"the archive is damaged: {shown(member.name)} does not begin where the one before it "
                    "ends."
                )
            end = members[i + 1].offset if i + 1 < len(members) else directory
            self._check_member(member, end)
            position = end
        if position != directory:
            raise CheckpointError("the archive is damaged: it does not begin with a member.")

    def _check_member(self, member: Member, end: int) -> None:
        fixed = self._pread(member.offset, layout.LOCAL.size)
        lengths = layout.LOCAL.unpack(fixed)[-2:]
        header = fixed + self._pread(member.offset + len(fixed), sum(lengths))
        check_local_header(member, header, lengths[0])
        member.data = member.offset + len(header)
        rest = end - member.data - member.size
        expected = descriptors(member)
        if rest not in expected or self._pread(end - rest, rest) != expected[rest]:
            raise CheckpointError(
                f"the archive is damaged: what follows the data of {shown(member.name)} is not as it should "
                "be."
            )


def _without_folder(members: Dict[str, Member]) -> Dict[str, Member]:
    folder = next(iter(members), "").partition("/")[0] + "/"
    inside: Dict[str, Member] = {}
    for name, member in members.items():
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
            raise CheckpointError(f"the archive has a member with the unsafe name {shown(name)}.")
        if not name.startswith(folder):
            raise CheckpointError(
                f"this is a zip archive, but not one that torch.save writes: {shown(name)} does not lie in "
                f"the folder {shown(folder)}."
            )
        if name.endswith("/") and member.size:
            raise CheckpointError(f"the archive is damaged: the folder {shown(name)} has data.")
        inside[name[len(folder) :]] = member
    return inside
