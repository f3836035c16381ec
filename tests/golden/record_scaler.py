# SPDX-License-Identifier: BSD-2-Clause
"""Record what PyTorch's gradient scaler makes of the cases of scaling.py: `scaler_2.13.npz`.

python -m tests.golden.record_scaler            # in an environment with PyTorch 2.13
python -m tests.golden.record_scaler --check    # runs again and compares, bit for bit
"""

from __future__ import annotations

import json

import numpy as np
import torch

from tests.golden import record, recording, scaling


class Torch:
    """PyTorch's side of a case."""

    def __init__(self, foreach):
        self.foreach = foreach
        self._steps = {}

    scaler = staticmethod(torch.amp.GradScaler)
    snapshot = staticmethod(record.snapshot)
    clip = staticmethod(torch.nn.utils.clip_grad_norm_)

    def optimizer(self, params, **options):
        optimizer = torch.optim.RMSprop(params, foreach=self.foreach, **options)
        self._steps[optimizer] = 0
        optimizer.register_step_post_hook(self._count)
        return optimizer

    def _count(self, optimizer, args, kwargs):
        self._steps[optimizer] += 1

    def skipped(self, scaler, optimizer) -> bool:
        done, self._steps[optimizer] = self._steps[optimizer], 0
        return done == 0

    @staticmethod
    def parameter(array):
        return torch.nn.Parameter(torch.from_numpy(np.array(array)))

    @staticmethod
    def tensor(array):
        return torch.from_numpy(np.array(array))

    @staticmethod
    def values(tensor):
        return tensor.numpy().copy()

    @staticmethod
    def give(params, grads):
        for param, grad in zip(params, grads):
            param.grad = None if grad is None else torch.from_numpy(np.array(grad))


def run(case, dtype):
    """Train with correctly rounded square roots; see README.md."""
    with record.CorrectSqrt().active():
        loop, foreach = (scaling.run(case, dtype, Torch(each)) for each in (False, True))
    if loop.found != foreach.found or any(
        loop.arrays()[key].tobytes() != array.tobytes() for key, array in foreach.arrays().items()
    ):
        raise RuntimeError("PyTorch's foreach and for-loop differ")
    return loop


def record_cases() -> dict:
    arrays, cases = {}, {}
    for dtype in recording.DTYPES:
        for name, case in scaling.CASES.items():
            training = run(case, dtype)
            arrays.update({f"{dtype}/{name}/{key}": array for key, array in training.arrays().items()})
            cases[f"{dtype}/{name}"] = {
                "inputs": scaling.inputs_crc(case, dtype),
                "layout": recording.describe(training.snapshots[-1]),
                **training.found,
            }
    meta = {"format": scaling.FORMAT, "torch": torch.__version__, "cases": cases}
    return {"meta": np.array(json.dumps(meta)), **arrays}


def main():
    record.write_or_check_file(__doc__, scaling.PATH, record_cases)


if __name__ == "__main__":
    main()
