# SPDX-License-Identifier: BSD-2-Clause
"""A new file takes the place of an old one in a single step, or not at all."""

import contextlib
import errno
import os
import stat
from typing import Iterator, Optional

_NAME_LENGTH = 200  # bytes of the target's name in that of the temporary file: file systems take 255 in all


@contextlib.contextmanager
def replacing(path: str) -> Iterator[int]:
    """Give a descriptor to write to. The file appears under `path` when the block ends without an exception.

    It is written beside, under a name like ``.model.pt.0123456789abcdef.tmp``, and reaches the disk before it
    is renamed: at every moment there is the old file or the whole new one, also after the power has failed.
    Only a process that is killed leaves the temporary file behind.
    """
    target = _target(path)
    mode = _mode_of(target)
    folder, name = os.path.split(target)
    shortened = os.fsdecode(os.fsencode(name)[:_NAME_LENGTH])
    temporary = os.path.join(folder, f".{shortened}.{os.urandom(8).hex()}.tmp")
    # Now: what is wrong with the folder is to be known before the writing, not after the renaming.
    folder_descriptor = _open_folder(folder)
    try:
        try:
            # In here, since the file may be there already when an interrupt comes.
            descriptor = _open_new(temporary, mode)
            try:
                _set_mode(descriptor, mode)
                yield descriptor
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        _sync_folder(folder_descriptor)
    finally:
        if folder_descriptor is not None:
            os.close(folder_descriptor)


def _target(path: str) -> str:
    """The place of the file; symbolic links are followed. Raises where a path names none."""
    parent, name = os.path.split(path)
    if name in ("", os.curdir, os.pardir):  # realpath would make a file's name of some of them
        raise IsADirectoryError(errno.EISDIR, "cannot save a checkpoint: this is a folder", path)
    os.stat(parent or os.curdir)  # to realpath, missing/../file is a file
    return os.path.realpath(path)


def _mode_of(target: str) -> Optional[int]:
    """The permissions of the file that is there; None where there is none."""
    try:
        found = os.stat(target).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found):
        raise IsADirectoryError(errno.EISDIR, "cannot save a checkpoint: this is a folder", target)
    if not stat.S_ISREG(found):
        raise OSError(errno.EINVAL, "cannot save a checkpoint: this is no regular file", target)
    return stat.S_IMODE(found)


def _open_new(path: str, mode: Optional[int]) -> int:
    # Where the old file's permissions will be set, nobody else may read what is written until then.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.open(path, flags, 0o666 if mode is None else 0o600)


def _set_mode(descriptor: int, mode: Optional[int]) -> None:
    # Only where there is something to change: file systems without permissions refuse the call.
    if mode is not None and stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
        os.fchmod(descriptor, mode)


def _open_folder(folder: str) -> Optional[int]:
    """A descriptor of the folder; None where it may be written to and not read."""
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return None


def _sync_folder(descriptor: Optional[int]) -> None:
    if descriptor is None:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot; nothing can be done
            raise
