# SPDX-License-Identifier: BSD-2-Clause
# ruff: noqa: N802  the traps are numbered with capital letters
"""The traps of Dragon 0.3.0 about the process and the library: A in `docs/traps.rst`, but for A5.

The tests of traps bear the numbers of that page. A5 (how the library is loaded) stands in
`test_traps_loading.py`, B in `test_traps_gradients.py`, C in `test_traps_workspaces.py`, D in
`test_traps_semantics.py`. Each trap is met in ordinary use; what is a misuse of ours stands in `misuse.py`.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import dragon_optim
from tests.optim.elsewhere import in_thread, run_script
from tests.optim.support import backward, feed_gradient, parameter, values

OPERATORS = Path(dragon_optim.__file__).parent / "_lib" / "libdragon_optim.so"

TRAINING = """
import numpy as np
from dragon.vm import torch
import dragon_optim
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
optimizer = dragon_optim.RMSprop(model.parameters(), momentum=0.9, centered=True, clip_norm=1.0)
for step in range(5):
    optimizer.zero_grad(set_to_none=step % 2 == 0)
    out = model(torch.ones(3, 4))
    loss = (out * out).mean()
    loss.backward()
    optimizer.sum_grad()
    optimizer.step()
"""

ENDS = {
    "plain": "",
    "held-by-modules": "import sys; sys.kept = (model, optimizer, dict(optimizer.state))",
    "in-a-cycle": "optimizer.me = optimizer; model.optimizer = optimizer",
    "after-an-error": "optimizer.param_groups[0]['lr'] = -1\ntry: optimizer.step()\nexcept ValueError: pass",
    "after-clear": "import dragon; dragon.get_workspace().clear()",
    "after-reset": "import dragon; dragon.reset_workspace()",
    "with-stock": "stock = torch.optim.RMSprop(model.parameters()); stock.step()",
    "float16": "p = torch.nn.Parameter(torch.ones(3).half()); half = dragon_optim.RMSprop([p])\n"
    "p.float().sum().backward(); half.sum_grad(); half.step()",
    "sys-exit": "import sys; sys.exit(0)",
}


@pytest.mark.parametrize("end", ENDS)
def test_A3_exit_code_is_zero(end):
    """A static of Dragon's that our library constructed again would be destroyed twice, at exit."""
    done = run_script(TRAINING + ENDS[end])
    assert (done.returncode, done.stderr) == (0, "")


def test_A3_no_to_string_is_exported():
    """The cause of that: the wheel's compiler names the static's guard in another way than ours does."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm is not installed")
    symbols = subprocess.run([nm, "-D", str(OPERATORS)], capture_output=True, text=True, check=True).stdout
    defined = [line for line in symbols.splitlines() if " U " not in line]
    assert any("dragon_optim_register" in line for line in defined)
    assert [line for line in defined if "dtypes" in line and "to_string" in line] == []


def test_A2_an_exception_in_an_operator_is_a_python_exception():
    """And the next steps are as good as ever; other threads run, so the interpreter's lock is in order."""
    p = parameter([1.0, 2.0])
    optimizer = dragon_optim.RMSprop([p], lr=0.5, alpha=0.0, eps=0.0)
    backward(p, 1.0)
    optimizer.step()
    for _ in range(3):
        feed_gradient(p, np.ones(3, "float32"))
        with pytest.raises(ValueError, match="Nothing was changed"):
            optimizer.step()
        assert in_thread(lambda: 5) == 5
        backward(p, 1.0)
        optimizer.step()
    assert values(p).tolist() == [-1.0, 0.0]
    assert optimizer.state[p]["step"] == 4


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "bool", "float16", "float64"])
def test_A4_type_ids_are_shared_with_dragon(dtype):
    """They are addresses of statics: a library that hides its own would take every tensor for unknown."""
    p = parameter([1.0])
    optimizer = dragon_optim.RMSprop([p])
    feed_gradient(p, np.ones(1, dtype))
    with pytest.raises(ValueError, match=rf"gradient of parameter 0 of group 0 is {dtype} of shape \(1,\)"):
        optimizer.step()
