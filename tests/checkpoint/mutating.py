# SPDX-License-Identifier: BSD-2-Clause
"""Loads mutated files and prints what came of it. Run in a process of its own, with little memory to spare.

python -m tests.checkpoint.mutating raw|smart SEED COUNT FOLDER
"""

from __future__ import annotations

import collections
import json
import random
import resource
import sys
import traceback
import warnings
from pathlib import Path

from dragon_optim import checkpoint
from tests.checkpoint import mutations, ours
from tests.checkpoint.support import RECORDED, described

SPARE = 512 << 20
TORCH_SEEDS = ("training", "shared", "plain_protocol_4", "parameters_protocol_5", "empty", "bfloat16")
OUR_SEEDS = ("dtypes", "parameters", "plain", "ordered")
# What Python announces when code is made or run, or something is reached outside of the process.
ALARMING = [
    "exec",
    "compile",
    "import",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.remove",
    "os.rename",
    "subprocess.Popen",
    "pickle.find_class",
    "marshal.loads",
    "ctypes.dlopen",
    "socket.connect",
]


class Watch:
    """Remembers the alarming events while it is on."""

    def __init__(self):
        self.on = False
        self.seen = []
        sys.addaudithook(self._hear)

    def _hear(self, event, arguments):
        if self.on and event in ALARMING:
            self.seen.append(event)


def seeds(folder: Path) -> list:
    files = [(RECORDED / f"{name}.pt").read_bytes() for name in TORCH_SEEDS]
    for name in OUR_SEEDS:
        checkpoint.save(ours.CASES[name](), folder / "seed.pt")
        files.append((folder / "seed.pt").read_bytes())
    return files


def limit_memory() -> None:
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + SPARE, size + SPARE))


def main(kind: str, seed: int, count: int, folder: Path) -> None:
    warnings.simplefilter("ignore")
    rng = random.Random(seed)
    files = seeds(folder)
    path = folder / "mutated.pt"
    contents = []
    for each in files:  # also so that what is imported at the first use is there
        path.write_bytes(each)
        contents.append(described(checkpoint.load(path)))
    limit_memory()
    watch = Watch()
    outcomes = collections.Counter()
    for number in range(count):
        place = rng.randrange(len(files))
        mutated = getattr(mutations, kind)(rng, files[place], files)
        if mutated == files[place]:
            outcomes["unchanged"] += 1
            continue
        path.write_bytes(mutated)
        watch.on = True
        try:
            loaded = checkpoint.load(path)
            outcome = "loaded"
        except checkpoint.CheckpointError as error:
            outcome = "failed" if "\n" in str(error) else "refused"
        except BaseException:
            (folder / f"failed_{kind}_{seed}_{number}.pt").write_bytes(mutated)
            traceback.print_exc()
            outcome = "failed"
        watch.on = False
        if outcome == "loaded" and kind == "raw":
            outcome = "equal" if described(loaded) in contents else "different"
        outcomes[outcome] += 1
    print(json.dumps({"outcomes": outcomes, "alarms": watch.seen}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
