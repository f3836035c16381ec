# SPDX-License-Identifier: BSD-2-Clause
"""The files around the code agree with each other."""

import re
import subprocess
import zipfile

import check_wheel
import pytest
import requirements


def test_version_and_changelog_agree(root):
    (version,) = re.findall(
        r'^__version__ = "(.*)"$', (root / "dragon_optim" / "_version.py").read_text(), re.MULTILINE
    )
    newest = re.search(
        r"^## \[(.*?)\] - (unreleased|\d{4}-\d\d-\d\d)$", (root / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert newest
    assert newest.group(1) == version


def test_the_version_comes_from_the_package():
    import dragon_optim
    from dragon_optim import _version

    assert dragon_optim.__version__ == _version.__version__


def test_requirements_of_several_groups():
    lines = requirements.requirements(["build", "test"])
    assert "seeta-dragon==0.3.0" in lines
    assert any(line.startswith("pytest") for line in lines)


def test_requirements_of_an_unknown_group():
    with pytest.raises(SystemExit, match="no group 'tset'"):
        requirements.requirements(["tset"])


def test_the_layers_are_kept(root):
    run = subprocess.run(
        ["sh", "scripts/check_layers.sh"], cwd=root, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")


SPDX = "SPDX-License-Identifier: BSD-2-Clause\n"


@pytest.mark.parametrize(
    ("path", "text", "complaint"),
    [
        ("kernels/a.h", f'// {SPDX}#include "dragon/core/tensor.h"\n', "kernels/ must not"),
        ("kernels/cpu/a.cc", f"// {SPDX}# include <Python.h>\n", "kernels/ must not"),
        ("dragon_optim/a.py", f"# {SPDX}import dragon.core.workspace\n", "only dragon_optim/_dragon/"),
        (
            "dragon_optim/sub/a.py",
            f"# {SPDX}def f():\n    from dragon import core\n",
            "only dragon_optim/_dragon/",
        ),
        (
            "dragon_optim/a.py",
            f"# {SPDX}from dragon.core.framework import workspace\n",
            "only dragon_optim/_dragon/",
        ),
        ("dragon_optim/a.py", "import os\n", "no SPDX"),
        ("kernels/a.h", f'// {SPDX}#include "kernels/b.h"\n', None),
        ("dragon_optim/a.py", f"# {SPDX}from dragon.vm import torch\n", None),
        ("dragon_optim/_dragon/a.py", f"# {SPDX}from dragon.core import workspace\n", None),
    ],
)
def test_a_broken_layer_is_seen(root, tmp_path, path, text, complaint):
    for folder in ("kernels", "dragon_optim"):
        (tmp_path / folder).mkdir()
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    command = ["sh", str(root / "scripts" / "check_layers.sh"), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == (1 if complaint else 0)
    assert (complaint or "") in run.stderr
    assert (path in run.stderr) == bool(complaint)


@pytest.fixture
def make_wheel(tmp_path):
    """Return a function that writes a wheel of nearly empty files."""

    def make(tag="py3-none-manylinux_2_28_x86_64", leave_out=(), add=()):
        path = tmp_path / f"dragon_optim-0.1.0-{tag}.whl"
        info = "{" + ", ".join(f'"{key}": ""' for key in check_wheel.BUILD_INFO_KEYS) + "}"
        names = [*check_wheel.NEEDED, "dragon_optim-0.1.0.dist-info/licenses/LICENSE", *add]
        with zipfile.ZipFile(path, "w") as wheel:
            for name in names:
                if name not in leave_out:
                    wheel.writestr(name, info if name.endswith(".json") else "")
        return path

    return make


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ({}, None),
        ({"tag": "cp310-cp310-linux_x86_64"}, "its tag is cp310-cp310"),
        ({"tag": "py3-none-any"}, "its tag is py3-none-any"),
        ({"leave_out": ["dragon_optim/_lib/libdragon_optim.so"]}, "libdragon_optim.so is missing"),
        ({"add": ["dragon_optim/csrc/rmsprop_op.cc"]}, "rmsprop_op.cc does not belong"),
        ({"add": ["tests/test_a.py"]}, "tests/test_a.py does not belong"),
    ],
)
def test_check_of_a_wheel(make_wheel, parts, complaint):
    found = check_wheel.problems(make_wheel(**parts))
    assert len(found) == bool(complaint)
    assert (complaint or "") in "".join(found)
