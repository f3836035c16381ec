# SPDX-License-Identifier: BSD-2-Clause
"""A new file takes the place of an old one in a single step, or not at all."""

import contextlib
import errno
import os
import stat
from typing import Iterator, Optional, Tuple

_NAME_LENGTH = 200  # bytes of the target's name in that of the temporary file: file systems take 255 in all


@contextlib.contextmanager
def replacing(path: str) -> Iterator[int]:
    """Give a descriptor to write to. The file appears under `path` when the block ends without an exception.

    It is written beside, under a name like ``.model.pt.0123456789abcdef.tmp``, and reaches the disk before it
    is renamed: at every moment there is the old file or the whole new one, also after the power has failed.
    Only a process that is killed leaves the temporary file behind.
    """
    target, mode = check_target(path)
    folder, name = os.path.split(target)
    shortened = os.fsdecode(os.fsencode(name)[:_NAME_LENGTH])
    temporary = os.path.join(folder, f".{shortened}.{os.urandom(8).hex()}.tmp")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            if mode is not None:
                os.fchmod(descriptor, mode)
            yield descriptor
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def check_target(path: str) -> Tuple[str, Optional[int]]:
    """Return the place of the file and the permissions of one that is there.

    Raises where there is something that a file cannot take the place of.
    """
    if path.endswith(os.sep):  # realpath would take it for a file
        raise IsADirectoryError(errno.EISDIR, "cannot save a checkpoint: this is a folder", path)
    target = os.path.realpath(path)
    return target, _mode_of(target)


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


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot; nothing can be done
            raise
    finally:
        os.close(descriptor)
