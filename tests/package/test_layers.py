# SPDX-License-Identifier: BSD-2-Clause
"""scripts/check_layers.sh: the layers keep to themselves, and it sees when they do not."""

import subprocess

import pytest


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
