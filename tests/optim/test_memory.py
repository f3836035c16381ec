# SPDX-License-Identifier: BSD-2-Clause
"""What an optimizer costs in memory, and that nothing grows: not in a step, nor with what comes and goes.

Dragon frees neither names nor graphs, and memory only when told to. So each thing that it could pile up is
counted.
"""

from __future__ import annotations

import dragon
import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim._dragon import graphs
from tests.optim.memory import MEGABYTE, fed, growth, ones, peak_of
from tests.optim.support import backward, feed_gradient

pytestmark = [
    pytest.mark.usefixtures("ws"),
    # What goes wrong in a destructor can only be warned of.
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
]


# --- what an optimizer holds ----------------------------------------------------------------------

BUFFERS = [
    ({}, 1),
    ({"momentum": 0.9}, 2),
    ({"centered": True}, 2),
    ({"momentum": 0.9, "centered": True}, 3),
    ({"clip_norm": 1.0, "weight_decay": 0.1, "maximize": True}, 1),
]


@pytest.mark.parametrize(("options", "buffers"), BUFFERS, ids=lambda value: str(value).replace(" ", ""))
def test_buffers_come_with_the_first_gradient(ws, options, buffers):
    """Plain RMSprop holds one buffer for a parameter, stock Dragon two. None before its first gradient."""
    param, waiting = ones(1 << 18), ones(1 << 18)
    before = ws.memory_allocated()
    optimizer = dragon_optim.RMSprop([param, waiting], **options)
    small = ws.memory_allocated() - before
    assert small <= 4096  # hyper-parameters and flags, each rounded up to half a kilobyte
    optimizer.step()
    assert ws.memory_allocated() - before == small
    feed_gradient(param, np.ones(1 << 18, "float32"))
    before = ws.memory_allocated()
    optimizer.step()
    assert ws.memory_allocated() - before == buffers * MEGABYTE
    optimizer.step()
    assert ws.memory_allocated() - before == buffers * MEGABYTE


@pytest.mark.parametrize("foreach", [None, False])
def test_a_step_takes_no_memory_beside_its_buffers(foreach):
    """Not for a moment: PyTorch's foreach takes another buffer as large as all parameters."""
    params = [fed(4 << 20) for _ in range(2)]
    options = {"momentum": 0.9, "centered": True, "clip_norm": 1.0, "weight_decay": 0.1, "maximize": True}
    optimizer = dragon_optim.RMSprop(params, foreach=foreach, **options)
    optimizer.step()
    assert peak_of(optimizer.step) < 2 * MEGABYTE
    assert peak_of(lambda: np.ones(16 << 20, "float32")) > 60 * MEGABYTE  # the measure works


def test_sums_are_one_buffer_more(ws):
    param = ones(1 << 18)
    optimizer = dragon_optim.RMSprop([param])
    param.sum().backward()
    optimizer.step()
    before = ws.memory_allocated()
    for _ in range(3):
        param.sum().backward()
        optimizer.sum_grad()
        optimizer.sum_grad()
        optimizer.step()
    assert (
        MEGABYTE <= ws.memory_allocated() - before < MEGABYTE + 1024
    )  # Dragon keeps the loss and its gradient


@pytest.mark.usefixtures("no_collector")
def test_dropped_optimizer_gives_its_memory_back(ws):
    params = [fed(1 << 18), fed(1000)]
    params[0].sum().backward()
    before = ws.memory_allocated()
    optimizer = dragon_optim.RMSprop(params, momentum=0.9, centered=True)
    optimizer.sum_grad()
    optimizer.step()
    assert ws.memory_allocated() - before > 4 * MEGABYTE
    del optimizer
    assert ws.memory_allocated() == before


@pytest.mark.usefixtures("no_collector")
def test_held_state_outlives_its_optimizer(ws):
    """It keeps its values while others come, and gives its memory back at last."""
    param = fed(1 << 18)
    before = ws.memory_allocated()
    optimizer = dragon_optim.RMSprop([param], momentum=0.9, alpha=0.5)
    optimizer.step()
    held = optimizer.state[param]["square_avg"]
    del optimizer
    assert ws.memory_allocated() - before == MEGABYTE
    other = dragon_optim.RMSprop([param], momentum=0.9)
    other.step()
    assert held.numpy().tolist() == [0.5] * (1 << 18)
    del other
    del held
    assert ws.memory_allocated() == before


@pytest.mark.usefixtures("no_collector")
def test_deleted_state_gives_its_memory_back(ws):
    param = fed(1 << 18)
    optimizer = dragon_optim.RMSprop([param])
    before = ws.memory_allocated()
    optimizer.step()
    assert ws.memory_allocated() - before == MEGABYTE
    del optimizer.state[param]
    assert ws.memory_allocated() == before


# --- ten thousand steps ---------------------------------------------------------------------------


def plain(optimizer, params, i):
    optimizer.step()


def other_lr(optimizer, params, i):
    optimizer.param_groups[0]["lr"] = 0.1 / (i + 1)
    optimizer.step()


def lr_as_tensor(optimizer, params, i):
    optimizer.param_groups[0]["lr"] = torch.tensor(0.1 / (i + 1), dtype="float64")
    optimizer.step()


def lr_as_numpy_scalar(optimizer, params, i):
    optimizer.param_groups[1]["lr"] = np.float32(0.1 / (i + 1))
    optimizer.step()


