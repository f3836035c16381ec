# SPDX-License-Identifier: BSD-2-Clause
"""Records what PyTorch writes, and the digests of our files that PyTorch has accepted; see README.md.

DRAGON_OPTIM_TORCH_PYTHON=... python -m tests.checkpoint.record
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from pathlib import Path

from dragon_optim import checkpoint
from tests.checkpoint import ours
from tests.checkpoint.support import RECORDED, ROOT, described, environment

VARIABLE = "DRAGON_OPTIM_TORCH_PYTHON"


def torch_side(job: str, folder, module: str = "torch_side") -> str:
    """Let real PyTorch do a job."""
    done = subprocess.run(
        [os.environ[VARIABLE], "-m", f"tests.checkpoint.{module}", job, str(folder)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_ours(folder: Path, cases) -> None:
    """Save the cases, and what they hold."""
    files = {}
    for name, make in cases.items():
        value = make()
        checkpoint.save(value, folder / f"{name}.pt")
        files[name] = described(value)
    (folder / "expected.json").write_text(json.dumps({"files": files}))


def digest(path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def main() -> None:
    for old in RECORDED.glob("*.pt"):
        old.unlink()
    torch_side("write", RECORDED)
    version = json.loads((RECORDED / "expected.json").read_text())["torch"]
    with tempfile.TemporaryDirectory() as folder:
        write_ours(Path(folder), ours.CASES)
        print(torch_side("check", folder), end="")
        digests = {name: digest(Path(folder) / f"{name}.pt") for name in ours.CASES}
    (RECORDED / "ours.json").write_text(json.dumps({"torch": version, "sha256": digests}, indent=1) + "\n")
    print(f"{sum(each.stat().st_size for each in RECORDED.iterdir())} bytes in {RECORDED.name}/")


if __name__ == "__main__":
    main()
