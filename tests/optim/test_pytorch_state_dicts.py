# SPDX-License-Identifier: BSD-2-Clause
"""PyTorch's own tests of RMSprop: state dicts and copies; see test_pytorch_protocol.py.

A comparison of state dicts is one of every bit.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim import checkpoint
from tests.optim.pytorch_problem import Problem, bits, made, over_foreach, over_inputs
from tests.optim.support import values


@over_inputs
@pytest.mark.parametrize("named", [False, True], ids=["unnamed", "named"])
@over_foreach
def test_state_dict_deterministic(options, named, foreach):
    """Runs that go on in parallel from a loaded copy stay equal, and so do their state dicts.

    What was loaded does not change, and parameters that stand in two groups have the same numbers in both.
    """
    problem, twin = Problem(), Problem()
    optimizer = dragon_optim.RMSprop(problem.named() if named else problem.params, foreach=foreach, **options)
    problem.steps(optimizer, 3)
    saved = copy.deepcopy(optimizer.state_dict())
    kept = bits(copy.deepcopy(saved))
    for ours, theirs in zip(twin.params, problem.params):
        ours._impl.FromNumpy(values(theirs), True)
    other = dragon_optim.RMSprop(twin.named() if named else twin.params, foreach=foreach, **options)
    other.load_state_dict(saved)
    for _ in range(5):
        problem.steps(optimizer, 1)
        twin.steps(other, 1)
        assert twin.bits() == problem.bits()
    assert bits(saved) == kept
    assert bits(other.state_dict()) == bits(optimizer.state_dict())
    assert ("param_names" in saved["param_groups"][0]) == named
    other.param_groups.extend(other.param_groups)
    assert other.state_dict()["param_groups"][-1] == optimizer.state_dict()["param_groups"][-1]


@over_inputs
def test_can_load_older_state_dict(options):
    """Without the flags that came one after another: they are off, and training goes on."""
    problem, optimizer = made(options)
    problem.steps(optimizer, 1)
    older = copy.deepcopy(optimizer.state_dict())
    for group in older["param_groups"]:
        for flag in ("maximize", "foreach", "differentiable", "capturable", "fused"):
            group.pop(flag, None)
    optimizer.load_state_dict(older)
    assert [optimizer.param_groups[0][flag] for flag in ("maximize", "foreach")] == [False, None]
    problem.steps(optimizer, 1)
    assert optimizer.state[problem.weight]["step"] == 2


@over_inputs
@pytest.mark.parametrize("names", [(False, True), (True, False), (True, True)], ids=str)
def test_can_load_from_to_named_state_dict(options, names):
    """The names of the loaded state dict are taken; where it has none, the optimizer's stay."""
    problem, twin = Problem(), Problem()
    saving, loading = (
        dragon_optim.RMSprop(each.named() if named else each.params, **options)
        for each, named in zip((problem, twin), names)
    )
    problem.steps(saving, 2)
    loading.load_state_dict(saving.state_dict())
    twin.steps(loading, 1)
    assert loading.param_groups[0].get("param_names") == ["weight", "bias"]
    saved, loaded = saving.state_dict(), loading.state_dict()
    assert saved["state"].keys() == loaded["state"].keys()


@over_inputs
def test_save_load_equality_with_weights_only(options, tmp_path):
    """Through our file, which PyTorch reads with ``weights_only=True``."""
    problem, optimizer = made(options)
    problem.steps(optimizer, 3)
    saved = optimizer.state_dict()
    checkpoint.save(saved, tmp_path / "optimizer.pt")
    loaded = checkpoint.load(tmp_path / "optimizer.pt")
    assert bits(loaded) == bits(saved)
    twin, other = made({})
    for ours, theirs in zip(twin.params, problem.params):
        ours._impl.FromNumpy(values(theirs), True)
    other.load_state_dict(loaded)
    problem.steps(optimizer, 2)
    twin.steps(other, 2)
    assert twin.bits() == problem.bits()
    assert bits(other.state_dict()) == bits(optimizer.state_dict())


@over_inputs
@pytest.mark.parametrize(
    "kind",
    [int, float, np.float32, np.int64, lambda step: torch.tensor(float(step))],
    ids=["int", "float", "np.float32", "np.int64", "tensor"],
)
def test_load_nontensor_step(options, kind):
    problem, optimizer = made(options)
    problem.steps(optimizer, 1)
    saved = copy.deepcopy(optimizer.state_dict())
    for entry in saved["state"].values():
        entry["step"] = kind(entry["step"])
    optimizer.load_state_dict(saved)
    problem.steps(optimizer, 1)
    assert optimizer.state_dict()["state"][0]["step"] == 2


@over_inputs
def test_deepcopy_copies_all_public_attrs(options):
    _, optimizer = made(options)
    optimizer.added_by_somebody = 5

    def public(each):
        return {name for name in vars(each) if not name.startswith("_")}

    twin = copy.deepcopy(optimizer)
    assert public(twin) == public(optimizer)
    assert "added_by_somebody" in public(twin)
    assert twin.defaults == optimizer.defaults
