# SPDX-License-Identifier: BSD-2-Clause
"""What may stand in ``group['params']``, and PyTorch's words for what may not."""

from typing import Any, Container, Dict, Iterable, List, Sequence, Tuple

import numpy
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon import library, tensors, versions, workspace
from dragon_optim._warnings import warn

_DTYPES = ("float16", "float32", "float64")


def type_name(value: Any) -> str:
    """The name of a value's type as a user writes it."""
    return (
        "dragon.vm.torch.Tensor"
        if type(value) is Tensor
        else f"{type(value).__module__}.{type(value).__qualname__}"
    )


def printable(value: Any) -> Any:
    """The value, with words for each tensor in it that Dragon cannot print without ending the process."""
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(printable(each) for each in value)
    if type(value) is numpy.ndarray and value.dtype == object:
        return printable(value.tolist())
    if type(value) is dict:
        return {key: printable(each) for key, each in value.items()}
    if tensors.is_tensor(value):
        try:
            workspace.check_readable(value, type_name(value))
        except RuntimeError as error:
            return f"<{error}>"
    return value


def brief(value: Any) -> str:
    """What an error shows of a value from anywhere: the type of what is not plain. Calls nobody's repr."""
    if type(value) in (list, tuple):
        parts = ", ".join(map(brief, value[:10])) + (", ..." if len(value) > 10 else "")
        return f"[{parts}]" if type(value) is list else f"({parts}{',' if len(value) == 1 else ''})"
    if type(value) is dict and len(value) <= 10:
        return "{" + ", ".join(f"{brief(key)}: {brief(each)}" for key, each in value.items()) + "}"
    if value is None or type(value) in (bool, int, float, str):
        text = repr(value)
        return text if len(text) <= 100 else text[:100] + "..."
    return f"a {type_name(value)}"


def as_list(params: Any) -> List[Any]:
    """Return a group's parameters as a list; a single tensor is a list of one."""
    if isinstance(params, Tensor):
        return [params]
    if isinstance(params, (set, frozenset)):
        raise TypeError(
            "optimizer parameters need to be organized in ordered collections, but the ordering of tensors "
            "in sets will change between runs. Please use a list instead."
        )
    if isinstance(params, (str, bytes, dict)) or not isinstance(params, Iterable):
        remedy = ": pass its parameters()" if hasattr(params, "parameters") else ""
        raise TypeError(f"params must be an iterable of Tensors, but got {type_name(params)}{remedy}")
    return list(params)


def split_names(params: Sequence[Any]) -> Tuple[List[Any], List[str]]:
    """Divide ``(name, tensor)`` pairs. Without names the second list is empty."""
    named = [isinstance(each, tuple) for each in params]
    if not any(named):
        return list(params), []
    if not all(named):
        raise ValueError("all optimizer params should be with/without names. Some param names are missing")
    for each in params:
        if len(each) != 2 or not isinstance(each[0], str):
            got = ", ".join(type_name(part) for part in each)  # not repr(): Dragon dies of an empty tensor's
            raise TypeError(f"a named parameter must be a pair (str, Tensor), but got ({got})")
    return [tensor for _, tensor in params], [name for name, _ in params]


def check_lists(groups: Any) -> None:
    """Raise unless this is a list of dicts, each with a list of tensors under ``params``."""
    if not isinstance(groups, (list, tuple)):
        raise TypeError(f"param_groups must be a list of dicts, but got {type_name(groups)}")
    for number, group in enumerate(groups):
        if not isinstance(group, dict):
            raise TypeError(f"param_groups[{number}] must be a dict, but got {type_name(group)}")
        if "params" not in group:
            raise KeyError(f"param_groups[{number}] lacks 'params'; set it to a list of Tensors")
        if not isinstance(group["params"], (list, tuple)):
            raise TypeError(
                f"param_groups[{number}]['params'] must be a list of Tensors, but got "
                f"{type_name(group['params'])}"
            )
        for param in group["params"]:
            if not isinstance(param, Tensor):
                raise TypeError(
                    f"optimizer can only optimize Tensors, but one of the params is {type_name(param)}"
                )


def check(params: Sequence[Any], home: workspace.Workspace, allow_non_leaf: bool = False) -> None:
    """Raise unless every element is a leaf tensor of floats on a device that we have, in this workspace."""
    devices = library.devices()
    for position, param in enumerate(params):
        workspace.check_tensor(param, home, f"parameter {position}")
        if not allow_non_leaf and not param.is_leaf:
            raise ValueError(
                f"can't optimize a non-leaf Tensor (parameter {position}, of shape {tuple(param.shape)})"
            )
        if not allow_non_leaf and versions.has_hidden_history(param):
            raise RuntimeError(
                f"the history of parameter {position} is hidden by as_leaves() of another optimizer: what is "
                "recorded of it would be overwritten. Step after the closure or the `with` block."
            )
        if param.dtype not in _DTYPES:
            raise TypeError(
                f"parameter {position} is {param.dtype}, but only {', '.join(_DTYPES)} can be optimized: "
                "convert it, or leave it out of the group."
            )
        if param.device.type not in devices:
            raise RuntimeError(
                f"parameter {position} is on {param.device}, for which this dragon_optim was not built: "
                "move the model by `model.cpu()`."
            )


def check_place(place: Tuple[str, int], what: str) -> None:
    """Raise unless we have operators for this device, on which a call is to run."""
    if place[0] not in library.devices():
        raise RuntimeError(
            f"{what} under dragon.device('{place[0]}', {place[1]}), for which this dragon_optim was not "
            "built: train under dragon.device('cpu')"
        )


def check_differentiable(params: Sequence[Tensor], number: int) -> None:
    """Raise unless a recorded step can let these parameters of a group become other tensors."""
    objects: Dict[int, Tensor] = {}
    for position, param in enumerate(params):
        if param.device.type != "cpu":
            raise ValueError(
                f"parameter {position} of group {number} is on {param.device}, but differentiable=True "
                "runs on the CPU only: move the model by `model.cpu()`."
            )
        if param.dtype == "float16":
            raise TypeError(
                f"parameter {position} of group {number} is float16, but differentiable=True needs float32 "
                "or float64: convert the model by `model.float()`."
            )
        if objects.setdefault(tensors.identity(param), param) is not param:
            raise ValueError(
                f"parameter {position} of group {number} shares its memory with another Tensor object of the "
                "group, and could not follow it with differentiable=True: let both be one object."
            )


def check_duplicates(groups: Sequence[Sequence[Tensor]], known: Container[Tuple[int, ...]]) -> None:
    """Raise for a parameter in two groups; warn, as PyTorch does, for one that stands twice in a group.

    Of a group whose list of ids is `known` was warned already.

    Compared by Dragon's tensor object: ``==`` between tensors is element-wise, and two Parameters may wrap
    one tensor.
    """
    owner: Dict[int, int] = {}
    repeated = False
    for number, params in enumerate(groups):
        for param in params:
            first = owner.setdefault(tensors.identity(param), number)
            if first != number:
                raise ValueError(
                    "some parameters appear in more than one parameter group (one of shape "
                    f"{tuple(param.shape)} in groups {first} and {number})"
                )
        if tuple(map(id, params)) not in known:
            repeated = repeated or len({tensors.identity(param) for param in params}) < len(params)
    if repeated:
        warn(
            "optimizer contains a parameter group with duplicate parameters; in future, this will cause an "
            "error; see github.com/pytorch/pytorch/issues/40967 for more information"
        )
