# SPDX-License-Identifier: BSD-2-Clause
"""What the pickle says of tensors: checked with Python's integers before anything is read or allocated."""

from collections import OrderedDict
from typing import Any, Dict, List, Optional, Tuple

from dragon_optim._torch_file.archive import Member
from dragon_optim._torch_file.dtypes import BY_STORAGE, UNSUPPORTED_STORAGES, DType
from dragon_optim._torch_file.errors import CheckpointError, shown

MAX_AXES = 32  # numpy's limit


class Name:
    """A name that the pickle gave and that stands on the list."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Storage:
    """A run of bytes in the file."""

    __slots__ = ("dtype", "key", "kind", "member", "numel", "tensors")

    def __init__(self, kind: str, key: str, numel: int, member: Member) -> None:
        self.kind = kind
        self.key = key
        self.numel = numel  # bytes, where the storage has no type
        self.member = member
        self.dtype: Optional[DType] = BY_STORAGE.get(kind)
        self.tensors: List[StoredTensor] = []

    def elements(self) -> int:
        """How many elements of its type it has."""
        assert self.dtype is not None
        return self.member.size // self.dtype.itemsize


class StoredTensor:
    """A tensor's place in a storage."""

    __slots__ = ("is_parameter", "numel", "offset", "requires_grad", "shape", "storage", "strides")

    def __init__(
        self,
        storage: Storage,
        offset: int,
        shape: Tuple[int, ...],
        strides: Tuple[int, ...],
        requires_grad: bool,
        is_parameter: bool = False,
    ) -> None:
        self.storage = storage
        self.offset = offset
        self.shape = shape
        self.numel = _product(shape)
        # Where there is nothing to step to, a stride may be anything: also too large for numpy.
        self.strides = tuple(stride if size > 1 and self.numel else 0 for size, stride in zip(shape, strides))
        self.requires_grad = requires_grad
        self.is_parameter = is_parameter

    @property
    def dtype(self) -> DType:
        """The type of its elements in the file."""
        assert self.storage.dtype is not None
        return self.storage.dtype

    @property
    def end(self) -> int:
        """The place behind its last element."""
        if not self.numel:
            return self.offset
        return self.offset + 1 + sum((size - 1) * step for size, step in zip(self.shape, self.strides))

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        step = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides)):
            if size > 1 and stride != step:
                return False
            step *= size
        return True

    def allocated(self) -> int:
        """How many elements memory is taken for: Dragon leaves axes of length 0 out of the product."""
        return _product(tuple(max(size, 1) for size in self.shape))


class Storages:
    """The storages of a file, by their keys."""

    def __init__(self, members: Dict[str, Member]) -> None:
        self._members = members
        self._known: Dict[str, Storage] = {}

    def find(self, description: Any) -> Storage:
        """Return the storage that a persistent id describes."""
        if type(description) is not tuple or len(description) != 5:
            raise CheckpointError("a storage is not described as torch.save describes it.")
        tag, kind, key, location, numel = description
        if tag != "storage" or type(kind) is not Name or type(key) is not str or type(location) is not str:
            raise CheckpointError("a storage is not described as torch.save describes it.")
        if kind.name in UNSUPPORTED_STORAGES and kind.module == "torch":
            raise CheckpointError(
                f"storage {shown(key)} has dtype {UNSUPPORTED_STORAGES[kind.name]}, which Dragon does not "
                "have and no wider dtype holds."
            )
        if kind.name not in BY_STORAGE and kind.name != "UntypedStorage":
            raise CheckpointError(f"storage {shown(key)} is of type {kind}, which is no type of storages.")
        if type(numel) is not int or numel < 0:
            raise CheckpointError(f"storage {shown(key)} has {shown(numel)} elements.")
        storage = self._known.get(key) or self._new(kind.name, key, numel)
        if storage.kind != kind.name:
            raise _shared(storage)
        if storage.numel != numel:
            raise CheckpointError(f"storage {shown(key)} is described in two ways.")
        return storage

    def _new(self, kind: str, key: str, numel: int) -> Storage:
        member = self._members.get(f"data/{key}")
        if member is None:
            raise CheckpointError(f"the archive has no storage {shown(key)}, which its pickle names.")
        storage = Storage(kind, key, numel, member)
        size = numel * (storage.dtype.itemsize if storage.dtype is not None else 1)
        if size != member.size:
            raise CheckpointError(
                f"storage {shown(key)} is said to have {shown(numel)} elements, {shown(size)} bytes, but has "
                f"{member.size} bytes."
            )
        self._known[key] = storage
        return storage


def stored_tensor(arguments: Tuple, dtype: Optional[DType]) -> StoredTensor:
    """Return the tensor that the first six arguments of PyTorch's functions describe; or raise.

    `dtype` is given where the storage has none.
    """
    storage, offset, shape, strides, requires_grad, hooks = arguments
    if type(storage) is not Storage:
        raise CheckpointError("a tensor is made of something that is no storage.")
    _set_dtype(storage, dtype)
    for each, what in ((shape, "sizes"), (strides, "strides")):
        if type(each) is not tuple or not are_sizes(each):
            raise CheckpointError(
                f"the {what} of a tensor are not a tuple of at most {MAX_AXES} ints that are 0 or more."
            )
    if type(offset) is not int or offset < 0 or type(requires_grad) is not bool:
        raise CheckpointError("the offset or the requires_grad of a tensor is not as torch.save writes it.")
    if len(shape) != len(strides):
        raise CheckpointError(f"a tensor has {len(shape)} axes and {len(strides)} strides.")
    check_no_hooks(hooks)
    assert storage.dtype is not None
    if requires_grad and not storage.dtype.is_floating:
        raise CheckpointError(f"a tensor of dtype {storage.dtype.name} requires a gradient.")
    tensor = StoredTensor(storage, offset, shape, strides, requires_grad)
    if tensor.end > storage.elements():
        raise CheckpointError(
            f"a tensor goes up to element {shown(tensor.end)} of a storage that has {storage.elements()}."
        )
    return tensor


def are_sizes(values: Tuple) -> bool:
    """Whether they can be a shape. The length first: a long tuple may be looked at again and again."""
    return len(values) <= MAX_AXES and all(type(each) is int and 0 <= each < 1 << 63 for each in values)


def _set_dtype(storage: Storage, dtype: Optional[DType]) -> None:
    if storage.kind != "UntypedStorage":
        if dtype is not None and dtype != storage.dtype:
            raise CheckpointError(f"a tensor of dtype {dtype.name} is made of a torch.{storage.kind}.")
        return
    if dtype is None:
        raise CheckpointError("a tensor and its storage are both without a dtype.")
    if storage.dtype is not None and storage.dtype != dtype:
        raise _shared(storage)
    storage.dtype = dtype


def _shared(storage: Storage) -> CheckpointError:
    return CheckpointError(
        f"two tensors of different dtypes share storage {shown(storage.key)}, as Tensor.view(dtype) makes "
        "them, which is not supported: save copies of them (clone)."
    )


def check_no_hooks(hooks: Any) -> None:
    """Raise unless there are no backward hooks: they would be code."""
    if type(hooks) is not OrderedDict or hooks:
        raise CheckpointError("a tensor has backward hooks, which are code and cannot be loaded.")


def _product(sizes: Tuple[int, ...]) -> int:
    product = 1
    for each in sizes:
        product *= each
    return product
