# SPDX-License-Identifier: BSD-2-Clause
"""Dragon's process groups."""

from typing import Any, Dict, NamedTuple, Optional, Sequence

from dragon.core import distributed
from dragon.vm.torch.core.cpp import device as Device

from dragon_optim._dragon import graphs
from dragon_optim._dragon.workspace import Workspace


def group() -> Optional[Any]:
    """The process group of this thread, if it has more than one rank and this is one of them."""
    found = distributed.get_group()
    if found is None or found.size < 2 or distributed.get_rank() not in found.ranks:
        return None
    return found


def all_reduce(process_group: Any, names: Sequence[str], device: Device, reduction: str) -> Any:
    """Return the operator that reduces each tensor over the ranks in place, by ``MEAN`` or ``SUM``."""
    return graphs.operator(
        "Collective",
        names,
        names,
        device,
        operation="ALLREDUCE",
        reduction=reduction,
        root=0,
        **process_group.arguments,
    )


class Agreement(NamedTuple):
    """What all ranks found out together."""

    failed: bool  # on some rank
    same_layout: bool
    flagged: bool  # some rank has raised its flag


class Council:
    """One small collective of fixed size, so that ranks meet even when one of them has found an error."""

    def __init__(self, workspace: Workspace, process_group: Any) -> None:
        self._size = process_group.size
        self._ballot = graphs.HostArray(workspace, 4, "float64")
        self._graph = graphs.Graph(
            workspace, [all_reduce(process_group, [self._ballot.name], Device("cpu"), "SUM")]
        )

    @property
    def is_alive(self) -> bool:
        """False once the workspace was cleared."""
        return self._ballot.is_alive

    def agree(self, failed: bool, fingerprint: int, flag: bool) -> Agreement:
        """Tell the others, hear them. `fingerprint` is below 2**20, so that all sums are exact."""
        self._ballot.view[:] = failed, fingerprint, fingerprint * fingerprint, flag
        self._graph.run()
        failures, total, squares, flags = self._ballot.view.tolist()
        # The variance of the fingerprints is 0 exactly when all of them are equal; every rank computes it
        # from the same sums.
        return Agreement(failures > 0, self._size * squares == total * total, flags > 0)


def council(workspace: Workspace, process_group: Any) -> Council:
    """The council of a process group in a workspace, made at its first meeting."""
    of_workspace: Dict[str, Council] = workspace.__dict__.setdefault("_dragon_optim_councils", {})
    key = str(process_group.arguments)
    if key not in of_workspace or not of_workspace[key].is_alive:
        of_workspace[key] = Council(workspace, process_group)
    return of_workspace[key]
