# SPDX-License-Identifier: BSD-2-Clause
"""Names in a workspace: ours, and those that Dragon uses again.

Dragon gives the name of a dead tensor to the next new one, and the gradient hangs on the name: a new
parameter would inherit the gradient of a dead one. Two things keep ghosts away.

*Our own tensors* (states, sums, hyper-parameters) are named by a counter and their names go to a pool of our
own. The last holder of such a tensor gives its memory back.

*A name under which a gradient was ever stored* does not go back to Dragon's pool: it is retired. Clearing
the gradient instead would leave an empty tensor, at which stock ``zero_grad()`` ends the process. The
memory of retired tensors is given back beyond `_RETIRED_BYTES`, the oldest first: a numpy view of a dead
gradient lives on for a while, as it does in stock Dragon. A retired name costs about a kilobyte;
beyond `_RETIRED_NAMES` the oldest are used again after all, until they get a gradient again: otherwise each
result of an operator that has such a name would be retired in its turn.
"""

import collections
import contextlib
import gc
import heapq
import sys
import weakref
from typing import Any, Deque, Dict, Iterator, List, Set

from dragon.vm.torch.core.cpp import device as Device
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon import left_behind, tape, wrapping
from dragon_optim._dragon.workspace import Workspace

PRIVATE = "DragonOptim/Capture/"  # of the names that captured functions use, and nobody else
DRAGON_POOL = "_dragon_optim_true_pool"  # attribute: a workspace's own pool, while another is in its place
_PREFIX = "optim_"  # with its number short enough for a C++ string that allocates nothing
_POOL = "_dragon_optim_tensor_pool"
_VERSIONS = "_dragon_optim_version_names"
_RETIRED_NAMES = 16384
_RETIRED_BYTES = 64 << 20


class TensorPool:
    """Makes tensors that give their memory and their name back when the last reference is dropped."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = weakref.ref(workspace)
        self._free: List[int] = []
        self._made = 0

    def new(self, device: Device) -> Tensor:
        """Return a tensor without memory. It keeps the workspace alive."""
        workspace = self._workspace()
        assert workspace is not None
        if self._free:
            # The smallest: an optimizer made anew gets the names of the dead one, and so its graphs.
            number = heapq.heappop(self._free)
        else:
            self._made += 1
            number = self._made
        name = f"{_PREFIX}{number}"
        return Tensor(device=device, impl=workspace.create_tensor(name), deleter=_Owner(self, workspace))

    def release(self, workspace: Workspace, name: str) -> None:
        """The last reference to the tensor is gone."""
        workspace.get_tensor(name).Reset()
        left_behind.note_release(workspace, name)
        heapq.heappush(self._free, int(name[len(_PREFIX) :]))

    @property
    def made(self) -> int:
        """How many names this pool has ever made: what a workspace keeps of dead optimizers."""
        return self._made


class _Owner:
    """What Dragon's ``Tensor.__del__`` calls; it reads the tensor's name in memory of the workspace."""

    __slots__ = ("_pool", "_workspace")

    def __init__(self, pool: TensorPool, workspace: Workspace) -> None:
        self._pool = pool
        self._workspace = workspace

    def release(self, name: str) -> None:
        self._pool.release(self._workspace, name)


def unique_name(workspace: Workspace, what: str) -> str:
    """Return a name that no graph or operator of the workspace has yet."""
    return workspace.unique_name("DragonOptim/" + what, namespace="DragonOptim", zero_based=False)


def gradient_name(parameter: Tensor) -> str:
    """The name under which Dragon's backward stores the gradient of a leaf."""
    return parameter._impl.name + "_grad"


def tensor_pool(workspace: Workspace) -> TensorPool:
    """The one pool of a workspace. It is the workspace's attribute: this module may be imported anew."""
    pool = workspace.__dict__.get(_POOL)
    if pool is None:
        pool = workspace.__dict__[_POOL] = TensorPool(workspace)
    return pool


def dragon_pool(workspace: Workspace) -> Any:
    """The pool that Dragon made for a workspace."""
    return workspace.__dict__.get(DRAGON_POOL, workspace._handle_pool)


def use_again(workspace: Workspace, name: str) -> None:
    """Give a private name back. Nobody looks for a gradient under it, so it need not be retired."""
    _release(dragon_pool(workspace), name)


def retire(workspace: Workspace, name: str) -> None:
    """Keep a name out of all pools as long as somebody may read its tensor, or its gradient."""
    _retired.setdefault(workspace, _RetiredNames()).retire(workspace, name)


def is_held(workspace: Workspace, name: str, besides: int = 0) -> bool:
    """Whether somebody but `besides` holds the tensor of this name, as an alias like `.data` does."""
    tensor = workspace.get_tensor(name)
    # Two references: the variable, and the argument of getrefcount.
    return tensor is not None and sys.getrefcount(tensor) > 2 + besides


