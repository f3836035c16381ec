# SPDX-License-Identifier: BSD-2-Clause
"""How a script meets the other ranks, and how it tells its parent what it saw."""

from __future__ import annotations

import json
import sys

import dragon

distributed = dragon.core.distributed


class Meeting:
    """Both ranks in one group. What is reported goes to a file of this rank.

    The output of two ranks would mix.
    """

    def __init__(self):
        self.group = distributed.new_group([0, 1], backend="MPI")
        self.rank = distributed.get_rank()
        self._file = open(f"{sys.argv[1]}/rank-{self.rank}.jsonl", "a", encoding="utf-8")  # noqa: SIM115

    def report(self, scenario: str, result) -> None:
        self._file.write(json.dumps([scenario, result]) + "\n")
        self._file.flush()  # the next scenario may be the one that hangs

    def own_group(self):
        """A group of this rank alone. Every rank must call it."""
        return [distributed.new_group([rank], backend="MPI") for rank in (0, 1)][self.rank]
