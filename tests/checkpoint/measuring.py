# SPDX-License-Identifier: BSD-2-Clause
"""Prints by how many bytes the memory of this process grows at most while it saves or loads.

python -m tests.checkpoint.measuring save|load PATH BYTES
"""

from __future__ import annotations

import sys

import numpy as np
from dragon.vm import torch

from dragon_optim import checkpoint


def status(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(field + ":"))


def main(job: str, path: str, size: int) -> None:
    # All that is made once: imports, buffers, Dragon's own.
    checkpoint.save([torch.Tensor(np.zeros(10, "float32"))], path + ".small")
    checkpoint.load(path + ".small")
    value = None
    if job == "save":
        value = {"large": torch.Tensor(np.ones(size // 4, "float32")), "small": torch.ones(3)}
    # The high-water mark begins anew at what is resident now.
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    if job == "save":
        checkpoint.save(value, path)
    else:
        value = checkpoint.load(path)
    print(status("VmHWM") - before)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
