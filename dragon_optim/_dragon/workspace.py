# SPDX-License-Identifier: BSD-2-Clause
"""Guards: whose workspace a tensor lives in, and whether it is still there.

Dragon names tensors by workspace and looks names up in the workspace that is current in this thread. A name
that is not found ends the process or is silently skipped; memory of a workspace that was collected is gone.
So each question is asked here, before.

Dragon itself asks too late: the destructor of a tensor reads the tensor's name in memory of the workspace, to
give it to the workspace's pool of names. A model that outlives its workspace (it came back from a thread, or
from before ``reset_workspace()``) would end the process when it dies. `install` gives it another destructor.
"""

from typing import Any, Callable, Optional

from dragon.core.framework import workspace
from dragon.core.framework.tensor import Tensor as NativeTensor
from dragon.core.framework.workspace import Workspace
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon import wrapping

__all__ = ["Workspace", "check_current", "check_tensor", "current"]


def current() -> Workspace:
    """The workspace in which Dragon computes now, in this thread."""
    return workspace.get_workspace()


def check_current(
    home: Workspace, what: str, owner: str = "that the optimizer", remedy: str = "make a new optimizer"
) -> None:
    """Raise unless `home` is the current workspace. `owner` says in the error what was made there."""
    if current() is not home:
        raise RuntimeError(
            f"{what} was called under another Dragon workspace than the one {owner} was made in (each thread "
            "has its own, and reset_workspace() makes a new one): run it inside "
            f"`with workspace.as_default():` of that workspace, or {remedy}."
        )


def _owner_pool(tensor: Tensor) -> Optional[Any]:
    # A Parameter holds its handle through the tensor that it wraps.
    while tensor._deleter is None and hasattr(tensor, "_wrapped_tensor"):
        tensor = tensor._wrapped_tensor
    pool = tensor._deleter
    return pool if isinstance(pool, Workspace.HandlePool) else None


def check_tensor(tensor: Tensor, home: Workspace, what: str) -> None:
    """Raise unless `tensor` lives in `home` and has data. Touches its memory only when that is safe."""
    check_home(tensor, home, what)
    _check_data(tensor, what)


def check_home(tensor: Tensor, home: Workspace, what: str) -> None:
    """Raise unless `tensor` lives in `home`; it may be empty."""
    owner = _living_owner(tensor, what)
    if (owner is not None and owner is not home) or home.get_tensor(tensor._impl.name) is not tensor._impl:
        raise RuntimeError(f"{what} belongs to another Dragon workspace than the current one: {_REMEDY}.")


def is_home(tensor: Tensor, home: Workspace) -> bool:
    """Whether `tensor` lives in `home`, which asks nothing of a workspace that is gone."""
    try:
        check_home(tensor, home, "it")
    except RuntimeError:
        return False
    return True


def check_readable(tensor: Tensor, what: str) -> None:
    """Raise unless `tensor` has data, in whatever workspace: Dragon's ``numpy()`` would end the process."""
    _living_owner(tensor, what)
    _check_data(tensor, what)


def _living_owner(tensor: Tensor, what: str) -> Optional[Workspace]:
    if tensor._impl is None:
        raise RuntimeError(f"{what} has no data: it is a Tensor() that was never filled.")
    pool = _owner_pool(tensor)
    if pool is None:
        return None
    owner = pool._weak_parent()
    if owner is None:
        raise RuntimeError(f"{what} belongs to a Dragon workspace that is gone: make it anew.")
    return owner


def _check_data(tensor: Tensor, what: str) -> None:
    if tensor._impl.size == 0:
        raise RuntimeError(
            f"{what} has no data: its workspace was cleared, or the tensor was reset. Make it anew."
        )


_REMEDY = (
    "make the optimizer under `with workspace.as_default():` of the workspace that the parameters "
    "were made in"
)


def _die(tensor: Any) -> None:
    """``__del__`` of a tensor: give its name back, if there is a workspace to give it to.

    It is held meanwhile, for another thread may let go of it; most often its own, which ends. No name of this
    module is used: when Python ends they may be gone.
    """
    owner = tensor._deleter
    if owner is None:
        return
    parent = getattr(owner, "_weak_parent", None)  # of a pool of Dragon's; others hold the workspace
    held = True if parent is None else parent()
    if held is not None:
        owner.release(tensor._impl.name)


def _die_unless_symbolic(tensor: Any, die: Callable[[Any], None] = _die) -> None:
    """The same of Dragon's own interface, where a tensor may be a mere symbol."""
    if tensor._is_variable:
        die(tensor)


def install() -> None:
    """Let tensors die after their workspace, from now on, in every workspace."""
    wrapping.install(Tensor, "__del__", _die)
    wrapping.install(NativeTensor, "__del__", _die_unless_symbolic)
