# SPDX-License-Identifier: BSD-2-Clause
"""The operators for CUDA in a Dragon that has none: run by its graphs, over an emulation of CUDA.

The sources are those of a build for a GPU, the headers of CUDA those in `emulated_cuda/`, here and in
`tests/kernels/`. There are three devices. Their memory is out of the host's reach, work on their streams is
not done before somebody waits for it, and Dragon's tensors are given memory that moves as in a Dragon with
CUDA. What that cannot show: threads and streams that race, and all that the emulation of the kernels leaves
out. With a GPU and a Dragon for it, `DRAGON_OPTIM_TESTS_DEVICE=cuda` lets the other files of this folder run
there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dragon
import pytest

import dragon_optim
from dragon_optim._dragon import library
from tests.kernels import emulation

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
EMULATION = HERE / "emulated_cuda"
PACKAGE = Path(dragon_optim.__file__).parent
DRAGON = Path(dragon.__file__).parent


def build(folder: Path) -> tuple[Path, Path]:
    """Make the library of operators as for a Dragon with CUDA, and the one that emulates CUDA for both."""
    sources = sorted((ROOT / "dragon_optim" / "csrc").glob("**/*.cc"))
    if not sources:
        pytest.skip("the sources are not here: the installed package is tested")
    if "cuda" in library.devices():
        pytest.skip("this Dragon has CUDA itself")
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no g++ is installed")
    include = [f"-I{EMULATION}", f"-I{emulation.EMULATION}", f"-I{ROOT}"]
    flags = [*emulation.FLAGS, "-DUSE_CUDA", *include, "-isystem", str(DRAGON / "include")]

    def compiled(source: Path) -> str:
        target = str(folder / f"{source.parent.name}-{source.name}.o")
        subprocess.check_call([compiler, "-x", "c++", *flags, "-c", str(source), "-o", target])
        return target

    devices = [emulation.EMULATION / "emulation.cc", EMULATION / "device.cc", EMULATION / "unified_memory.cc"]
    operators = [*sources, *emulation.kernels(), EMULATION / "dragon_cuda.cc"]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        objects = list(pool.map(compiled, [*devices, *operators]))

    def linked(name: str, objects: list, *options: str) -> Path:
        path = folder / name
        command = [compiler, "-shared", *objects, f"-Wl,-soname,{name}", "-Wl,-rpath,$ORIGIN", "-pthread"]
        subprocess.check_call([*command, *options, "-o", str(path)])
        return path

    cuda = linked("libemulated_cuda.so", objects[: len(devices)])
    libraries = [f"-L{folder}", "-lemulated_cuda", f"-L{PACKAGE / '_lib'}", "-ldragon_optim_kernels"]
    exports = f"-Wl,--version-script={ROOT / 'dragon_optim' / 'csrc' / 'exports.map'}"
    options = [*libraries, f"-L{DRAGON / 'lib'}", "-ldragon", "-Wl,--no-undefined", exports]
    return linked("libdragon_optim.so", objects[len(devices) :], *options), cuda


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """A folder with the package built for CUDA, and these tests."""
    folder = tmp_path_factory.mktemp("cuda")
    built = build(tmp_path_factory.mktemp("build"))
    shutil.copytree(PACKAGE, folder / "dragon_optim", ignore=shutil.ignore_patterns("__pycache__", "csrc"))
    for path in built:
        shutil.copy2(path, folder / "dragon_optim" / "_lib" / path.name)
    (folder / "tests").mkdir()
    for path in (ROOT / "tests").glob("*.py"):
        shutil.copy2(path, folder / "tests")
    shutil.copytree(HERE, folder / "tests" / "operators", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run(folder: Path, *arguments: str) -> str:
    emulated = str(folder / "dragon_optim" / "_lib" / "libemulated_cuda.so")
    environ = dict(os.environ, PYTHONPATH=str(folder), LD_PRELOAD=emulated, DRAGON_OPTIM_TESTS_DEVICE="cuda")
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=str(folder), env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert done.returncode == 0, done.stdout.decode()[-4000:]
    return done.stdout.decode()


def test_every_test_of_the_operators(elsewhere):
    files = [
        f"tests/operators/test_{name}.py"
        for name in ("update", "gradients", "wrong_edges", "clip", "loss_scale")
    ]
    output = run(elsewhere, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files)
    assert "passed" in output
    assert "skipped" not in output


def test_optimizers(elsewhere):
    assert run(elsewhere, "-m", "tests.operators.emulated_steps").splitlines()[-1] == "all the same"


def test_clipping(elsewhere):
    assert run(elsewhere, "-m", "tests.operators.emulated_clipping").splitlines()[-1] == "all the same"


def test_a_loss_scale(elsewhere):
    assert run(elsewhere, "-m", "tests.operators.emulated_scaling").splitlines()[-1] == "all the same"
