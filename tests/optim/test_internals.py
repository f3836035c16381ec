# SPDX-License-Identifier: BSD-2-Clause
"""Dragon's inner modules are touched in one folder of the package only."""

from __future__ import annotations

import ast
from pathlib import Path

import dragon_optim

PACKAGE = Path(dragon_optim.__file__).parent

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
