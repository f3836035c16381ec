# SPDX-License-Identifier: BSD-2-Clause
"""The state dicts of schedulers, exchanged with real PyTorch. Run by a Python that has torch.

python -m tests.checkpoint.torch_schedules write FOLDER    # a file for each case, from its middle
python -m tests.checkpoint.torch_schedules check FOLDER    # goes on from our files
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import torch

from tests.golden import schedules
from tests.golden.record_schedules import optimizer


def write(folder: Path) -> None:
    for name, case in schedules.CASES.items():
        found = schedules.run(case, optimizer, torch.optim.lr_scheduler)
        torch.save(found["middle"], folder / f"{name}.pt")


def check(folder: Path) -> None:
    recorded = schedules.load()["cases"]
    for name, case in schedules.CASES.items():
        start = torch.load(folder / f"{name}.pt", weights_only=True)
        for group in start["groups"]:
            group.pop("beta1", None)
        found = schedules.run(case, optimizer, torch.optim.lr_scheduler, start=start)
        np.testing.assert_array_equal(found["lr"], recorded[name]["lr"][case.steps // 2 :], name)
    print(f"goes on from {len(schedules.CASES)} files")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    {"write": write, "check": check}[sys.argv[1]](Path(sys.argv[2]))
