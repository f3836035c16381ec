# SPDX-License-Identifier: BSD-2-Clause
"""Kills a process that saves, again and again, and looks at the file after each. Prints what it has seen.

python -m tests.checkpoint.killing PATH ELEMENTS KILLS
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from dragon_optim import checkpoint


def save_for_ever(path, contents):
    while True:
        for each in contents:
            checkpoint.save(each, path)


def number_of(path, size) -> int:
    """Which of the contents the file has, all of it."""
    loaded = checkpoint.load(path)
    number = loaded["number"]
    expected = np.full(size, number, "float32")
    if not all(np.array_equal(loaded[name].numpy(), expected) for name in ("first", "last")):
        raise AssertionError("the file is a mixture")
    return number


def main(path: Path, size: int, kills: int) -> None:
    delay = random.Random(size)
    contents = []
    for i in range(2):
        array = np.full(size, i, "float32")
        contents.append({"first": array, "number": i, "last": array.copy()})
    checkpoint.save(contents[1], path)
    seen, unfinished = [0, 0], 0
    for _ in range(kills):
        saver = os.fork()
        if saver == 0:
            save_for_ever(path, contents)
        time.sleep(delay.uniform(0.0, 0.03))
        os.kill(saver, signal.SIGKILL)
        os.waitpid(saver, 0)
        seen[number_of(path, size)] += 1
        for temporary in path.parent.glob(".*.tmp"):
            unfinished += 1
            temporary.unlink()
    print(json.dumps({"seen": seen, "unfinished": unfinished, "files": os.listdir(path.parent)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
