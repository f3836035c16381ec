# SPDX-License-Identifier: BSD-2-Clause
# ruff: noqa: N802  the traps are numbered with capital letters
"""The traps of Dragon 0.3.0 that an optimizer can fall into, by their numbers in the list of facts.

A: the process and the library. B: gradients. C (names, workspaces, threads) and D (the semantics of stock)
stand in `test_traps_names_and_numbers.py`.
What is a misuse of ours stands in `test_misuse.py`; here each trap is met in ordinary use.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from dragon.core.framework import config, workspace
from dragon.vm import torch

import dragon_optim
from dragon_optim._dragon import library
from tests.optim.support import backward, feed_gradient, in_thread, parameter, run_script, values

PACKAGE = Path(dragon_optim.__file__).parent
OPERATORS = PACKAGE / "_lib" / "libdragon_optim.so"

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

# --- A: the process and the library ---------------------------------------------------------------

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


# What the modules outside of `_dragon/` may import of Dragon's inner ones: the base class that makes
# isinstance() hold, and the classes Tensor and device, which dragon.vm.torch exports as well.
ALLOWED = {"dragon.vm.torch.core.optim", "dragon.vm.torch.core.tensor", "dragon.vm.torch.core.cpp"}


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_only_one_folder_touches_dragons_internals():
    outside = [path for path in PACKAGE.rglob("*.py") if PACKAGE / "_dragon" not in path.parents]
    assert len(outside) > 5
    inner = {
        name for path in outside for name in _imports(path) if name.startswith("dragon.") and ".core" in name
    }
    assert inner <= ALLOWED
    inside = {name for path in (PACKAGE / "_dragon").glob("*.py") for name in _imports(path)}
    assert any(name.startswith("dragon.core") for name in inside)  # the search finds what there is
    calls = [
        path for path in outside if "run_operator" in path.read_text() or "_handle_pool" in path.read_text()
    ]
    assert calls == []


# --- B: gradients ---------------------------------------------------------------------------------


def test_B1_grad_is_none_or_has_data():
    p = parameter([1.0])
    optimizer = dragon_optim.RMSprop([p])
    assert p.grad is None
    optimizer.step(), optimizer.sum_grad(), optimizer.zero_grad()
    assert (
        workspace.get_workspace().get_tensor(p.id + "_grad") is None
    )  # an empty one ends stock's zero_grad()
    backward(p, 3.0)
    assert p.grad.numpy().tolist() == [3.0]
    optimizer.zero_grad(set_to_none=True)
    assert p.grad is None


def test_B2_backward_overwrites_and_sum_grad_adds():
    p = parameter([0.0])
    optimizer = dragon_optim.RMSprop([p])
    for grad in (1.0, 2.0):
        backward(p, grad)
        optimizer.sum_grad()
    assert p.grad.numpy().tolist() == [2.0]
    optimizer.step()
    assert optimizer.state[p]["square_avg"].numpy() == pytest.approx([0.01 * 9])


def test_B3_a_stale_gradient_is_not_summed():
    p, q = parameter([0.0]), parameter([0.0])
    optimizer = dragon_optim.RMSprop([p, q])
    backward(p, 1.0, q, 1.0)
    optimizer.sum_grad()
    optimizer.step()
    kept = values(q)
    for _ in range(3):
        backward(p, 1.0)
        optimizer.sum_grad()
        optimizer.step()
    assert values(q).tolist() == kept.tolist()
    assert q.grad is not None


def test_B4_nothing_after_zero_grad_to_none_ends_the_process():
    p, q = parameter([0.0]), parameter([0.0])
    optimizer = dragon_optim.RMSprop([p, q])
    backward(p, 1.0, q, 1.0)
    optimizer.zero_grad(True)
    optimizer.zero_grad(False)
    backward(p, 1.0)
    optimizer.sum_grad()
    optimizer.step()
    assert [optimizer.state[each].get("step", 0) for each in (p, q)] == [1, 0]


def test_B6_an_error_in_the_second_group_sums_nothing_in_the_first():
    p, q = parameter([0.0]), parameter([0.0])
    optimizer = dragon_optim.RMSprop([{"params": [p]}, {"params": [q]}])
    backward(p, 1.0, q, 1.0)
    feed_gradient(q, np.ones(2, "float32"))
    with pytest.raises(ValueError, match="nothing was summed"):
        optimizer.sum_grad()
    backward(p, 4.0, q, 4.0)
    optimizer.sum_grad()
    optimizer.step()
    assert optimizer.state[p]["square_avg"].numpy() == pytest.approx([0.16])


def test_B6_a_group_without_gradients_is_no_error():
    p, q = parameter([0.0]), parameter([0.0])
    optimizer = dragon_optim.RMSprop([{"params": [q]}, {"params": [p]}])
    backward(p, 1.0)
    optimizer.sum_grad()
    optimizer.step()
    assert p in optimizer.state


def test_B7_only_the_leaves_of_a_pass_are_fresh():
    model, head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    unused = torch.nn.Linear(2, 2)
    layers = (model, head, unused)
    optimizer = dragon_optim.RMSprop([p for layer in layers for p in layer.parameters()])
    head(model(torch.ones(1, 2))).sum().backward()
    optimizer.sum_grad()
    optimizer.step()
    assert [layer.weight in optimizer.state for layer in layers] == [True, True, False]


def test_B8_two_parameters_over_one_tensor_are_one():
    p = parameter([0.0])
    twin = torch.nn.Parameter(p)
    with pytest.warns(UserWarning, match="duplicate parameters"):
        dragon_optim.RMSprop([p, twin])
    with pytest.raises(ValueError, match="more than one parameter group"):
        dragon_optim.RMSprop([{"params": [p]}, {"params": [twin]}])


def test_B9_parameters_of_equal_values_are_not_the_same():
    """`==` between tensors is element-wise and always true: `in` and index() find anything."""
    params = [parameter([1.0]) for _ in range(3)]
    optimizer = dragon_optim.RMSprop(params[:2], lr=0.5, alpha=0.0, eps=0.0)
    assert params[2] not in optimizer.state
    backward(params[0], 1.0, params[1], 1.0, params[2], 1.0)
    optimizer.step()
    optimizer.param_groups[0]["params"] = params[1:]
    optimizer.step()
    assert [float(p.numpy()) for p in params] == [0.5, 0.0, 0.5]
    assert params[2] in optimizer.state


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_B11_every_level_of_graph_optimization(level):
    former = config.config().graph_optimization
    config.config().graph_optimization = level
    try:
        p = parameter([0.0])
        optimizer = dragon_optim.RMSprop([p], lr=0.5, alpha=0.0, eps=0.0)
        for _ in range(2):
            backward(p, 1.0)
            optimizer.sum_grad()
            optimizer.step()
        assert values(p).tolist() == [-1.0]
    finally:
        config.config().graph_optimization = former
