# SPDX-License-Identifier: BSD-2-Clause
"""Dragon's native interface: its tensors, its two modes, and what ``dragon.function`` runs."""

import hashlib
from typing import Any, Callable, NamedTuple, Optional, Sequence, Tuple

from dragon.core.autograph import context, graph_lib
from dragon.core.framework import context as scopes
from dragon.core.framework import proto_util
from dragon.core.framework.types import TensorBase as NativeTensor
from dragon.vm.torch.core.cpp import device as Device
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon import running, tensors
from dragon_optim._dragon.workspace import Workspace


def executing_eagerly() -> bool:
    """False while ``dragon.function`` builds its graphs, and under ``dragon.graph_mode()``."""
    return bool(context.executing_eagerly())


def is_tensor(value: Any) -> bool:
    """Whether this is a tensor of Dragon, of either interface, and was filled or declared."""
    return tensors.is_tensor(value) and value._impl is not None


def place() -> Tuple[str, int]:
    """Where Dragon's native operators run now: ``dragon.device()``, or the default. Variables follow."""
    found = scopes.get_device()
    return found.type, found.index


def as_parameter(variable: Any, place: Tuple[str, int]) -> Tensor:
    """The variable under the interface of ``dragon.vm.torch``. It keeps the variable alive."""
    if isinstance(variable, Tensor):
        return variable
    parameter = Tensor(device=Device(*place), impl=variable._impl)
    parameter._wrapped_tensor = variable
    return parameter


def follow(parameter: Tensor, place: Tuple[str, int]) -> None:
    """Let what `as_parameter` made of a native variable be somewhere else."""
    if isinstance(getattr(parameter, "_wrapped_tensor", None), NativeTensor):
        parameter._device = Device(*place)


def name(tensor: Any) -> str:
    """The name of a tensor in its workspace."""
    return tensor._impl.name


def explicit_weight_decay(variable: Any) -> Any:
    """The weight decay that the variable brings along, as Dragon's regularizers set it; or None."""
    return getattr(variable, "_weight_decay", None)


class Kind(NamedTuple):
    """What a gradient and its variable must share."""

    dtype: str
    shape: Tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} of shape {self.shape}"


def kind(tensor: Any) -> Kind:
    """The dtype and the shape of the data of a tensor: a symbolic one shows others."""
    return Kind(tensor._impl.dtype, tuple(tensor._impl.dims))


def has_data(tensor: Any) -> bool:
    """Whether the tensor has a shape and memory."""
    return bool(tensor._impl.size > 0)


def fingerprint(pairs: Sequence[Tuple[Any, Any]], decays: Sequence[Optional[float]]) -> Any:
    """What tells these pairs of gradient and variable from others, while somebody holds them; or None.

    None where a gradient is missing, or is a tensor of the program's own: its name will be another's when it
    dies. What ``tape.gradient()`` gives lies in the workspace for ever, under the name of its variable.
    """
    if any(grad is None or grad._deleter is not None for grad, _ in pairs):
        return None
    return tuple((id(grad._impl), id(var._impl), decay) for (grad, var), decay in zip(pairs, decays))


def run_each(workspace: Workspace, operators: Sequence[Any], keep: bool) -> None:
    """Run operators, one after another.

    With `keep` the workspace keeps what it makes of them, for any of the same arguments on the same device.
    That saves much time with many tensors, and takes memory for ever.
    """
    for operator in operators if keep else ():
        read = (*operator.arg, operator.device_option)
        arguments = b"".join(each.SerializeToString(deterministic=True) for each in read)
        key = f"{operator.type}/{hashlib.sha256(arguments).hexdigest()}"
        operator.arg.add().CopyFrom(proto_util.make_argument("cache_key", key))
    running.operators(workspace, operators)


class Execution(graph_lib.GraphExec):
    """What a function under ``dragon.function`` returns to have `run` called after its graph, each time."""

    def __init__(self, run: Callable[[], None]) -> None:
        # Not the constructor of the base: it wants a graph that is there already.
        self._run = run

    def run(self) -> None:
        """Run it."""
        self._run()