class _RetiredNames:
    """The names of dead tensors of one workspace under which a gradient is, or was, stored."""

    def __init__(self) -> None:
        self._names: Deque[str] = collections.deque()  # the oldest first
        # Those with memory still, and its bytes.
        self._full: collections.OrderedDict[str, int] = collections.OrderedDict()
        self._bytes = 0
        self._used_again: Set[str] = set()

    def is_used_again(self, name: str) -> bool:
        """Whether a name was retired before, and no longer is."""
        return name in self._used_again

    def retire(self, workspace: Workspace, name: str) -> None:
        self._used_again.discard(name)
        dead = (workspace.get_tensor(name), workspace.get_tensor(name + "_grad"))
        size = sum(tensor.nbytes for tensor in dead if tensor is not None)
        self._names.append(name)
        self._full[name] = size
        self._bytes += size
        self._give_memory_back(workspace)
        if len(self._names) > _RETIRED_NAMES:
            self._use_oldest_again(workspace)

    def _give_memory_back(self, workspace: Workspace) -> None:
        for _ in range(len(self._full)):
            if self._bytes <= _RETIRED_BYTES:
                return
            name, size = self._full.popitem(last=False)
            if _reset_unless_held(workspace, name):
                self._bytes -= size
            else:
                self._full[name] = size

    def _use_oldest_again(self, workspace: Workspace) -> None:
        name = self._names.popleft()
        if _reset_unless_held(workspace, name):
            self._bytes -= self._full.pop(name, 0)
            self._used_again.add(name)
            use_again(workspace, name)
        else:
            self._names.append(name)


def _reset_unless_held(workspace: Workspace, name: str) -> bool:
    """Give the memory of a dead tensor and its gradient back. Return whether nobody holds either.

    A `.grad`, or an alias like `.data`, may still be read, and reading a tensor that was Reset would end the
    process.
    """
    free = True
    for each in (name, name + "_grad"):
        if is_held(workspace, each):
            free = False
        else:
            reset(workspace, each)
    return free


def reset(workspace: Workspace, name: str) -> None:
    """Give the memory of the tensor of this name back, if there is one."""
    tensor = workspace.get_tensor(name)
    if tensor is not None:
        tensor.Reset()


class _VersionNames:
    """The names of versions that are free: a pool of their own beside Dragon's.

    A version may have had a gradient, of which an empty tensor stays behind. To retire the name, as that of
    another tensor, would let the many versions of a parameter pile up.
    """

    def __init__(self) -> None:
        self.handles: Dict[str, List[int]] = collections.defaultdict(list)
        self.of_dragon: Any = None  # Dragon's own, while ours stand in their place


@contextlib.contextmanager
def for_versions(workspace: Workspace) -> Iterator[None]:
    """Let Dragon take names for versions, and for the operators that make them, from their own pool."""
    pool, ours = workspace._handle_pool, _version_names(workspace)
    if pool._handles is not ours.handles:  # it is where another thread does the same
        ours.of_dragon = pool._handles
    pool._handles = ours.handles
    try:
        yield
    finally:
        pool._handles = ours.of_dragon


def _version_names(workspace: Workspace) -> _VersionNames:
    found: _VersionNames = workspace.__dict__.setdefault(_VERSIONS, _VersionNames())
    return found


def give_back(workspace: Workspace, name: str) -> None:
    """Give the name of a version back, and the memory of its tensor and its gradient.

    Where somebody still holds an alias or the gradient, both are retired.
    """
    tape.forget(workspace, name)
    left_behind.note_end(workspace, name)
    if is_held(workspace, name) or is_held(workspace, name + "_grad"):
        retire(workspace, name)
        return
    for each in (name, name + "_grad"):
        reset(workspace, each)
    give_handle_back(workspace, name)


def give_handle_back(workspace: Workspace, name: str) -> None:
    """Give the name of an operator back that made versions."""
    key, index = name.rsplit("_", 1)
    heapq.heappush(_version_names(workspace).handles[key], int(index))


_retired: "weakref.WeakKeyDictionary[Workspace, _RetiredNames]" = weakref.WeakKeyDictionary()
_release = Workspace.HandlePool.release


def _retire(workspace: Workspace, name: str) -> bool:
    """Keep `name` out of Dragon's pool if a gradient is stored under it. Return whether one is."""
    gradient = workspace.get_tensor(name + "_grad")
    if gradient is None:
        return False
    known = _retired.get(workspace)
    if gradient.size == 0 and known is not None and known.is_used_again(name):
        return False
    tape.forget(workspace, name)
    retire(workspace, name)
    return True


def _release_or_retire(pool: Any, handle: str) -> None:
    """``HandlePool.release``: fires exactly when the last owner of a name dies."""
    workspace = pool._weak_parent()
    if workspace is not None:
        left_behind.note_release(workspace, handle)
    # Names of operators and of results on the tape carry no gradient of their own, unless the tape says so;
    # they are by far the most, and a look at the workspace costs most of a microsecond.
    if (
        workspace is not None
        and ("Variable_" in handle or tape.is_leaf(workspace, handle))
        and _retire(workspace, handle)
    ):
        return
    _release(pool, handle)


def _retire_ghosts(workspace: Workspace) -> None:
    """Retire the names that lie in Dragon's pool already, from before this package was imported."""
    for key, indices in workspace._handle_pool._handles.items():
        if "Variable" in key:
            indices[:] = sorted(index for index in indices if not _retire(workspace, f"{key}_{index}"))


def install() -> None:
    """Keep gradients of dead tensors from new ones, from now on, in every workspace."""
    if not wrapping.install(Workspace.HandlePool, "release", _release_or_retire):
        return
    for each in gc.get_objects():  # the workspaces that there are already; nothing else lists them
        if type(each) is Workspace:
            _retire_ghosts(each)
