# SPDX-License-Identifier: BSD-2-Clause
"""What shares a process with an optimizer: stock optimizers, threads, traces, older workspaces."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest
from dragon.core.framework import workspace
from dragon.vm import torch

import dragon_optim
from dragon_optim._dragon import tensors
from tests.optim.elsewhere import run_script
from tests.optim.support import backward, parameter, values


def test_stock_takes_an_empty_gradient_for_none():
    """Trap B4: an empty gradient, left by either, ended the process at the next stock call."""
    param = parameter([1.0, 2.0])
    ours, stock = dragon_optim.RMSprop([param]), torch.optim.SGD([param], lr=0.5)
    backward(param, 1.0)
    for taker in (ours, stock):
        taker.zero_grad(set_to_none=True)
        stock.zero_grad()
        stock.step()
        backward(param, 1.0)
        stock.sum_grad()
        stock.step()
        ours.zero_grad()
        assert values(param.grad).tolist() == [0.0, 0.0]
    assert values(param).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("what", ["step", "sum_grad", "zero_grad"])
def test_a_trace_is_refused(what):
    """A trace holds no backward pass: it would go on with stale gradients, without a word."""
    param = parameter([1.0])
    optimizer = dragon_optim.RMSprop([param])

    def train(x):
        loss = (param * x).sum()
        loss.backward()
        getattr(optimizer, what)()
        return loss

    inputs = torch.ones(1)
    with pytest.raises(RuntimeError, match=rf"{what}\(\) cannot be traced by torch.jit.trace"):
        torch.jit.trace(train, example_inputs=[inputs])(inputs)
    assert values(param).tolist() == [1.0]


def test_threads_take_turns():
    """As the actors of an A3C share an optimizer. Dragon lets other threads run while a graph runs."""
    home = workspace.get_workspace()
    params = [parameter(np.ones(100_000)) for _ in range(4)]
    optimizer = dragon_optim.RMSprop(params, momentum=0.9)
    for param in params:
        backward(param, 1.0)
    failures = []

    def act():
        try:
            with home.as_default():
                for _ in range(200):
                    optimizer.step()
        except Exception as error:
            failures.append(error)

    actors = [threading.Thread(target=act) for _ in range(3)]
    for actor in actors:
        actor.start()
    for actor in actors:
        actor.join()
    assert failures == []
    assert [optimizer.state[param]["step"] for param in params] == [600] * 4


def test_a_workspace_from_before_the_import():
    """Its dead parameters leave gradients behind, too, under names that are given out again."""
    done = run_script("""
from dragon.core.framework import workspace
from dragon.vm import torch
other = workspace.Workspace()
def trained():
    param = torch.nn.Parameter(torch.ones(2))
    (param * 5).sum().backward()
with other.as_default():
    trained()
    import dragon_optim
    param = torch.nn.Parameter(torch.ones(2))
    assert param.grad is None, param.grad
    optimizer = dragon_optim.RMSprop([param])
    optimizer.step()
    assert param.numpy().tolist() == [1, 1]
    assert len(optimizer.state) == 0
""")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_schedule_is_not_warned_of_in_every_step():
    param = parameter([1.0])
    with pytest.warns(UserWarning, match="clip_norm wins"):
        optimizer = dragon_optim.RMSprop([param], clip_norm=1, clip_value=2)
    backward(param, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for lr in (0.1, 0.2, 0.3):
            optimizer.param_groups[0]["lr"] = lr
            optimizer.step()
    optimizer.param_groups[0]["clip_value"] = 3
    with pytest.warns(UserWarning, match="clip_value=3"):
        optimizer.step()


def test_duplicates_are_warned_of_once():
    param = parameter([1.0])
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optimizer = dragon_optim.RMSprop([param, param])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.add_param_group({"params": [parameter([1.0])]})


def test_a_frozen_backbone_costs_no_look_at_its_gradients(monkeypatch):
    """A look at the workspace costs most of a microsecond; a frozen parameter cannot have a gradient."""
    frozen, trained = [parameter([1.0]) for _ in range(20)], parameter([1.0])
    for param in frozen:
        param.requires_grad = False
    optimizer = dragon_optim.RMSprop([*frozen, trained])
    looked_at = []
    have_data = tensors.have_data
    monkeypatch.setattr(
        tensors, "have_data", lambda where, names: looked_at.extend(names) or have_data(where, names)
    )
    optimizer.step()
    assert looked_at == [f"{trained.id}_grad"]
    frozen[3].requires_grad = True
    backward(frozen[3], 1.0)
    optimizer.step()
    assert optimizer.state[frozen[3]]["step"] == 1


@pytest.mark.parametrize("what", ["step", "sum_grad"])
def test_nothing_has_changed_also_where_there_are_several_graphs(what):
    """A parameter that joined late has a graph of its own; all are checked before the first one writes."""
    early, late = [parameter([1.0, 2.0]) for _ in range(4)], parameter([1.0, 2.0])
    optimizer = dragon_optim.RMSprop([*early, late])
    for param in early:
        backward(param, 1.0)
    optimizer.step()
    backward(late, 1.0)
    optimizer.step()
    for param in (*early, late):
        backward(param, 1.0)
    late.grad._impl.FromNumpy(np.ones(5, "float32"), True)
    before = [values(param).tolist() for param in early]
    with pytest.raises(ValueError, match="gradient"):
        getattr(optimizer, what)()
    assert [values(param).tolist() for param in early] == before
    assert [optimizer.state[param]["step"] for param in early] == [2] * 4
    late.grad._impl.FromNumpy(np.ones(2, "float32"), True)
    getattr(optimizer, what)()
    optimizer.step()
    assert optimizer.state[late]["step"] == {"step": 3, "sum_grad": 2}[what]
