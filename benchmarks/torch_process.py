# SPDX-License-Identifier: BSD-2-Clause
"""The other end of torch_side.py: starts PyTorch's process, and asks it for one turn at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.cases import Case
from benchmarks.timing import Turn

ROOT = Path(__file__).resolve().parents[1]
VARIABLE = "DRAGON_OPTIM_TORCH_PYTHON"
USUAL = ROOT / ".venv-torch" / "bin" / "python"


class TorchError(RuntimeError):
    """PyTorch cannot take part, and why."""


def find_python() -> str:
    """The Python that has torch, which the environment names or `make bench` has made."""
    named = os.environ.get(VARIABLE)
    if named is None and not USUAL.exists():
        raise TorchError(
            f"no Python with PyTorch: `sh scripts/torch_environment.sh {USUAL.parents[1].name}` makes "
            f"one, or set {VARIABLE}"
        )
    return named or str(USUAL)


class TorchProcess:
    """PyTorch in its own process. What it prints goes to `log`."""

    def __init__(self, python: str, log: Path) -> None:
        # Its Python is another one and must not look for modules among ours. It compiles in its turn only.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
        self._log = log
        with open(log, "w") as file:
            try:
                self._process = subprocess.Popen(
                    [python, "-u", "-m", "benchmarks.torch_side"],
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=file,
                    text=True,
                )
            except OSError as error:
                raise TorchError(f"{python} does not run: {error.strerror}") from error
        self.versions: dict[str, str] = self.ask("versions")

    def ask(self, do: str, **arguments: Any) -> Any:
        """Have something done, and wait for it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(dict(arguments, do=do)) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            last = self._log.read_text().strip().splitlines()[-1:] or ["it printed nothing"]
            raise TorchError(f"PyTorch's process has ended: {last[0]}")
        answer = json.loads(line)
        if "error" in answer:
            raise TorchError(answer["error"])
        return answer["result"]

    @property
    def number(self) -> int:
        return self._process.pid

    def turns(self, case: Case, folder: Path) -> dict[str, Turn]:
        """The sides of a case."""
        names = self.ask("prepare", case=dataclasses.asdict(case), folder=str(folder))
        return {name: functools.partial(self._turn, name) for name in names}

    def _turn(self, name: str, repetitions: int, long: bool) -> float:
        return self.ask("turn", name=name, repetitions=repetitions, long=long)

    def close(self) -> None:
        """Let it end: it reads no more lines."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it may be gone
            self._process.stdin.close()
        self._process.wait()
