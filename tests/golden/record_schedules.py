# SPDX-License-Identifier: BSD-2-Clause
"""Record what PyTorch's schedulers make of the cases of schedules.py: `lr_scheduler_2.13.npz`.

python -m tests.golden.record_schedules            # in an environment with PyTorch 2.13
python -m tests.golden.record_schedules --check    # runs again and compares, bit for bit
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch

from tests.golden import schedules
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


def check(recorded) -> int:
    with np.load(schedules.PATH, allow_pickle=False) as kept:
        names = set(kept.files) | set(recorded)
        wrong = [
            name
            for name in sorted(names)
            if name not in kept.files
            or name not in recorded
            or kept[name].tobytes() != recorded[name].tobytes()
        ]
    print(f"{len(names)} arrays, differing: {wrong}")
    return len(wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    if parser.parse_args().check:
        raise SystemExit(1 if check(record()) else 0)
    np.savez_compressed(schedules.PATH, **record())
    print(f"{schedules.PATH.name}: {schedules.PATH.stat().st_size} bytes")


if __name__ == "__main__":
    main()
