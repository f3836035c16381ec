# SPDX-License-Identifier: BSD-2-Clause
"""From an open file to Dragon tensors in containers."""

from typing import Any, Dict, List

import numpy
from dragon.vm import torch

from dragon_optim._torch_file import Progress
from dragon_optim._torch_file.archive import Archive, Member
from dragon_optim._torch_file.contents import Contents
from dragon_optim._torch_file.errors import TORCHSCRIPT, CheckpointError, shown
from dragon_optim._torch_file.limits import Budget
from dragon_optim._torch_file.pickle_reader import PickleReader
from dragon_optim._torch_file.storage_reader import read_storage, verify
from dragon_optim._torch_file.stored import Storage, Storages, StoredTensor
from dragon_optim._warnings import warn

_FORMAT_VERSIONS = range(1, 11)  # what PyTorch itself takes


def load_archive(descriptor: int, progress: Progress) -> Any:
    """Return the object in a file. The tensors appear in the current workspace when all is verified."""
    archive = Archive(descriptor)
    members = archive.members
    _check_kind(members)
    loading = _Loading(archive, progress)
    budget = Budget(len(archive))
    contents = Contents(loading.unpickle(budget), budget)
    _warn_of_widening(contents.widened)
    arrays = loading.read_storages(contents.tensors)
    return contents.replaced([_tensor(tensor, arrays.pop(id(tensor))) for tensor in contents.tensors])


class _Loading:
    """Goes through the members of an archive, once through each."""

    def __init__(self, archive: Archive, progress: Progress) -> None:
        self._archive = archive
        self._progress = progress
        self._done = 0
        self._total = sum(member.size for member in archive.members.values())
        self._unread = dict(archive.in_file_order())
        self._byte_order = "little"

    def _advance(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total)

    def _read(self, name: str) -> bytes:
        data = self._archive.read(self._unread.pop(name))
        self._advance(len(data))
        return data

    def unpickle(self, budget: Budget) -> Any:
        for name in ("version", "byteorder"):
            if name in self._unread and self._unread[name].size > 16:
                raise CheckpointError(f"the archive has a {name} of {self._unread[name].size} bytes.")
        version = self._read("version").strip()
        if not version.isdigit() or int(version) not in _FORMAT_VERSIONS:
            raise CheckpointError(f"the file has version {shown(version)} of the format; known are 1 to 10.")
        if "byteorder" in self._unread:  # PyTorch before 2.1 wrote none
            self._byte_order = self._read("byteorder").decode("ascii", "replace")
        if self._byte_order not in ("little", "big"):
            raise CheckpointError(f"the file has byte order {shown(self._byte_order)}.")
        pickle = self._read("data.pkl")
        return PickleReader(pickle, Storages(self._archive.members).find, budget).read()

    def read_storages(self, tensors: List[StoredTensor]) -> Dict[int, numpy.ndarray]:
        """Return the arrays of the tensors, by their identities."""
        storages: Dict[str, Storage] = {}
        for tensor in tensors:
            storages[tensor.storage.member.name] = tensor.storage
            tensor.storage.tensors.append(tensor)
        arrays: Dict[int, numpy.ndarray] = {}
        for member in self._unread.values():
            storage = storages.get(member.name)
            if storage is None:
                verify(self._archive, member, self._advance)
                continue
            found = read_storage(self._archive, storage, self._byte_order, self._advance)
            arrays.update((id(tensor), array) for tensor, array in zip(storage.tensors, found))
        return arrays


def _check_kind(members: Dict[str, Member]) -> None:
    if "constants.pkl" in members or any(name.startswith("code/") for name in members):
        raise CheckpointError(TORCHSCRIPT)
    for name in ("data.pkl", "version"):
        if name not in members:
            raise CheckpointError(
                f"this is a zip archive, but not one that torch.save writes: it has no {name}."
            )


def _warn_of_widening(widened: Dict[str, List[str]]) -> None:
    if not widened:
        return
    parts = []
    for what, paths in widened.items():
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        parts.append(f"{what}: {', '.join(paths[:3])}{more}")
    warn(f"Dragon does not have every dtype of this checkpoint, which widens {'; '.join(parts)}.")


def _tensor(tensor: StoredTensor, array: numpy.ndarray) -> Any:
    # It takes over the memory of the array.
    made = torch.Tensor(array, copy=False, requires_grad=tensor.requires_grad)
    return torch.nn.Parameter(made, requires_grad=tensor.requires_grad) if tensor.is_parameter else made
