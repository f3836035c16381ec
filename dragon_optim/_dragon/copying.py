# SPDX-License-Identifier: BSD-2-Clause
"""Lets Dragon's tensors be deep-copied and pickled, which an optimizer that holds them needs.

Dragon gives its tensors no such way: ``copy.deepcopy`` and ``pickle`` raise TypeError there. ``copy.copy`` of
a plain tensor works but makes two owners of one name: when the first dies, the name goes to a new tensor
while the second still reads and writes it. So the shallow copy is mended too: it shares the memory, as
PyTorch's does, and the tensor that it was made of stays the owner.
"""

import copyreg
from typing import Any, Tuple

import numpy
from dragon.vm.torch.core.cpp import device as Device
from dragon.vm.torch.core.nn.parameter import Parameter
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon import workspace


def rebuild_tensor(array: numpy.ndarray, device: Tuple[str, int], requires_grad: bool) -> Tensor:
    """Make a tensor anew in the current workspace. Pickles name this function."""
    tensor = Tensor(array, device=Device(*device))
    tensor.requires_grad = requires_grad
    return tensor


def rebuild_parameter(array: numpy.ndarray, device: Tuple[str, int], requires_grad: bool) -> Parameter:
    """Make a parameter anew in the current workspace. Pickles name this function."""
    return Parameter(Tensor(array, device=Device(*device)), requires_grad)


def _content(tensor: Tensor) -> Tuple[numpy.ndarray, Tuple[str, int], bool]:
    workspace.check_readable(tensor, "a tensor that is to be copied")
    device = tensor.device
    # A copy of the values, since a numpy view of Dragon's does not keep the tensor alive. The history of a
    # result is not copied, so neither is its wish for a gradient.
    array = numpy.array(tensor.numpy())
    return array, (device.type, device.index), bool(tensor.requires_grad and tensor.is_leaf)


def _reduce_tensor(tensor: Tensor) -> Any:
    return rebuild_tensor, _content(tensor)


def _reduce_parameter(parameter: Parameter) -> Any:
    array, device, _ = _content(parameter)
    return rebuild_parameter, (array, device, parameter.requires_grad)  # also of one on the tape


def _shallow(tensor: Tensor) -> Tensor:
    twin = object.__new__(type(tensor))
    twin.__dict__.update(tensor.__dict__)
    twin._deleter = None
    twin._wrapped_tensor = tensor
    return twin


def install() -> None:
    """Register the ways for exactly Dragon's two classes: of a subclass only its author knows what to do."""
    copyreg.pickle(Tensor, _reduce_tensor)
    copyreg.pickle(Parameter, _reduce_parameter)
    if "__copy__" not in Tensor.__dict__:
        Tensor.__copy__ = _shallow
