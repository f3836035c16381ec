# SPDX-License-Identifier: BSD-2-Clause
"""Compiles and links, in parallel, and only what is out of date."""

import json
import os
import subprocess
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Callable, List, Sequence

from .errors import BuildError
from .libraries import Library, Unit
from .toolchain import Compiler

Log = Callable[[str], None]


def build_library(library: Library, compiler: Compiler, root: Path, build_dir: Path, log: Log) -> Path:
    """Bring `library` up to date in `build_dir` and return its path."""
    objects = compile_units(library, compiler, root, build_dir, log)
    target = build_dir / library.file_name
    command = [*compiler.command, *library.shared_flags]
    command += [str(path) for path in objects] + list(library.link_flags)
    if not _is_current(target, command, [*objects, *library.link_inputs]):
        log(f"linking {library.file_name}")
        _run(command, target, root, log)
    return target


def jobs() -> int:
    """Return how many compilers may run at a time."""
    named = os.environ.get("DRAGON_OPTIM_JOBS", "")
    return max(1, int(named)) if named.isdigit() else min(8, len(os.sched_getaffinity(0)))


def compile_units(library: Library, compiler: Compiler, root: Path, build_dir: Path, log: Log) -> List[Path]:
    """Bring the objects of `library` up to date in `build_dir` and return their paths."""
    objects = [build_dir / unit.source.with_suffix(".o") for unit in library.units]
    commands = [_compile_command(unit, target, compiler) for unit, target in zip(library.units, objects)]
    stale = [
        index
        for index, (target, command) in enumerate(zip(objects, commands))
        if not _is_current(target, command, _dependencies(target, root))
    ]
    if stale:
        log(f"compiling {len(stale)} of {len(objects)} files of {library.file_name}, {jobs()} at a time")

    def compile_one(index: int) -> None:
        start = time.monotonic()
        _run(commands[index], objects[index], root, log)
        log(f"  {library.units[index].source} ({time.monotonic() - start:.0f} s)")

    with ThreadPoolExecutor(jobs()) as pool:
        futures = [pool.submit(compile_one, index) for index in stale]
        done, pending = wait(futures, return_when=FIRST_EXCEPTION)
        for future in pending:
            future.cancel()
    for future in done:
        future.result()
    return objects


def _compile_command(unit: Unit, target: Path, compiler: Compiler) -> List[str]:
    depends = ["-MMD", "-MF", str(_dependency_file(target))]
    return [*compiler.command, *unit.flags, *depends, "-c", str(unit.source)]


def _run(command: Sequence[str], target: Path, root: Path, log: Log) -> None:
    """Run `command -o target`, so that an interrupted run leaves no half-written target."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    started = time.time_ns()
    run = subprocess.run(
        [*command, "-o", str(unfinished)],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    output = run.stdout.decode(errors="replace").strip()
    if run.returncode:
        unfinished.unlink(missing_ok=True)
        raise BuildError(f"this command failed:\n{' '.join(command)}\n{output}")
    if output:
        log(output)
    # A source edited while its compiler ran is newer than the start, and so is compiled again.
    os.utime(unfinished, ns=(started, started))
    _command_file(target).write_text(json.dumps(list(command)), encoding="utf-8")
    os.replace(unfinished, target)


def _is_current(target: Path, command: Sequence[str], inputs: Sequence[Path]) -> bool:
    """Tell whether `target` was made by this command from inputs that have not changed since."""
    if not inputs or not target.exists() or not all(path.exists() for path in inputs):
        return False
    try:
        made_by = json.loads(_command_file(target).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    age = target.stat().st_mtime_ns
    return made_by == list(command) and all(path.stat().st_mtime_ns <= age for path in inputs)


def _dependencies(target: Path, root: Path) -> List[Path]:
    """Read the source and headers that the compiler wrote down when it made `target`."""
    try:
        text = _dependency_file(target).read_text(encoding="utf-8")
    except OSError:
        return []
    _, _, files = text.replace("\\\n", " ").partition(": ")
    return [root / name for name in files.split()]


def _dependency_file(target: Path) -> Path:
    return target.with_suffix(".d")


def _command_file(target: Path) -> Path:
    return target.with_name(target.name + ".command")
