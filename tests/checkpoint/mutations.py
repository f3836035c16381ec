# SPDX-License-Identifier: BSD-2-Clause
"""Ways to damage a file: blindly (`raw`), and with right checksums, so that it gets further (`smart`)."""

from __future__ import annotations

import contextlib
import io
import pickletools
import struct
import zipfile

# Opcodes of every kind, also those that the machine must not know, with arguments.
HOSTILE = [
    b"cos\nsystem\n",
    b"cbuiltins\neval\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch._utils\n_rebuild_parameter\n",
    b"ccollections\nOrderedDict\n",
    b"ccollections\nCounter\n",
    b"ctorch\nFloatStorage\n",
    b"ctorch\nComplexFloatStorage\n",
    b"ctorch.storage\nUntypedStorage\n",
    b"c_codecs\nencode\n",
    b"\x8c\x02os\x8c\x06system\x93",
    b"(ios\nsystem\n",
    b"Vtext\n",
    b"I99\n",
    b"X\xff\xff\xff\xff",
    b"\x8d" + struct.pack("<Q", 2**60),
    b"\x8e" + struct.pack("<Q", 2**62),
    b"\x95" + struct.pack("<Q", 2**61),
    b"r" + struct.pack("<L", 2**31),
    b"j" + struct.pack("<L", 2**31),
    b"\x8a\xff" + b"\xff" * 254 + b"\x7f",
    b"\x8a\x09" + struct.pack("<Q", 2**63) + b"\x00",
    b"J" + struct.pack("<i", 2**31 - 1),
    b"J" + struct.pack("<i", -1),
    b"G\x7f\xf8\x00\x00\x00\x00\x00\x00",
    b"(" * 50,
    b"]" * 50,
    b")" + b"\x85" * 600,
    *(
        bytes([each])
        for each in b"().012NQRabdehlostu]}\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94\x97\x98"
    ),
]

NUMBERS = [0, 1, 2, 3, 255, 65535, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63, 2**64, 2**200, -1]


def raw(rng, data: bytes, files) -> bytes:
    """Damage the bytes of the file."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        if not data:
            break
        start = rng.randrange(len(data))
        length = min(rng.choice((1, 2, 4, 8, 64, 500)), len(data) - start)
        way = rng.randrange(8)
        if way == 0:
            data[start] ^= 1 << rng.randrange(8)
        elif way == 1:
            data[start : start + length] = bytes(rng.randrange(256) for _ in range(length))
        elif way == 2:
            del data[start : start + length]
        elif way == 3:
            data[start:start] = data[start : start + length]
        elif way == 4:
            del data[start:]
        elif way == 5:
            other = rng.choice(files)
            place = rng.randrange(len(other))
            data[start : start + length] = other[place : place + length]
        elif way == 6:
            data[start : start + length] = rng.choice((b"\0", b"\xff")) * length
        else:
            target = rng.randrange(len(data))
            data[target:target] = data[start : start + length]
    return bytes(data)


def smart(rng, data: bytes, files) -> bytes:
    """Damage what the archive holds and pack it anew."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = [(info.filename, archive.read(info)) for info in archive.infolist()]
    way = rng.randrange(10)
    if way < 8:
        place = next(i for i, (name, _) in enumerate(parts) if name.endswith("data.pkl"))
        pickle = parts[place][1]
        for _ in range(rng.choice((1, 1, 2, 4))):
            pickle = rng.choice((_opcodes, _opcodes, _numbers, _bytes))(rng, pickle)
        parts[place] = (parts[place][0], pickle)
    elif way == 8:
        place = rng.randrange(len(parts))
        name, content = parts[place]
        cut = rng.randrange(len(content) + 1)
        parts[place] = (
            name,
            rng.choice((content[:cut], content + content[:cut] + b"x", raw(rng, content, files))),
        )
    else:
        place = rng.randrange(len(parts))
        name, content = parts[place]
        parts[place : place + 1] = rng.choice(
            ([], [(name, content), (name + "0", content)], [(name[:-1] + rng.choice("0123/x"), content)])
        )
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in parts:
            archive.writestr(zipfile.ZipInfo(name), content)
    return target.getvalue()


def _cut(pickle: bytes) -> list:
    """The pickle as one piece for each opcode, as far as it can be read."""
    places = []
    with contextlib.suppress(Exception):  # damaged by an earlier step: the rest is one piece
        places.extend(place for _, _, place in pickletools.genops(pickle))
    places.append(len(pickle))
    return [pickle[start:end] for start, end in zip(places, places[1:])] or [pickle]


def _opcodes(rng, pickle: bytes) -> bytes:
    pieces = _cut(pickle)
    place, other = rng.randrange(len(pieces)), rng.randrange(len(pieces))
    way = rng.randrange(6)
    if way == 0:
        del pieces[place]
    elif way == 1:
        pieces.insert(place, pieces[other])
    elif way == 2:
        pieces[place], pieces[other] = pieces[other], pieces[place]
    elif way == 3:
        pieces.insert(place, rng.choice(HOSTILE))
    elif way == 4:
        pieces[place] = rng.choice(HOSTILE)
    else:
        low, high = sorted((place, other))
        pieces[low:high] = pieces[low:high] * rng.choice((0, 2, 3))
    return b"".join(pieces)


def _numbers(rng, pickle: bytes) -> bytes:
    """Replace a number: a size, a stride, an offset, a numel, an index of the memo."""
    pieces = _cut(pickle)
    places = [i for i, piece in enumerate(pieces) if piece[:1] in b"KMJ\x8aqrhj" and piece]
    if places:
        place = rng.choice(places)
        value = rng.choice(NUMBERS)
        if pieces[place][:1] in b"qrhj":
            letter = b"r" if pieces[place][:1] in b"qr" else b"j"
            pieces[place] = letter + struct.pack("<L", value & 0xFFFFFFFF)
        else:
            length = value.bit_length() // 8 + 1
            pieces[place] = b"\x8a" + bytes([length]) + value.to_bytes(length, "little", signed=True)
    return b"".join(pieces)


def _bytes(rng, pickle: bytes) -> bytes:
    return raw(rng, pickle, [pickle])
