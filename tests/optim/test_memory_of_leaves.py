# SPDX-License-Identifier: BSD-2-Clause
"""What dead leaves leave behind is bounded, and is never taken for a living one's."""

from __future__ import annotations

import contextlib

import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim._dragon import names
from tests.optim.memory import MEGABYTE, growth, ones

pytestmark = [
    pytest.mark.usefixtures("ws"),
    # What goes wrong in a destructor can only be warned of.
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
]


@contextlib.contextmanager
def limits(monkeypatch, retired_names, retired_bytes):
    with monkeypatch.context() as patch:
        patch.setattr(names, "_RETIRED_NAMES", retired_names)
        patch.setattr(names, "_RETIRED_BYTES", retired_bytes)
        yield


def with_gradient(size):
    param = ones(size)
    param.sum().backward()
    return param


def bookkeeping(ws) -> int:
    """How many names are on the lists of the retired."""
    return sum(len(each) for each in vars(names._retired[ws]).values() if hasattr(each, "__len__"))


def test_gradient_of_a_dead_leaf_is_given_back(ws, monkeypatch):
    """The memory of dead leaves and their gradients is bounded, be they many small or few large ones."""
    with limits(monkeypatch, 1000, 100_000):
        for size, count in ((1000, 500), (1 << 18, 6)):
            before = ws.memory_allocated()
            for _ in range(count):
                with_gradient(size)
            # At most the limit, and the last one.
            assert ws.memory_allocated() - before <= 100_000 + 2 * 4 * size + 1024


def test_leaves_made_anew_in_every_step(ws, monkeypatch):
    """Inputs that want a gradient, as for an adversarial example.

    A new leaf in each step, 64 KB with its gradient.
    """
    weight = ones(1 << 13)
    optimizer = dragon_optim.RMSprop([weight])

    def step(i):
        (ones(1 << 13) * weight).sum().backward()
        optimizer.step()

    with limits(monkeypatch, 100, MEGABYTE):
        grown = growth(ws, step, 200, 2000)
        assert dict(grown.after, allocated=None) == dict(grown.before, allocated=None)
        assert grown.after["allocated"] < MEGABYTE + 8 * weight._impl.nbytes  # the limit, and what lives now
        assert grown.resident < 2 * MEGABYTE
        assert bookkeeping(ws) <= 2 * 100


def test_names_are_used_again_beyond_the_limit(ws, monkeypatch):
    """Few names, and no ghosts.

    A new leaf has no gradient before its own backward pass, whoever bore its name.
    """
    seen = set()
    with limits(monkeypatch, 3, MEGABYTE):
        for _ in range(50):
            param = ones(4)
            assert param.grad is None
            seen.add(param.id)
            param.sum().backward()
            del param
        assert bookkeeping(ws) <= 2 * 3 + 1  # and the name that is used again
    assert len(seen) <= 5


def test_results_under_used_names_are_not_retired(ws, monkeypatch):
    """They have no gradient: their names and their memory are the next result's."""
    with limits(monkeypatch, 3, MEGABYTE):
        leaves = [ones(4) for _ in range(20)]
        for leaf in leaves:
            leaf.sum().backward()
        del leaf, leaves
        retired, x = list(names._retired[ws]._names), torch.ones(4)
        held = [x + x for _ in range(20)]  # they take all names that there are to use again
        del held
        assert list(names._retired[ws]._names) == retired
        with_gradient(4)  # a leaf does, whose name was used again
        assert list(names._retired[ws]._names) != retired


def test_tiny_gradients_leave_the_lists(ws, monkeypatch):
    """Their bytes never reach the limit: the lists of names must not grow without it."""
    with limits(monkeypatch, 20, 1 << 30):
        for _ in range(300):
            with_gradient(1)
        assert bookkeeping(ws) <= 2 * 20 + 1


def test_living_gradient_is_not_taken_for_a_dead_one(monkeypatch):
    """A living parameter may bear a name that was retired, and used again, long ago.

    Its gradient is its own.
    """
    with limits(monkeypatch, 2, 100):
        for _ in range(3):
            with_gradient(4)
        living = with_gradient(4)
        optimizer = dragon_optim.RMSprop([living])
        for _ in range(10):
            with_gradient(4)
        assert living.grad is not None
        assert living.grad.numpy().tolist() == [1] * 4
        optimizer.step()
        assert living in optimizer.state


def test_held_gradient_of_a_dead_leaf(monkeypatch):
    """Whoever still holds `.grad` can read it: memory is taken only from what nobody holds."""
    with limits(monkeypatch, 2, 100):
        gradients = [with_gradient(100).grad for _ in range(10)]
        for gradient in gradients:
            assert gradient.numpy().tolist() == [1] * 100
