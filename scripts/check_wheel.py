# SPDX-License-Identifier: BSD-2-Clause
"""Check a built wheel: its tag, that everything a user needs is in it, and nothing else.

Usage: check_wheel.py FILE
"""

import json
import platform
import sys
import zipfile
from pathlib import Path, PurePosixPath
from typing import List

NEEDED = (
    "dragon_optim/__init__.py",
    "dragon_optim/py.typed",
    "dragon_optim/_lib/libdragon_optim.so",
    "dragon_optim/_lib/libdragon_optim_kernels.so",
    "dragon_optim/_lib/build_info.json",
)
BUILD_INFO_KEYS = {"dragon_version", "dragon_git_version", "compiler", "machine"}
ALLOWED_SUFFIXES = {".py", ".pyi", ".so", ".json", ".typed"}


def problems(path: Path) -> List[str]:
    """Return what is wrong with the wheel at `path`, one sentence each."""
    found = []
    tag = path.stem.split("-", 2)[2]
    if tag != f"py3-none-linux_{platform.machine()}" and not tag.startswith("py3-none-manylinux"):
        found.append(f"its tag is {tag}: it must serve every Python 3 of one platform")
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        found += [f"{name} is missing" for name in NEEDED if name not in names]
        for name in names:
            top = PurePosixPath(name).parts[0]
            if top.endswith(".dist-info"):
                continue
            if top != "dragon_optim" or PurePosixPath(name).suffix not in ALLOWED_SUFFIXES:
                found.append(f"{name} does not belong into a wheel")
        if not any(PurePosixPath(name).name == "LICENSE" for name in names):
            found.append("it has no LICENSE")
        if NEEDED[-1] in names and set(json.loads(wheel.read(NEEDED[-1]))) != BUILD_INFO_KEYS:
            found.append(f"{NEEDED[-1]} has other keys than {sorted(BUILD_INFO_KEYS)}")
    return found


if __name__ == "__main__":
    wheel_path = Path(sys.argv[1])
    wrong = problems(wheel_path)
    if wrong:
        raise SystemExit(f"{wheel_path.name}:\n" + "\n".join(wrong))
    print(f"{wheel_path.name}: {wheel_path.stat().st_size // 1024} KiB, as it should be")
