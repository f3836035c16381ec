# SPDX-License-Identifier: BSD-2-Clause
"""Archives that are damaged, hostile, of another kind, or packed anew by other programs."""

from __future__ import annotations

import struct
import sys
import zipfile
import zlib

import numpy as np
import pytest

from dragon_optim import checkpoint
from dragon_optim._torch_file import headers, layout
from dragon_optim._torch_file.archive_writer import ArchiveWriter
from tests.checkpoint import ours
from tests.checkpoint.support import RECORDED, described, members, pack, refused

SEEDS = [RECORDED / "parameters.pt", RECORDED / "empty.pt", RECORDED / "shared.pt"]


@pytest.fixture
def ours_file(tmp_path):
    path = tmp_path / "ours.pt"
    checkpoint.save(ours.CASES["parameters"](), path)
    return path


@pytest.mark.parametrize("seed", ["ours", *SEEDS[:2]], ids=["ours", "parameters", "empty"])
def test_a_bit_flipped_in_any_byte(seed, ours_file, tmp_path):
    data = (ours_file if seed == "ours" else seed).read_bytes()
    path = tmp_path / "flipped.pt"
    accepted = []
    with open(path, "w+b", buffering=0) as file:
        file.write(data)
        for place, byte in enumerate(data):
            # Each bit in one of the eight runs over the file would take a minute; so one bit of each byte.
            file.seek(place)
            file.write(bytes([byte ^ 1 << place % 8]))
            try:
                checkpoint.load(path)
                accepted.append(place)
            except checkpoint.CheckpointError:
                pass
            file.seek(place)
            file.write(bytes([byte]))
    assert accepted == []


def test_every_truncation_is_refused(ours_file, tmp_path):
    data = ours_file.read_bytes()
    path = tmp_path / "cut.pt"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(checkpoint.CheckpointError):
            checkpoint.load(path)


@pytest.mark.parametrize("more", [b"\0", b"PK\x05\x06" + bytes(18), b"x" * 70000])
def test_something_added(more, ours_file):
    data = ours_file.read_bytes()
    for content, words in ((data + more, "the archive"), (more + data, "")):
        ours_file.write_bytes(content)
        refused(ours_file, words)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed(method, ours_file):
    pack(ours_file, members(ours_file), compression=method)
    refused(ours_file, f"'archive/data.pkl' is compressed (method {method})", "zip -0")


def test_bomb(tmp_path):
    pack(tmp_path / "bomb.pt", {"data.pkl": bytes(50 << 20)}, compression=zipfile.ZIP_DEFLATED)
    refused(tmp_path / "bomb.pt", "is compressed")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name(ours_file):
    pairs = list(members(ours_file).items())
    pack(ours_file, pairs + [("data.pkl", b"\x80\x02N.")])
    refused(ours_file, "two members named 'archive/data.pkl'")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "..", "a\\b", "x/\0y"])
def test_unsafe_names(name, ours_file):
    # zipfile itself cuts a name at a NUL byte.
    placeholder = name.replace("\0", "\1")
    pack(ours_file, {**members(ours_file), placeholder: b""})
    ours_file.write_bytes(ours_file.read_bytes().replace(placeholder.encode(), name.encode()))
    if name == "/etc/x":
        pack(ours_file, [("/etc/x", b""), ("archive/data.pkl", b"")], folder="")
    refused(ours_file, "unsafe name")


def test_members_of_several_folders(ours_file):
    pack(ours_file, [("archive/data.pkl", b"\x80\x02N."), ("other/version", b"3")], folder="")
    refused(ours_file, "'other/version' does not lie in the folder 'archive/'")


def directory_edit(path, edit) -> None:
    """Change the central directory's entries, given as lists of fields and a rest."""
    data = path.read_bytes()
    end = list(layout.END.unpack(data[-22:]))
    start, position, entries = end[6], end[6], []
    while data[position : position + 4] == layout.CENTRAL_SIGNATURE:
        fields = list(layout.CENTRAL.unpack_from(data, position))
        length = sum(fields[10:13])
        entries.append([fields, data[position + 46 : position + 46 + length]])
        position += 46 + length
    entries = edit(entries) or entries
    directory = b"".join(layout.CENTRAL.pack(*fields) + rest for fields, rest in entries)
    end[3] = end[4] = len(entries)
    end[5] = len(directory)
    path.write_bytes(data[:start] + directory + layout.END.pack(*end))


def test_overlapping_members(ours_file):
    def edit(entries):
        copy = [list(entries[2][0]), entries[2][1].replace(b"data/0", b"data/9")]
        return entries + [copy]

    directory_edit(ours_file, edit)
    refused(ours_file, "damaged")


def test_a_member_left_out_of_the_directory(ours_file):
    directory_edit(ours_file, lambda entries: entries[:2] + entries[3:])
    refused(ours_file, "damaged")


@pytest.mark.parametrize(
    ("field", "value"),
    [(1, 0x0714), (2, 63), (3, 1), (3, 8), (3, 0x40), (4, 8), (4, 99), (5, 1), (6, 0), (7, 0), (8, 2**31)]
    + [(9, 0), (9, 0xFFFFFFFE), (12, 3), (13, 1), (14, 1), (15, 0x20), (16, 1), (16, 0xFFFFFFFF)],
)
def test_fields_of_the_directory(field, value, ours_file):
    def edit(entries):
        entries[2][0][field] = value

    directory_edit(ours_file, edit)
    refused(ours_file)


