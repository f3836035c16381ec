# SPDX-License-Identifier: BSD-2-Clause
"""Under which names the gradients of tensors lie, for whoever reads or writes them beside an optimizer."""

from typing import Any, Iterable, Iterator, List, Optional, Sequence, Set

import numpy
from dragon.vm.torch.core.cpp import device as Device
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon import graphs, names, recording, tensors, workspace
from dragon_optim._dragon.workspace import Workspace


def recorder(home: Workspace) -> Optional[Any]:
    """What records this thread's calls in a workspace, if somebody does."""
    found = recording.active(home)
    return found if found is not None and found.in_this_thread else None


def check_homes(home: Workspace, params: Sequence[Tensor], what: str) -> None:
    """Raise unless all tensors live in `home`. `what` each of them is, in the error."""
    pool = home._handle_pool
    for position, param in enumerate(params):
        # The owner of its name, as most have it: then it is alive, and memory of a dead one is not touched.
        owner = getattr(param, "_wrapped_tensor", param)._deleter
        if owner is not pool or param._impl is None:
            workspace.check_home(param, home, f"{what} {position}")


def of(home: Workspace, params: Sequence[Tensor], known: Set[str]) -> List[Optional[str]]:
    """The name of each gradient that ``.grad`` shows, and of some that have no data now; else None.

    `known` are names of tensors of this workspace, and grows: a tensor that is there once will always be.
    """
    watching = recorder(home)
    if watching is not None:
        # A replay must ask the same questions, and these tensors must be as they are.
        watching.note_read(params)
        return [names.gradient_name(param) if param.grad is not None else None for param in params]
    found: List[Optional[str]] = [
        names.gradient_name(param) if param._requires_grad else None for param in params
    ]
    if known.issuperset(found):
        return found
    for position, name in enumerate(found):
        if name is not None and name not in known:
            if home.get_tensor(name) is None:
                found[position] = None
            else:
                known.add(name)
    return found


def names_of(home: Workspace, tensors: Sequence[Tensor]) -> List[str]:
    """The names of tensors themselves, each once."""
    watching = recorder(home)
    if watching is not None:
        watching.note_read(tensors)
    return list(dict.fromkeys(each._impl.name for each in tensors))


def dtypes(home: Workspace, names: Iterable[str]) -> Iterator[str]:
    """Yield the dtype of the tensor under each name; "" for one without data."""
    for name in names:
        tensor: Any = home.get_tensor(name)
        yield tensor.dtype if tensor is not None and tensor.size > 0 else ""


def of_stock_sum(home: Workspace, param: Tensor) -> Optional[str]:
    """The name of the sum that Dragon's own optimizers keep of a tensor's gradients; None without one."""
    name = names.gradient_name(param) + "_sum"
    return name if tensors.have_data(home, [name])[0] else None


def new_result(home: Workspace, device: Device) -> Tensor:
    """Return a tensor without data, as Dragon makes those of its operators' results."""
    return Tensor(device=device, impl=home.create_tensor(scope="Variable"), deleter=home._handle_pool)


def constant(watching: Any, value: float) -> str:
    """The name of a tensor that holds a number for as long as the recording lives."""
    made: graphs.HostArray = watching.constant(numpy.array([value]))
    return made.name
