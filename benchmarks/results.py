# SPDX-License-Identifier: BSD-2-Clause
"""The results of one run, as its JSON file holds them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Sequence

from benchmarks.cases import Case
from benchmarks.summary import gigabytes_per_second, ratio

LIMIT, OURS, CAPTURED, STOCK = "limit", "dragon_optim", "captured", "stock"
FOR_LOOP, FOREACH, COMPILED, TORCH = "torch for-loop", "torch foreach", "torch.compile", "torch"
# In the order of the tables.
SIDES = (LIMIT, OURS, CAPTURED, STOCK, FOR_LOOP, FOREACH, COMPILED, TORCH)


# CPUs that other programs may keep busy without a word about it.
DISTURBING = 0.1


@dataclass(frozen=True)
class Measured:
    """One case, and what was found."""

    entry: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.entry[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def label(self) -> str:
        """The name without what is so in most cases."""
        kind = "" if self.kind == "step" else f"{self.kind}, "
        dtype = "" if self.dtype == "float32" else f", {self.dtype}"
        variant = "" if self.kind in ("clip_grad_norm_", "sum_grad", "zero_grad") else f", {self.variant}"
        threads = ", 1 thread" if self.threads == 1 else ""
        return f"{kind}{self.parameters}{variant}{dtype}{threads}"

    @property
    def disturbed(self) -> bool:
        return self.other_programs >= DISTURBING

    def has(self, *sides: str) -> bool:
        return all(side in self.sides for side in sides)

    def median(self, side: str) -> float:
        return self.sides[side]["median"]

    def half_spread(self, side: str) -> float:
        """Half the distance of the quartiles."""
        return (self.sides[side]["upper_quartile"] - self.sides[side]["lower_quartile"]) / 2

    def ratio(self, above: str, below: str) -> float:
        """How many times as long the first takes as the second; the median of the rounds' ratios."""
        return ratio(self.sides[above]["samples"], self.sides[below]["samples"])

    def gigabytes_per_second(self, side: str) -> float:
        return gigabytes_per_second(self.bytes, self.median(side))


class Results:
    """All cases of a run, and what they depend on."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.measured = [Measured(entry) for entry in content["cases"]]
        self._by_name = {measured.name: measured for measured in self.measured}

    @classmethod
    def read(cls, path: Path) -> Results:
        return cls(json.loads(path.read_text(encoding="utf-8")))

    def find(self, case: Case) -> Measured | None:
        """What was found for a case, if it was measured."""
        return self._by_name.get(case.name)

    def of_kinds(self, kinds: Sequence[str]) -> list[Measured]:
        return [measured for measured in self.measured if measured.kind in kinds]

    @property
    def state_buffers(self) -> dict[str, float]:
        return self.content["state_buffers"]

    @property
    def anatomy(self) -> dict[str, dict[str, float]]:
        """The parts of small steps; nothing where they were not measured."""
        return self.content.get("anatomy", {})

    @property
    def commit(self) -> str:
        """Short, with the + of a commit that was changed."""
        return re.sub(r"^(\w{9})\w*", r"\1", self.content["commit"] or "unknown")

    def surroundings(self) -> str:
        """Machine, versions, commit and date in two sentences."""
        machine, versions = self.content["machine"], self.content["versions"]
        cache = next((cache for cache in reversed(machine["caches"])), "unknown caches")
        torch = f"PyTorch {versions['torch']}" if "torch" in versions else "no PyTorch"
        disturbed = any(measured.disturbed for measured in self.measured)
        note = f" (!): other programs kept {DISTURBING} CPUs busy, or more." if disturbed else ""
        return (
            f"{machine['cpu']}, {machine['cpus']} CPUs, {cache}, {machine['instruction set']}; "
            f"Dragon {versions['dragon']}, {torch}. "
            f"Measured on {self.content['date'][:10]} at commit {self.commit}.{note}"
        )
