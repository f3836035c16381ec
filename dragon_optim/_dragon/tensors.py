# SPDX-License-Identifier: BSD-2-Clause
"""Questions to Dragon's tensors that its public interface answers slowly, or not at all."""

from operator import attrgetter
from typing import Any, List, Sequence, Tuple

import numpy
from dragon.core.framework import types
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon.workspace import Workspace, check_readable


def is_tensor(value: Any) -> bool:
    """Whether this is a tensor of Dragon, of the native or of the PyTorch-like interface."""
    return isinstance(value, (Tensor, types.TensorBase))


def identity(tensor: Tensor) -> int:
    """A number for the memory behind a tensor: two Parameters may wrap one. Good while the tensor lives."""
    return id(tensor._impl)


_place = attrgetter("_device._type", "_device._index")


def place(tensor: Tensor) -> Tuple[str, int]:
    """The device of a tensor, its type and index. The attributes behind a property that copies."""
    found: Tuple[str, int] = _place(tensor)
    return found


_device = attrgetter("_device")


def devices(tensors: Sequence[Tensor]) -> List[Any]:
    """The device of each, as an object that another one replaces when the tensor is moved."""
    return list(map(_device, tensors))


def move_with(tensor: Tensor, other: Tensor) -> None:
    """Say that a tensor is on the device of another one. Its memory follows at its next use there."""
    tensor._device = other.device


def name(tensor: Tensor) -> str:
    """The name of the memory behind a tensor, as graphs and tapes know it."""
    return tensor._impl.name


def has_data(tensor: Tensor) -> bool:
    """Whether the tensor has a shape and memory. Dragon's ``numpy()`` ends the process where it has not."""
    return bool(tensor._impl.size > 0)


def exists(tensor: Tensor) -> bool:
    """False for a ``Tensor()`` that was never filled."""
    return tensor._impl is not None


def set_requires_grad(tensor: Tensor, value: bool) -> None:
    """Set the flag behind the property, also while the property is watched."""
    tensor._requires_grad = value


def reset(tensor: Tensor) -> None:
    """Give the memory of a tensor back. Its name and whoever holds it stay."""
    tensor._impl.Reset()


_requires_grad = attrgetter("_requires_grad")


def require_grad(tensors: Sequence[Tensor]) -> List[bool]:
    """``requires_grad`` of each. The attribute behind the property: a step asks this of every parameter."""
    return list(map(_requires_grad, tensors))


def check_overwritable(tensor: Tensor, what: str) -> None:
    """Raise unless `overwrite` can write a number into the tensor."""
    check_readable(tensor, what)
    if not str(tensor.dtype).startswith("float"):
        raise TypeError(f"{what} is of dtype {tensor.dtype}, which would round it: make it a float tensor.")


def overwrite(tensor: Tensor, number: float) -> None:
    """Fill a tensor with a number, past the tape. Its dtype and shape stay."""
    shape, dtype = tuple(tensor.shape), str(tensor.dtype)
    tensor._impl.FromNumpy(numpy.full(shape, number, dtype), True)


def have_data(workspace: Workspace, names: Sequence[str]) -> List[bool]:
    """Whether there is a tensor with data under each name."""
    found: List[Any] = [workspace.get_tensor(name) for name in names]
    return [tensor is not None and tensor.size > 0 for tensor in found]


def array(tensor: Tensor) -> numpy.ndarray:
    """A copy of the values of a tensor that has data."""
    return view(tensor) if _is_far(tensor) else numpy.array(tensor._impl.ToNumpy())


def view(tensor: Tensor) -> numpy.ndarray:
    """The values of a tensor that has data: of one in main memory a view, of another one a copy."""
    # A view would leave a copy of the tensor in main memory for as long as it lives.
    return tensor._impl.ToNumpy(_is_far(tensor))


def _is_far(tensor: Tensor) -> bool:
    # Dragon's own copy of a tensor without elements writes beyond the array.
    return tensor._device._type != "cpu" and 0 not in tensor._impl.dims


def array_named(workspace: Workspace, name: str) -> numpy.ndarray:
    """As `array`, of the tensor of this name."""
    return numpy.array(workspace.get_tensor(name).ToNumpy())


def create(workspace: Workspace, name: str) -> None:
    """Make a tensor without data, unless there is one. An operator must give it some in the same breath."""
    workspace.create_tensor(name)
