# SPDX-License-Identifier: BSD-2-Clause
# ruff: noqa: N802  the traps are numbered with capital letters
"""The traps of Dragon 0.3.0 about names, workspaces and threads: C in `docs/traps.rst`."""

from __future__ import annotations

import dragon
import numpy as np
import pytest
from dragon.core.framework import workspace
from dragon.vm import torch

import dragon_optim
from dragon_optim._dragon import names
from tests import exact
from tests.optim.elsewhere import in_thread, run_script
from tests.optim.support import backward, parameter, values


def test_C1_a_new_parameter_inherits_nothing():
    p = parameter([1.0])
    optimizer = dragon_optim.RMSprop([p], lr=1.0, alpha=0.5, momentum=0.9, centered=True)
    for _ in range(3):
        backward(p, 2.0)
        optimizer.step()
    del p, optimizer
    p, twin = parameter([1.0]), parameter([1.0])
    optimizer = dragon_optim.RMSprop([p], lr=1.0, alpha=0.5, momentum=0.9, centered=True)
    assert p.grad is None
    assert len(optimizer.state) == 0
    backward(p, 2.0)
    optimizer.step()
    expected, _ = exact.step(
        dict(lr=1.0, alpha=0.5, momentum=0.9, centered=True), values(twin), np.full(1, 2.0, "float32"), {}
    )
    assert values(p).tobytes() == expected.tobytes()


def test_C1_an_optimizer_keeps_its_parameters_alive():
    """Their names could not be given to others while there is state for them."""
    p = parameter([1.0])
    name = p.id
    optimizer = dragon_optim.RMSprop([p])
    del p
    assert all(parameter([5.0]).id != name for _ in range(5))
    assert optimizer.param_groups[0]["params"][0].numpy().tolist() == [1.0]


def test_C2_names_of_dead_optimizers_are_used_again():
    def train():
        p = parameter([1.0])
        optimizer = dragon_optim.RMSprop([p], momentum=0.9, centered=True)
        backward(p, 1.0)
        optimizer.sum_grad()
        optimizer.step()

    train()
    pool = names.tensor_pool(workspace.get_workspace())
    made = pool.made
    for _ in range(10):
        train()
    assert pool.made == made


def test_C3_workspaces_with_equal_names_are_kept_apart():
    """Ids are unique in a workspace only."""
    worlds = []
    for lr in (0.5, 0.25):
        home = workspace.Workspace()
        with home.as_default():
            p = parameter([0.0])
            worlds.append((home, p, dragon_optim.RMSprop([p], lr=lr, alpha=0.0, eps=0.0)))
    assert worlds[0][1].id == worlds[1][1].id
    for _ in range(2):
        for home, p, optimizer in worlds:
            with home.as_default():
                backward(p, 1.0)
                optimizer.sum_grad()
                optimizer.step()
    assert [values(p).tolist() for _, p, _ in worlds] == [[-1.0], [-0.5]]
    assert [len(optimizer.state) for _, _, optimizer in worlds] == [1, 1]


def test_C4_whole_trainings_in_threads():
    """Every thread has its own default workspace."""

    def train():
        p = parameter([0.0])
        optimizer = dragon_optim.RMSprop([p], lr=0.5, alpha=0.0, eps=0.0)
        for _ in range(4):
            backward(p, 1.0)
            optimizer.step()
        return values(p).tolist()

    assert [in_thread(train), train(), in_thread(train)] == [[-2.0]] * 3


def test_C6_weights_loaded_in_place_are_seen():
    model = torch.nn.Linear(2, 2)
    optimizer = dragon_optim.RMSprop(model.parameters(), lr=0.5, alpha=0.0, eps=0.0)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    new = {name: np.full(tuple(p.shape), 8.0, "float32") for name, p in model.named_parameters()}
    model.load_state_dict(new)
    optimizer.step()
    assert {float(x) for p in model.parameters() for x in values(p).reshape(-1)} == {7.5}
    assert {optimizer.state[p]["step"] for p in model.parameters()} == {2}


def test_C6_converted_before_the_first_step():
    """`.half()` and `.double()` keep the object; the dtype counts when the first gradient comes."""
    model = torch.nn.Linear(2, 2)
    optimizer = dragon_optim.RMSprop(model.parameters())
    model.double()
    for p in model.parameters():
        backward(p, 1.0)
    optimizer.step()
    assert {optimizer.state[p]["square_avg"].dtype for p in model.parameters()} == {"float64"}


OUTLIVES = {
    "parameter": "torch.nn.Parameter(torch.ones(3))",
    "result": "torch.ones(3) + 1",
    "of-dragon": "dragon.zeros((3,))",
    "model-of-an-optimizer": "trained()",
}


@pytest.mark.parametrize("made", OUTLIVES)
def test_C7_a_tensor_may_die_after_its_workspace(made):
    """Its destructor must not look for its name in memory that others have by now: this ended the process."""
    done = run_script(f"""
import gc
import dragon
from dragon.vm import torch
import dragon_optim
def trained():
    model = torch.nn.Linear(3, 3)
    optimizer = dragon_optim.RMSprop(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model
def outlives():
    with dragon.Workspace().as_default():
        return [{OUTLIVES[made]} for _ in range(20)]
for _ in range(100):
    orphans = outlives()
    gc.collect(0)
    others = [bytes([255]) * size for size in range(8, 400, 8) for _ in range(20)]
    del orphans
""")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("made", [lambda: torch.ones(3), lambda: dragon.ones((3,))], ids=["torch", "dragon"])
def test_C7_a_workspace_that_ends_while_a_tensor_dies(made):
    """Its thread may let go of it between any two lines of the destructor."""
    homes, alive = [workspace.Workspace()], []
    with homes[0].as_default():
        tensor = made()
    pool, parent = tensor._deleter, tensor._deleter._weak_parent

    def last_look():
        found = parent()
        homes.clear()  # from here on the destructor alone holds it
        return found

    pool._weak_parent = last_look
    pool.release = lambda name: alive.append((name.startswith("Variable"), parent() is not None))
    del tensor
    assert alive == [(True, True)]
    assert parent() is None


@pytest.mark.parametrize("what", ["clip_grad_norm_([weight], 1.0)", "graph.capture(step)(torch.ones(1))"])
def test_C7_stock_optimizers_that_outlive_their_workspace_are_passed_by(what):
    """Who asks which optimizers have sums must not look for the names of their parameters."""
    done = run_script(f"""
import threading
from dragon.vm import torch
import dragon_optim
from dragon_optim import clip_grad_norm_, graph
from tests.optim.support import backward, parameter
kept = []
def train():
    model = torch.nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.sum_grad()
    kept.append(optimizer)
for _ in range(40):
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    others = [bytes([255]) * size for size in range(8, 400, 8) for _ in range(20)]
    weight = parameter([1.0])
    def step(inputs):
        (weight * inputs).sum().backward()
    backward(weight, 1.0)
    {what}
""")
    assert (done.returncode, done.stderr) == (0, "")
