# SPDX-License-Identifier: BSD-2-Clause
"""`python -m dragon_optim script.py ...`: the script runs as under plain python, over our classes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import dragon_optim
from dragon_optim.__main__ import report
from tests.optim.elsewhere import ROOT


def run(*arguments, python=("-m", "dragon_optim"), cwd=None):
    env = dict(
        os.environ, PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    )
    return subprocess.run(
        [sys.executable, *python, *map(str, arguments)],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def script(tmp_path):
    """Writes a script, in a folder with a module of its own."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "neighbour.py").write_text("from dragon.vm.torch.optim import RMSprop\n")

    def write(code):
        path = folder / "train.py"
        path.write_text(code)
        return path

    return write


# Python 3.8 leaves __file__ as it was given; here it is absolute, as in all later ones.
SURROUNDINGS = """
import atexit, inspect, os, pickle, sys

if sys.version_info < (3, 9):
    __file__ = os.path.abspath(__file__)

class Own:
    pass

def last():
    print("at exit", type(pickle.loads(pickle.dumps(Own()))) is Own)

atexit.register(last)

if __name__ == "__main__":
    import __main__
    print(sys.argv, sys.path[0], __file__, __main__.__file__, __name__, __package__, __main__.Own is Own)
    print(inspect.getsource(Own), __spec__, __doc__, type(pickle.loads(pickle.dumps(Own()))) is Own)
"""


def test_the_script_sees_what_it_sees_under_python(script, tmp_path):
    path = script(SURROUNDINGS)
    for given in (path, path.relative_to(tmp_path)):
        ours = run(given, "--lr", "0.1", "--help", "-x", "--", "file", cwd=tmp_path)
        plain = run(given, "--lr", "0.1", "--help", "-x", "--", "file", python=(), cwd=tmp_path)
        assert (ours.returncode, ours.stderr) == (0, "")
        assert ours.stdout == plain.stdout


def test_a_link_leads_to_the_folder_of_the_script(script, tmp_path):
    path = script("import sys\nprint(sys.path[0])")
    link = tmp_path / "link.py"
    link.symlink_to(path)
    assert run(link).stdout == run(link, python=()).stdout == f"{path.parent}\n"


def test_the_script_gets_our_classes(script):
    path = script(
        """
import sys
from dragon.vm import torch
from neighbour import RMSprop
import dragon_optim
assert RMSprop is torch.optim.RMSprop is dragon_optim.RMSprop
weight = torch.nn.Parameter(torch.ones(2))
optimizer = torch.optim.RMSprop([weight], lr=0.1, alpha=0.75, centered=True)
weight.sum().backward()
optimizer.step()
print(optimizer.state[weight]["grad_avg"].numpy().tolist())
"""
    )
    outcome = run(path)
    assert (outcome.returncode, outcome.stdout) == (0, "[0.25, 0.25]\n"), outcome.stderr


@pytest.mark.parametrize(
    ("code", "expected"),
    [("raise SystemExit(3)", 3), ("import sys; sys.exit('said')", 1), ("raise KeyError('theirs')", 1)],
)
def test_the_script_ends_the_process_as_it_likes(script, code, expected):
    path = script(code)
    outcome, plain = run(path), run(path, python=())
    assert outcome.returncode == plain.returncode == expected
    assert outcome.stderr.splitlines()[-1:] == plain.stderr.splitlines()[-1:]


def test_alone_it_prints_the_report():
    outcome = run()
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == report() + "\n"
    assert outcome.stdout.startswith(f"dragon_optim     {dragon_optim.__version__}\n")


def test_a_script_that_is_not_there(tmp_path):
    outcome = run(tmp_path / "missing.py", "--lr", "1")
    assert outcome.returncode == 2
    assert outcome.stderr.endswith(f"error: there is no file '{tmp_path / 'missing.py'}'\n")


def test_help_is_its_own_before_the_script(script):
    outcome = run("--help", script("raise SystemExit(3)"))
    assert outcome.returncode == 0
    assert outcome.stdout.startswith("usage: python -m dragon_optim [-h] [SCRIPT] ...\n")