def zeros(optimizer, params, i):
    optimizer.zero_grad()
    optimizer.step()


def gradients_come_and_go(optimizer, params, i):
    optimizer.zero_grad(set_to_none=True)
    feed_gradient(params[i % 3], np.ones((4, 5), "float32"))
    optimizer.step()


def options_to_and_fro(optimizer, params, i):
    for group in optimizer.param_groups:
        group["momentum"] = 0.9 if i % 2 else 0.0
    optimizer.param_groups[0]["foreach"] = i % 3 == 0
    optimizer.step()


def lists_to_and_fro(optimizer, params, i):
    optimizer.param_groups[0]["params"] = params[: 1 + i % 2]
    optimizer.step()


def state_is_read(optimizer, params, i):
    optimizer.step()
    {param: dict(entry) for param, entry in optimizer.state.items()}


def sums(optimizer, params, i):
    for param in params[: 1 + i % 2]:
        param.sum().backward()
        optimizer.sum_grad()
    optimizer.step()


def sums_and_zeros(optimizer, params, i):
    for _ in range(2):
        optimizer.zero_grad(set_to_none=i % 2 == 0)
        params[i % 3].sum().backward()
        optimizer.sum_grad()
    if i % 10 == 9:
        optimizer.zero_grad(drop_sums=True)
    optimizer.step()


LOOPS = [
    plain,
    other_lr,
    lr_as_tensor,
    lr_as_numpy_scalar,
    zeros,
    gradients_come_and_go,
    options_to_and_fro,
    lists_to_and_fro,
    state_is_read,
    sums,
    sums_and_zeros,
]


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_ten_thousand_steps_leave_nothing(ws, loop):
    params = [fed(4, 5) for _ in range(3)]
    optimizer = dragon_optim.RMSprop([{"params": params[:2]}, {"params": params[2:]}], momentum=0.9)
    grown = growth(ws, lambda i: loop(optimizer, params, i), 100, 9_900, collect=True)
    assert grown.after == grown.before
    # One byte for each of 10,000 steps would be seen in what is counted; the process may grow by some pages
    # of its own.
    assert grown.resident < MEGABYTE


# --- optimizers come and go -----------------------------------------------------------------------


OPTIONS = [{}, {"momentum": 0.9}, {"foreach": False}]
IDS = ["plain", "momentum", "foreach=False"]


@pytest.mark.parametrize("summed", [False, True], ids=["gradients", "sums"])
def test_parameters_that_join_one_after_another(monkeypatch, summed):
    """Layers are unfrozen, experts chosen: a new graph of all of them each time would be n squared edges.

    Here each is in about log2(n) graphs of a kind.
    """
    edges = []
    make = graphs.Graph.__init__

    def counted(graph, where, operators):
        edges.append(sum(len(each.input) + len(each.output) for each in operators))
        make(graph, where, operators)

    monkeypatch.setattr(graphs.Graph, "__init__", counted)
    count = 128
    params = [ones(2) for _ in range(count)]
    optimizer = dragon_optim.RMSprop(params)
    for number, param in enumerate(params):
        backward(param, 1.0)
        if summed:
            optimizer.sum_grad()
        optimizer.step()
        assert param in optimizer.state
        assert len(optimizer.state) == number + 1
    assert sum(edges) < (30 if summed else 20) * count * np.log2(count)
    expected = [1] * count if summed else list(range(count, 0, -1))
    assert [optimizer.state[param]["step"] for param in params] == expected


@pytest.mark.parametrize("options", OPTIONS, ids=IDS)
def test_optimizers_over_one_model(ws, options):
    """Nothing stays of a dead optimizer that the next one over the same parameters does not use again.

    Neither tensors nor graphs, which Dragon can never free.
    """
    params = [fed(10) for _ in range(200)]

    def one(i):
        optimizer = dragon_optim.RMSprop(params, **options)
        optimizer.step()
        optimizer.zero_grad()
        optimizer.sum_grad()

    grown = growth(ws, one, 10, 50)
    assert grown.after == grown.before
    assert grown.resident < MEGABYTE


@pytest.mark.parametrize(("options", "limit"), list(zip(OPTIONS, (5000, 6000, 17000))), ids=IDS)
def test_models_come_and_go(ws, options, limit):
    """What stays of a dead model and its optimizer: their graph, which Dragon cannot free, and retired names.

    Measured, in bytes for a parameter: 3700 plain, 4200 with momentum, 12800 with foreach=False. 1900 of it
    are the retired names with the memory of the parameter and its gradient, which is given back beyond 64
    MiB.
    """
    count = 200

    def one(i):
        params = [fed(10) for _ in range(count)]
        optimizer = dragon_optim.RMSprop(params, **options)
        optimizer.step()

    grown = growth(ws, one, 5, 30)
    assert len(grown.after["graphs"]) - len(grown.before["graphs"]) <= 30
    assert grown.after["names"] == grown.before["names"]
    assert grown.resident < 30 * count * limit


def test_workspaces_come_and_go(ws):
    """A workspace takes all that its optimizers left with it."""

    def one(i):
        with dragon.Workspace().as_default():
            params = [fed(1 << 16) for _ in range(4)]
            optimizer = dragon_optim.RMSprop(params, momentum=0.9)
            optimizer.step()

    grown = growth(ws, one, 10, 50, collect=True)
    assert grown.resident < 4 * MEGABYTE  # each holds 4 MB
