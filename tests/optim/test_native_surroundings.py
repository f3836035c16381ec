# SPDX-License-Identifier: BSD-2-Clause
"""`native_optimizers.RMSprop`: workspaces, threads, and the memory of its states."""

from __future__ import annotations

import weakref

import dragon
import numpy as np
import pytest

from dragon_optim.native_optimizers import RMSprop
from tests import exact
from tests.optim.elsewhere import in_thread, run_script
from tests.optim.memory import MEGABYTE, growth
from tests.optim.natives import canonical, computed, variable
from tests.optim.support import values

pytestmark = [
    pytest.mark.usefixtures("ws"),
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
]


# --- workspaces -----------------------------------------------------------------------------------

DEAD = """
import gc, sys
import dragon
from dragon_optim.native_optimizers import RMSprop
from tests.optim.natives import variable
home = dragon.Workspace()
with home.as_default():
    dead = variable([1.0, 2.0])
del home
gc.collect()
mine = variable([1.0, 2.0])
try:
    RMSprop().apply_gradients([(mine, dead) if sys.argv[1] == "variable" else (dead, mine)])
except RuntimeError as error:
    print(error)
assert mine.numpy().tolist() == [1.0, 2.0]
"""


@pytest.mark.parametrize("which", ["variable", "gradient"])
def test_a_tensor_of_a_dead_workspace(which):
    child = run_script(DEAD, which)
    assert child.returncode == 0, child.stderr
    assert "belongs to a Dragon workspace that is gone" in child.stdout


def test_another_workspace_or_thread():
    p, optimizer = variable([1.0]), RMSprop()
    pairs = [(canonical(p, np.ones(1, "float32")), p)]
    function = dragon.function(lambda: optimizer.apply_gradients(pairs))
    function()
    with dragon.Workspace().as_default():
        for call in (lambda: optimizer.apply_gradients(pairs), function):
            with pytest.raises(RuntimeError, match="another Dragon workspace"):
                call()
    with pytest.raises(RuntimeError, match="another Dragon workspace"):
        in_thread(lambda: optimizer.apply_gradients(pairs))
    assert optimizer.state_of(p)["step"] == 1


CLEARED = """
import dragon, numpy as np, sys
from dragon_optim.native_optimizers import RMSprop
from tests.optim.natives import canonical, variable
p, optimizer = variable([1.0, 2.0]), RMSprop()
pairs = [(canonical(p, np.ones(2, "float32")), p)]
function = dragon.function(lambda: optimizer.apply_gradients(pairs))
function(); optimizer.apply_gradients(pairs)
dragon.get_workspace().clear()
for call in (function, lambda: optimizer.apply_gradients(pairs)):
    try:
        call()
    except RuntimeError as error:
        print("RuntimeError", error)
"""


def test_a_cleared_workspace_raises():
    child = run_script(CLEARED)
    assert child.returncode == 0, child.stderr
    assert child.stdout.count("RuntimeError the Dragon workspace of this optimizer was cleared") == 2


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("give", [canonical, computed])
def test_state_is_given_back(ws, give, no_collector):
    p = variable(np.ones(1 << 18))
    grad = give(p, np.ones(1 << 18, "float32"))
    before = ws.memory_allocated()
    optimizer = RMSprop(momentum=0.9, centered=True)
    small = ws.memory_allocated() - before
    for _ in range(3):
        optimizer.apply_gradients([(grad, p)])
        assert ws.memory_allocated() - before - small == 3 * MEGABYTE
    del optimizer
    assert ws.memory_allocated() == before


def test_a_function_keeps_its_optimizer(ws, no_collector):
    p = variable([1.0])
    optimizer = RMSprop(lr=0.1)
    grad = canonical(p, np.ones(1, "float32"))
    weak = weakref.ref(optimizer)  # the function object itself holds nothing
    function = dragon.function(lambda: weak().apply_gradients([(grad, p)]))
    function()
    state = values(optimizer.state_of(p)["square_avg"])
    del optimizer
    other = RMSprop()  # would get the names of a dead one's states
    q = variable([5.0])
    other.apply_gradients([(canonical(q, np.full(1, 9.0, "float32")), q)])
    before = values(other.state_of(q)["square_avg"])
    function()
    assert values(other.state_of(q)["square_avg"]).tobytes() == before.tobytes()
    expected, _ = exact.step({"lr": 0.1, "alpha": 0.9}, *[np.ones(1, "float32")] * 2, {})
    expected, _ = exact.step(
        {"lr": 0.1, "alpha": 0.9}, expected, np.ones(1, "float32"), {"square_avg": state}
    )
    assert p.numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("give", [canonical, computed])
def test_nothing_grows_from_step_to_step(ws, give):
    pair = [variable(np.ones(100)) for _ in range(2)]
    optimizer = RMSprop(momentum=0.9)

    def step(number):
        optimizer.lr = 0.1 / (1 + number)
        optimizer.apply_gradients([(give(var, np.ones(100, "float32")), var) for var in pair])

    grown = growth(ws, step, first=300, then=2000)
    assert grown.after == grown.before
    assert grown.resident <= 1 << 20


def test_changing_sets_of_gradients_are_bounded(ws):
    """Dragon never frees a graph: only a few sets get one, and nothing is kept of the others."""
    pool = [variable(np.ones(10)) for _ in range(10)]
    optimizer = RMSprop()
    numbers = np.random.default_rng(0)

    def step(_):
        chosen = [var for var in pool if numbers.random() < 0.5]
        optimizer.apply_gradients([(canonical(var, np.ones(10, "float32")), var) for var in chosen])

    grown = growth(ws, step, first=1500, then=1500)
    assert len(grown.after["graphs"]) <= 8
    assert grown.after == grown.before
    assert grown.resident <= 2 << 20


def test_optimizers_that_come_and_go(ws):
    p = variable(np.ones(100))

    def train(_):
        optimizer = RMSprop(momentum=0.9)
        for _ in range(3):
            optimizer.apply_gradients([(canonical(p, np.ones(100, "float32")), p)])

    grown = growth(ws, train, first=100, then=300)
    assert grown.after == grown.before
    assert grown.resident <= 1 << 20


def test_new_variables_inherit_nothing():
    def run():
        p = variable([1.0])
        optimizer = RMSprop(lr=0.1, momentum=0.9)
        optimizer.apply_gradients([(canonical(p, np.full(1, 2.0, "float32")), p)])
        return p.numpy().tobytes()

    assert run() == run()
