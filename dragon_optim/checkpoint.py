# SPDX-License-Identifier: BSD-2-Clause
"""Checkpoints in the file format of PyTorch: written and read without PyTorch.

A file from `save` opens in PyTorch with ``torch.load(path, weights_only=True)``. A file from ``torch.save``
opens here with `load`.
"""

import errno
import os
import stat
from typing import Any, Union

from dragon_optim._torch_file import Progress
from dragon_optim._torch_file.errors import CheckpointError
from dragon_optim._torch_file.foreign import check_is_zip
from dragon_optim._torch_file.loading import load_archive
from dragon_optim._torch_file.replacing import replacing
from dragon_optim._torch_file.saving import Content, write_archive

__all__ = ["CheckpointError", "load", "save"]


def save(obj: Any, path: Union[str, "os.PathLike[str]"], progress: Progress = None) -> None:
    """Save tensors and plain values, so that at every moment there is the old file or the whole new one.

    The file is written beside `path`, brought to the disk, and then renamed. Tensors stream: their memory is
    not copied.

    Parameters
    ----------
    obj : dict, OrderedDict, list, tuple, or any value that may stand in them
        Values: Dragon tensors and Parameters, numpy arrays, numpy scalars (which become Python's), None,
        bool, int (up to 255 bytes), float, str, bytes, and Counters of ints. At most 500 levels deep. Keys:
        str, int (64 bits), float, bool and None; in one dict at most 16384 that are neither str, nor ints
        from 0 to about 4 times the number of ints before them, nor ints in equal steps. dtypes of tensors:
        bool, int8, uint8, int32, int64, float16, float32, float64. What stands in several places is stored
        once and loads as one object.
    path : str or os.PathLike
        The file. Symbolic links are followed; the permissions of a file that is there are kept.
    progress : callable, optional, default=None
        ``progress(done, total)`` is called after each chunk with numbers of bytes. An exception from it ends
        the saving, and the old file stays.

    Raises
    ------
    TypeError
        If `obj` holds something else, the message says where, as in ``obj['model'][3]``; if `path` is no
        path, or `progress` is not callable.
    ValueError
        If `obj` contains itself, is nested too deep, or a value or key is out of range.
    RuntimeError
        If a tensor has no data, or changes its shape while it is saved.
    OSError
        If the file cannot be written, or `path` is a folder, device or pipe.

    Notes
    -----
    Differences from ``torch.save``: no other Python objects, so that ``weights_only=True`` takes every file
    (PyTorch 2.1 did not take bytes there).
    What shares memory without being one object, such as two views by numpy, is stored twice. A numpy array
    loads as a tensor. An integer Parameter is stored with ``requires_grad=False``, since PyTorch refuses
    others. Bools that are other bytes than 0 and 1 become 1. Equal content with equal sharing gives equal
    bytes.

    A process that is killed may leave its temporary file ``.<name>.<hex digits>.tmp`` behind, which can be
    deleted.

    ``dragon.vm.torch.save`` writes plain pickles of numpy arrays, which PyTorch does not take.

    Examples
    --------
    >>> import tempfile, os
    >>> from dragon.vm import torch
    >>> from dragon_optim import checkpoint
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = os.path.join(folder.name, "model.pt")
    >>> checkpoint.save({"weight": torch.ones(2, 3), "epoch": 7}, path)
    >>> loaded = checkpoint.load(path)
    >>> loaded["epoch"], tuple(loaded["weight"].shape)
    (7, (2, 3))
    >>> folder.cleanup()
    """
    file = _path(path)
    _check_progress(progress)
    content = Content(obj)
    with replacing(file) as descriptor:
        write_archive(descriptor, content, progress)


def load(path: Union[str, "os.PathLike[str]"], progress: Progress = None) -> Any:
    """Load what `save` or ``torch.save`` has written.

    Nothing in the file is run, and every checksum is verified.

    Parameters
    ----------
    path : str or os.PathLike
        The file, in PyTorch's zip format (``torch.save`` since PyTorch 1.6).
    progress : callable, optional, default=None
        ``progress(done, total)`` is called after each chunk with numbers of bytes. An exception from it ends
        the loading.

    Returns
    -------
    object
        Dicts, OrderedDicts, lists and tuples of Dragon tensors in main memory, of plain values and Counters.
        The tensors live in the current workspace, of which each thread has its own, and die with it.
        Parameters are ``torch.nn.Parameter``; ``requires_grad`` is as saved.

    Raises
    ------
    CheckpointError
        If the file is damaged, of another format, or holds anything but tensors and plain values.
    OSError
        If the file cannot be read: FileNotFoundError, IsADirectoryError and others.
    MemoryError
        If the tensors do not fit into memory.
    TypeError
        If `path` is no path, or `progress` is not callable.

    Warns
    -----
    UserWarning
        If the file has dtypes that Dragon lacks, and that a wider one holds exactly: bfloat16 becomes
        float32, int16 and uint16 become int32, uint32 becomes int64.

    Notes
    -----
    Differences from ``torch.load(path, weights_only=True)``:

    - Tensors on other devices are loaded to the CPU. Views become copies: tensors that shared memory no
      longer do, except those that were one object.
    - torch.Size becomes a tuple, a torch.dtype its name. Complex, quantized, sparse and 8-bit float tensors
      are refused.
    - What takes much more memory than the file has bytes is refused: tensors of more than 16 times its size
      and 64 MiB, each counted as at least 2 KiB, and each dict, list and tuple as 96 bytes; so are dicts
      with other keys than `save` takes, or with a key twice. Keys may also be bytes.
    - The file must be whole, without anything added to it or compressed in it.

    Examples
    --------
    >>> from dragon_optim import checkpoint
    >>> checkpoint.load("no_such_file.pt")
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: 'no_such_file.pt'
    """
    file = _path(path)
    _check_progress(progress)
    # Without blocking: opening a pipe would wait for somebody to write to it.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_regular(descriptor, file)
        check_is_zip(descriptor)
        return load_archive(descriptor, progress)
    except CheckpointError as error:
        raise CheckpointError(f"cannot load {file!r}: {error}") from None
    finally:
        os.close(descriptor)


def _path(path: Any) -> str:
    found = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(found, str):
        raise TypeError(f"path must be a str or an os.PathLike of one, but got {type(path).__name__}")
    return found


def _check_progress(progress: Progress) -> None:
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be callable or None, but got {type(progress).__name__}")


def _check_regular(descriptor: int, path: str) -> None:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "cannot load a checkpoint: this is a folder", path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "cannot load a checkpoint: this is no regular file", path)
