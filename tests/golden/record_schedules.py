# SPDX-License-Identifier: BSD-2-Clause
"""Record what PyTorch's schedulers make of the cases of schedules.py: `lr_scheduler_2.13.npz`.

python -m tests.golden.record_schedules            # in an environment with PyTorch 2.13
python -m tests.golden.record_schedules --check    # runs again and compares, bit for bit
"""

from __future__ import annotations

import json

import numpy as np
import torch

from tests.golden import schedules
from tests.golden.record import write_or_check_file
from tests.optim.bad_schedules import REFUSED

KINDS = {"rmsprop": torch.optim.RMSprop, "sgd": torch.optim.SGD, "adam": torch.optim.Adam}


def optimizer(case):
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate} for rate in case.rates]
    return KINDS[case.kind](groups)


def refusal(case):
    """The name of the exception that PyTorch's constructor raises; None if it takes the arguments."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate} for rate in (0.1, 0.2)]
    try:
        case.make(torch.optim.lr_scheduler, torch.optim.RMSprop(groups))
    except Exception as error:
        return type(error).__name__
    return None


def record() -> dict:
    arrays, cases = {}, {}
    for name, case in schedules.CASES.items():
        found = schedules.run(case, optimizer, torch.optim.lr_scheduler)
        arrays.update({f"{name}/{key}": found[key] for key in ("lr", "momentum")})
        cases[name] = {key: schedules.encode(found[key]) for key in ("middle", "end")}
    meta = {"format": schedules.FORMAT, "torch": torch.__version__, "cases": cases}
    meta["refused"] = {name: refusal(case) for name, case in REFUSED.items()}
    return {"meta": np.array(json.dumps(meta)), **arrays}


def main():
    write_or_check_file(__doc__, schedules.PATH, record)


if __name__ == "__main__":
    main()
