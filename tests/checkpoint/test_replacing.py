# SPDX-License-Identifier: BSD-2-Clause
"""There is the old file or the whole new one, whatever happens."""

from __future__ import annotations

import errno
import json
import os
import stat

import numpy as np
import pytest

from dragon_optim import checkpoint
from tests.checkpoint.support import child, left_behind, output_of


@pytest.mark.parametrize("elements", [50, 400_000])
def test_100_kills(elements, tmp_path):
    process = child("-m", "tests.checkpoint.killing", str(tmp_path / "file.pt"), str(elements), "100")
    outcome = json.loads(output_of(process))
    assert sum(outcome["seen"]) == 100
    assert min(outcome["seen"]) > 0  # the saving went on from one to the other
    assert outcome["unfinished"] > 10  # and was met in the middle
    assert outcome["files"] == ["file.pt"]


LIMITED = """
import resource, signal, sys
import numpy as np
from dragon_optim import checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
try:
    checkpoint.save({"new": np.zeros(4 << 20, "uint8")}, sys.argv[1])
except OSError as error:
    print(error.errno)
"""


def test_no_room_on_the_disk(tmp_path):
    path = tmp_path / "file.pt"
    checkpoint.save({"old": 1}, path)
    assert output_of(child("-c", LIMITED, str(path))) == f"{errno.EFBIG}\n"
    assert checkpoint.load(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["file.pt"]


@pytest.mark.parametrize("function", ["pwrite", "fsync", "replace", "fchmod"])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=["OSError", "interrupt"]
)
def test_a_call_of_the_system_fails(function, error, tmp_path, monkeypatch):
    path = tmp_path / "file.pt"
    checkpoint.save({"old": 1}, path)
    before = len(os.listdir("/proc/self/fd"))

    def fail(*arguments):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(os, function, fail)
        with pytest.raises(type(error)):
            checkpoint.save({"new": np.zeros(5)}, path)
    assert checkpoint.load(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["file.pt"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_writes_that_write_less(tmp_path, monkeypatch):
    real = os.pwrite
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", lambda fd, data, at: real(fd, memoryview(data)[:7], at))
        checkpoint.save({"x": np.arange(100)}, tmp_path / "file.pt")
    np.testing.assert_array_equal(checkpoint.load(tmp_path / "file.pt")["x"].numpy(), np.arange(100))


def test_a_tensor_that_changes_between_checksum_and_write(tmp_path, monkeypatch):
    array, real = np.zeros(1000), os.pwrite

    def change(fd, data, at):
        array[...] += 1
        return real(fd, data, at)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", change)
        checkpoint.save({"x": array}, tmp_path / "file.pt")
    assert checkpoint.load(tmp_path / "file.pt")["x"].numpy()[0] > 0


def test_all_is_on_the_disk_before_the_name_changes(tmp_path, monkeypatch):
    calls = []
    real_sync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: (calls.append(os.readlink(f"/proc/self/fd/{fd}")), real_sync(fd))
    )
    monkeypatch.setattr(os, "replace", lambda old, new: (calls.append((old, new)), real_replace(old, new)))
    path = str(tmp_path / "file.pt")
    checkpoint.save({}, path)
    temporary, (old, new), folder = calls
    assert (old, new, folder) == (temporary, path, str(tmp_path))
    name = os.path.basename(temporary)
    assert name.startswith(".file.pt.")
    assert name.endswith(".tmp")


def test_progress_may_end_the_saving(tmp_path):
    path = tmp_path / "file.pt"
    checkpoint.save({"old": 1}, path)

    def stop(done, total):
        raise InterruptedError(f"after {done} of {total}")

    with pytest.raises(InterruptedError):
        checkpoint.save({"new": np.zeros(1 << 20)}, path, progress=stop)
    assert checkpoint.load(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["file.pt"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_permissions_of_the_old_file_are_kept(mode, tmp_path):
    path = tmp_path / "file.pt"
    path.write_bytes(b"")
    path.chmod(mode)
    checkpoint.save({}, path)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize(("mode", "created"), [(0o644, 0o600), (0o600, 0o600), (None, 0o644)])
def test_nobody_else_reads_what_is_unfinished(mode, created, tmp_path, monkeypatch):
    path = tmp_path / "file.pt"
    if mode is not None:
        path.write_bytes(b"")
        path.chmod(mode)
    seen, changes = [], []
    real_open, real_change = os.open, os.fchmod

    def watched_open(file, flags, *arguments):
        descriptor = real_open(file, flags, *arguments)
        if flags & os.O_CREAT:
            seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    monkeypatch.setattr(os, "open", watched_open)
    monkeypatch.setattr(os, "fchmod", lambda fd, new: (changes.append(new), real_change(fd, new)))
    old = os.umask(0o022)
    try:
        checkpoint.save({}, path)
    finally:
        os.umask(old)
    assert seen == [created]
    assert changes == ([] if mode in (None, created) else [mode])  # only where there is a difference
    assert stat.S_IMODE(path.stat().st_mode) == (mode or 0o644)


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_of_a_new_file(umask, tmp_path):
    old = os.umask(umask)
    try:
        checkpoint.save({}, tmp_path / "file.pt")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file.pt").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("exists", [True, False])
def test_symbolic_links_are_followed(exists, tmp_path):
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "file.pt"
    link = tmp_path / "link.pt"
    if exists:
        target.write_bytes(b"old")
    link.symlink_to(target)
    checkpoint.save({"x": 1}, link)
    assert link.is_symlink()
    assert not target.is_symlink()
    assert checkpoint.load(link) == checkpoint.load(target) == {"x": 1}
    assert left_behind(tmp_path) == left_behind(tmp_path / "there") == []


def test_a_hard_link_keeps_the_old_content(tmp_path):
    checkpoint.save(1, tmp_path / "file.pt")
    os.link(tmp_path / "file.pt", tmp_path / "kept.pt")
    checkpoint.save(2, tmp_path / "file.pt")
    assert (checkpoint.load(tmp_path / "kept.pt"), checkpoint.load(tmp_path / "file.pt")) == (1, 2)


@pytest.mark.parametrize("name", ["ü" * 120 + ".pt", "\U0001f409" * 63])
def test_a_long_name(name, tmp_path):
    checkpoint.save(1, tmp_path / name)
    assert checkpoint.load(tmp_path / name) == 1


@pytest.mark.parametrize(
    "job", [lambda path: checkpoint.save({}, path), checkpoint.load], ids=["save", "load"]
)
def test_what_is_no_regular_file(job, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/null", tmp_path / "pipe"):
        with pytest.raises(OSError, match="this is no regular file"):
            job(path)
    with pytest.raises(IsADirectoryError, match="this is a folder"):
        job(tmp_path)
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.parametrize("name", ["new/", "", ".", "..", "new/.", "new/..", "/"])
def test_no_name_of_a_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IsADirectoryError, match="this is a folder"):
        checkpoint.save({}, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["missing/file.pt", "missing/../file.pt", "missing/./file.pt"])
def test_a_folder_that_is_missing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError):
        checkpoint.save({}, name)
    assert list(tmp_path.iterdir()) == []


def test_a_file_for_a_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(NotADirectoryError):
        checkpoint.save({}, tmp_path / "file" / "file.pt")
    assert (tmp_path / "file").read_bytes() == b"old"


def open_that_fails(monkeypatch, flag, error):
    """The system's, which fails where this flag is set; it may do its work before."""
    real = os.open

    def patched(path, flags, *arguments):
        if flags & flag:
            if flag == os.O_CREAT:
                os.close(real(path, flags, *arguments))
            raise error
        return real(path, flags, *arguments)

    monkeypatch.setattr(os, "open", patched)


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    synced = []
    with monkeypatch.context() as patched:
        open_that_fails(patched, os.O_DIRECTORY, PermissionError(errno.EACCES, "denied"))
        patched.setattr(os, "fsync", synced.append)
        checkpoint.save({"x": 1}, tmp_path / "file.pt")
    assert checkpoint.load(tmp_path / "file.pt") == {"x": 1}
    assert len(synced) == 1


def test_a_folder_that_cannot_be_opened(tmp_path, monkeypatch):
    checkpoint.save({"old": 1}, tmp_path / "file.pt")
    with monkeypatch.context() as patched:
        open_that_fails(patched, os.O_DIRECTORY, OSError(errno.EMFILE, "too many"))
        with pytest.raises(OSError, match="too many"):
            checkpoint.save({"new": 1}, tmp_path / "file.pt")
    assert checkpoint.load(tmp_path / "file.pt") == {"old": 1}
    assert os.listdir(tmp_path) == ["file.pt"]


def test_the_new_file_is_in_place_when_the_folder_is_not_on_the_disk(tmp_path, monkeypatch):
    real = os.fsync

    def sync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "broken")
        real(descriptor)

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", sync)
        with pytest.raises(OSError, match="broken"):
            checkpoint.save({"new": 1}, tmp_path / "file.pt")
    assert checkpoint.load(tmp_path / "file.pt") == {"new": 1}
    assert os.listdir(tmp_path) == ["file.pt"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_interrupt_when_the_file_has_just_been_made(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        open_that_fails(patched, os.O_CREAT, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save({}, tmp_path / "file.pt")
    assert list(tmp_path.iterdir()) == []


def test_no_such_folder_or_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint.save({}, tmp_path / "no" / "file.pt")
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "file.pt")
