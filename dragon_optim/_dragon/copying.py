# SPDX-License-Identifier: BSD-2-Clause
"""Lets Dragon's tensors be deep-copied and pickled, which an optimizer that holds them needs.

Dragon gives its tensors no such way: ``copy.deepcopy`` and ``pickle`` raise TypeError there. ``copy.copy`` of
a plain tensor works but makes two owners of one name: when the first dies, the name goes to a new tensor
while the second still reads and writes it. So the shallow copy is mended too: it shares the memory, as
PyTorch's does, and the tensor that it was made of stays the owner.
"""

import copy
import copyreg
from typing import Any, Dict, Optional, Tuple

import numpy
from dragon.core.framework import tensor as native
from dragon.vm.torch.core.cpp import device as Device
from dragon.vm.torch.core.nn.parameter import Parameter
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon import library, tensors, workspace


def _present(device: Tuple[str, int]) -> Device:
    """The device, or the CPU where this Dragon lacks it: there any operator on it would end the process."""
    return Device(*device) if device[0] in library.devices() else Device("cpu")


def rebuild_tensor(array: numpy.ndarray, device: Tuple[str, int], requires_grad: bool) -> Tensor:
    """Make a tensor anew in the current workspace. Pickles name this function."""
    # In the memory of the array, unless that is somebody's buffer.
    borrowed = not (array.flags.owndata and array.flags.writeable)
    tensor = Tensor(array, device=_present(device), copy=borrowed)
    tensor.requires_grad = requires_grad
    return tensor


def rebuild_parameter(array: numpy.ndarray, device: Tuple[str, int], requires_grad: bool) -> Parameter:
    """Make a parameter anew in the current workspace. Pickles name this function."""
    return Parameter(rebuild_tensor(array, device, False), requires_grad)


def _content(tensor: Tensor) -> Tuple[numpy.ndarray, Tuple[str, int], bool]:
    workspace.check_readable(tensor, "a tensor that is to be copied")
    device = tensor.device
    # A copy of the values, since a numpy view of Dragon's does not keep the tensor alive. The history of a
    # result is not copied, so neither is its wish for a gradient.
    array = tensors.array(tensor)
    return array, (device.type, device.index), bool(tensor.requires_grad and tensor.is_leaf)


def _reduce_tensor(tensor: Tensor) -> Any:
    return rebuild_tensor, _content(tensor), _attributes(tensor)


def _reduce_parameter(parameter: Parameter) -> Any:
    array, device, _ = _content(parameter)
    requires_grad = parameter.requires_grad  # also of one on the tape
    return rebuild_parameter, (array, device, requires_grad), _attributes(parameter)


def _attributes(tensor: Tensor) -> Optional[Dict[str, Any]]:
    """What the user keeps on a tensor. Dragon's own attributes begin with an underscore."""
    return {key: value for key, value in tensor.__dict__.items() if not key.startswith("_")} or None


def _reduce_subclass(tensor: Tensor, protocol: Any) -> Any:
    """Only the author of a subclass knows how; Python's own way ends the process in protocol 0."""
    own: Any = type(tensor).__reduce__
    if own is not object.__reduce__:
        return own(tensor)
    raise TypeError(_no_way(tensor))


def _no_way(tensor: Tensor) -> str:
    kind = f"{type(tensor).__module__}.{type(tensor).__qualname__}"
    return f"cannot copy or pickle a {kind}: give this subclass of Tensor __deepcopy__ and __reduce__ methods"


def _deep(tensor: Tensor, memo: Dict[int, Any]) -> Tensor:
    """Copy once, where Python would copy what `_content` has copied already."""
    ways = {Tensor: _reduce_tensor, Parameter: _reduce_parameter}
    if type(tensor) not in ways:
        raise TypeError(_no_way(tensor))
    rebuild, content, attributes = ways[type(tensor)](tensor)
    made = rebuild(*content)
    memo[id(tensor)] = made
    made.__dict__.update(copy.deepcopy(attributes or {}, memo))
    return made


def _shallow(tensor: Tensor) -> Tensor:
    twin = object.__new__(type(tensor))
    twin.__dict__.update(tensor.__dict__)
    twin._deleter = None
    twin._wrapped_tensor = tensor
    return twin


def _deep_native(tensor: native.Tensor, memo: Dict[int, Any]) -> native.Tensor:
    """Copy the values of a tensor of the native interface, which a group may hold as a hyper-parameter."""
    workspace.check_readable(tensor, "a tensor that is to be copied")
    array = numpy.array(tensor.numpy())
    made = native.Tensor(array.shape, str(array.dtype))
    made._impl.FromNumpy(array, True)
    memo[id(tensor)] = made
    return made


def install() -> None:
    """Register the ways for exactly Dragon's two classes, and a clear error for subclasses of them."""
    if "__deepcopy__" not in native.Tensor.__dict__:
        native.Tensor.__deepcopy__ = _deep_native
    copyreg.pickle(Tensor, _reduce_tensor)
    copyreg.pickle(Parameter, _reduce_parameter)
    if "__copy__" not in Tensor.__dict__:
        Tensor.__copy__ = _shallow
        Tensor.__deepcopy__ = _deep
        Tensor.__reduce_ex__ = _reduce_subclass