def test_encrypted(ours_file):
    def edit(entries):
        entries[0][0][3] = layout.ENCRYPTED

    directory_edit(ours_file, edit)
    refused(ours_file, "is encrypted")


def test_damaged_storage_is_named(ours_file):
    data = ours_file.read_bytes()
    place = data.index(np.float32(-1.75).tobytes())
    ours_file.write_bytes(data[:place] + b"\xff" + data[place + 1 :])
    refused(ours_file, "'archive/data/0' is damaged", "checksum")


def test_damaged_member_that_nobody_needs(tmp_path):
    path = tmp_path / "file.pt"
    pack(path, {"data.pkl": b"\x80\x02N.", "note.txt": b"hello", "version": b"3\n"})
    assert checkpoint.load(path) is None
    path.write_bytes(path.read_bytes().replace(b"hello", b"hallo"))
    refused(path, "'archive/note.txt' is damaged")


def test_pickle_is_verified_before_it_is_read(tmp_path):
    path = tmp_path / "file.pt"
    pack(path, {"data.pkl": b"\x80\x02cos\nsystem\n.", "version": b"3\n"})
    refused(path, "'os'.'system'")
    path.write_bytes(path.read_bytes().replace(b"system", b"sistem"))
    refused(path, "'archive/data.pkl' is damaged")


def test_other_byte_order(tmp_path):
    path = tmp_path / "file.pt"
    checkpoint.save(ours.CASES["dtypes"](), path)
    parts = members(path)
    for i, dtype in enumerate(ours.DTYPES):
        parts[f"data/{i}"] = np.frombuffer(parts[f"data/{i}"], dtype).byteswap().tobytes()
    parts["byteorder"] = b"big"
    pack(path, parts)
    assert described(checkpoint.load(path)) == described(ours.CASES["dtypes"]())


def test_file_that_shrinks_while_it_is_read(tmp_path):
    path = tmp_path / "file.pt"
    checkpoint.save([np.zeros(8 << 20, "uint8")], path)

    def cut(done, total):
        if done > 1 << 20:
            with open(path, "r+b") as file:
                file.truncate(1 << 20)

    with pytest.raises(checkpoint.CheckpointError, match="became shorter"):
        checkpoint.load(path, progress=cut)


def test_headers_of_an_archive_beyond_4_gib(tmp_path, monkeypatch):
    """With the limit of 32-bit fields put at 1000, since a real one takes minutes: all stays consistent."""
    monkeypatch.setattr(layout, "MAX32", 1000)
    path = tmp_path / "file.pt"
    value = {"small": np.arange(5), "large": np.arange(500.0), "last": np.arange(7)}
    checkpoint.save(value, path)
    data = path.read_bytes()
    assert layout.END64_SIGNATURE in data
    loaded = checkpoint.load(path)
    assert all(np.array_equal(loaded[name].numpy(), array) for name, array in value.items())


def test_more_members_than_16_bits_count(tmp_path):
    with open(tmp_path / "file.pt", "w+b") as file:
        writer = ArchiveWriter(file.fileno())
        for name, data in (("data.pkl", b"\x80\x02K\x07."), ("version", b"3\n")):
            writer.add("archive/" + name, len(data), [data])
        for i in range(65536):
            writer.add(f"archive/x{i}", 0, [])
        writer.finish()
    assert checkpoint.load(tmp_path / "file.pt") == 7
    with zipfile.ZipFile(tmp_path / "file.pt") as archive:
        assert len(archive.namelist()) == 65538


def test_our_files_in_the_eyes_of_zipfile(ours_file):
    with zipfile.ZipFile(ours_file) as archive:
        assert archive.testzip() is None
        for info in archive.infolist():
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            data = archive.read(info)
            assert zlib.crc32(data) == info.CRC
            start = ours_file.read_bytes().index(data, info.header_offset + 30 + len(info.filename))
            assert start % 64 == 0
    assert sys.byteorder.encode() == members(ours_file)["byteorder"]


def test_headers_of_pytorch_beyond_4_gib():
    """As PyTorch 2.13 writes them for a storage of 2**32 + 10 bytes, and for one behind it."""
    name = b"archive/data/0"
    size, place = struct.pack("<Q", 2**32 + 10), struct.pack("<Q", 2**32 + 802)
    common = (0, 0x808, 0, 0, 0)
    wide = 2**32 - 1
    for length, sizes, offset, in_local, in_central in (
        (2**32 + 10, (wide, wide), 662, size + bytes(8), size + size),
        (12, (12, 12), wide, place, place),
    ):
        lengths = (len(name), len(in_central) + 4)
        central = layout.CENTRAL.pack(b"PK\1\2", 0, *common, 7, *sizes, *lengths, 0, 0, 0, 0, offset)
        central += name + struct.pack("<2H", 1, len(in_central)) + in_central
        (member,) = headers.read_directory(central, 1)
        assert (member.size, member.crc) == (length, 7)
        assert member.offset == (2**32 + 802 if offset == wide else offset)
        local = layout.LOCAL.pack(b"PK\3\4", *common, 0, 0, 0, len(name), len(in_local) + 4)
        local += name + struct.pack("<2H", 1, len(in_local)) + in_local
        headers.check_local_header(member, local, len(name))
        assert headers.descriptors(member)[24][8:16] == struct.pack("<Q", length)
        with pytest.raises(checkpoint.CheckpointError, match="do not agree"):
            headers.check_local_header(member, local[:-5] + b"\7" + local[-4:], len(name))
