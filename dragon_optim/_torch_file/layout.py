# SPDX-License-Identifier: BSD-2-Clause
"""The records of a zip archive, in the words of PKWARE's APPNOTE.TXT, sections 4.3 to 4.5."""

import struct

CHUNK = 1 << 20
"""Bytes that are read or written at once. A multiple of every element's size."""

LOCAL = struct.Struct("<4s5H3L2H")
"""Local header: signature, version, flags, method, time, date, crc, two sizes, lengths of name and extra."""
CENTRAL = struct.Struct("<4s6H3L5H2L")
"""Directory's header: signature, made by, the local header's, comment length, disk, attributes, offset."""
END = struct.Struct("<4s4H2LH")
"""End of central directory: signature, disks, counts, size and offset of the directory, comment length."""
END64 = struct.Struct("<4sQ2H2L4Q")
"""The same for large archives: signature, size of the rest, versions, disks, counts, size, offset."""
LOCATOR = struct.Struct("<4sLQL")
"""Where the END64 is: signature, disk, offset, number of disks."""
EXTRA = struct.Struct("<2H")
"""Before each extra field: id, length."""

LOCAL_SIGNATURE = b"PK\x03\x04"
CENTRAL_SIGNATURE = b"PK\x01\x02"
DESCRIPTOR_SIGNATURE = b"PK\x07\x08"
END_SIGNATURE = b"PK\x05\x06"
END64_SIGNATURE = b"PK\x06\x06"
LOCATOR_SIGNATURE = b"PK\x06\x07"

ENCRYPTED, HAS_DESCRIPTOR, UTF8 = 1 << 0, 1 << 3, 1 << 11
STORED = 0
MAX16, MAX32 = 0xFFFF, 0xFFFFFFFF

EXTRA_ZIP64 = 0x0001
EXTRA_PADDING = 0x4246  # PyTorch's "FB": puts the data at a multiple of 64
PADDING = b"Z"
ALIGNMENT = 64
