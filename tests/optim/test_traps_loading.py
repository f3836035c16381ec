# SPDX-License-Identifier: BSD-2-Clause
# ruff: noqa: N802  the traps are numbered with capital letters
"""Loading the library: twice, for another Dragon (trap A5 of `docs/traps.rst`), not at all, or in part.

It registers operators in the process, once and for ever.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import dragon_optim
from dragon_optim._dragon import library
from tests.optim.elsewhere import run_script

PACKAGE = Path(dragon_optim.__file__).parent
OPERATORS = PACKAGE / "_lib" / "libdragon_optim.so"


def _copy(folder):
    shutil.copytree(PACKAGE, folder / "dragon_optim", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_A5_a_second_copy_of_the_library_is_refused(tmp_path):
    """Two installations side by side; Dragon ends the process at a second registration."""
    second = """
import sys
import dragon_optim
first = dragon_optim.__file__
for name in [name for name in sys.modules if name.split(".")[0] == "dragon_optim"]:
    del sys.modules[name]
sys.path.insert(0, sys.argv[1])
try:
    import dragon_optim
except ImportError as error:
    print(error)
"""
    done = run_script(second, str(_copy(tmp_path)))
    assert done.returncode == 0, done.stderr
    assert "another copy of dragon_optim is loaded in this process" in done.stdout
    assert str(OPERATORS.resolve()) in done.stdout


def test_A5_a_copy_that_is_loaded_by_hand_is_told_apart(tmp_path):
    """The loader's own note could be missing: the registry itself is asked, too."""
    by_hand = """
import ctypes, sys, dragon, dragon_optim
copy = ctypes.CDLL(sys.argv[1])
print(copy.dragon_optim_register())
"""
    shutil.copy(OPERATORS, tmp_path / "copy.so")
    done = run_script(by_hand, str(tmp_path / "copy.so"))
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_A5_importing_anew_keeps_living_optimizers_apart():
    """Notebooks do that. A second pool of names would hand out the names that living optimizers use."""
    again = """
import sys
from dragon.vm import torch
def train(package, lr):
    p = torch.nn.Parameter(torch.zeros(2))
    optimizer = package.RMSprop([p], lr=lr, alpha=0.0, eps=0.0, momentum=0.5)
    step(p, optimizer)
    return p, optimizer
def step(p, optimizer):
    p.sum().backward()
    optimizer.step()
import dragon_optim
p, first = train(dragon_optim, 0.5)
for name in [name for name in sys.modules if name.split(".")[0] == "dragon_optim"]:
    del sys.modules[name]
import dragon_optim
q, second = train(dragon_optim, 8.0)
step(p, first)
del second
step(p, first)
print(p.numpy().tolist(), q.numpy().tolist(), first.state[p]["step"])
"""
    done = run_script(again)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[-2.125, -2.125] [-8.0, -8.0] 3\n"


REFUSED = {
    "version": ({"dragon_version": "9.9.9"}, "built for Dragon 9.9.9 .* but Dragon 0.3.0"),
    "git-version": (
        {"dragon_git_version": "0123456789abcdef"},
        "built for Dragon 0.3.0 .01234567., but Dragon",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_A5_a_library_for_another_dragon_is_refused(what, tmp_path):
    change, match = REFUSED[what]
    file = _copy(tmp_path) / "dragon_optim" / "_lib" / "build_info.json"
    file.write_text(json.dumps(dict(json.loads(file.read_text()), **change)))
    done = _import_from(tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: this dragon_optim was ")
    assert re.search(match, last)


def test_A5_a_missing_library_says_how_to_build_it(tmp_path):
    (_copy(tmp_path) / "dragon_optim" / "_lib" / "libdragon_optim.so").unlink()
    done = _import_from(tmp_path)
    assert done.returncode == 1
    assert "ImportError: dragon_optim is not built: libdragon_optim.so is missing" in done.stderr


def _import_from(folder, **environment):
    code = "import sys; sys.path.insert(0, sys.argv[1]); import dragon_optim"
    return run_script(code, str(folder), **environment)


def test_an_unknown_instruction_set_is_an_import_error():
    done = run_script("import dragon_optim", DRAGON_OPTIM_ISA="nonsense")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("ImportError: DRAGON_OPTIM_ISA: ")
    assert "nonsense" in done.stderr


@pytest.mark.parametrize("isa", library.kernels().dragon_optim_supported_isas().decode().split(","))
def test_the_instruction_set_can_be_chosen(isa):
    code = "from dragon_optim._dragon import library; print(library.instruction_set())"
    assert run_script(code, DRAGON_OPTIM_ISA=isa).stdout == isa + "\n"
