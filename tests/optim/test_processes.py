# SPDX-License-Identifier: BSD-2-Clause
"""Forks, threads, the end of a process, and stock optimizers beside ours.

Nothing hangs, and the process never dies.
"""

from __future__ import annotations

import os
import threading

import dragon
import numpy as np
import pytest
from dragon.core.framework import workspace

import dragon_optim
from tests.operators.edges import in_child
from tests.optim.elsewhere import run_script
from tests.optim.support import feed_gradient, parameter

# Large enough that a step is divided among threads.
LARGE = 1 << 18
OPTIONS = dict(lr=0.01, alpha=0.9, momentum=0.9, centered=True)


@pytest.fixture
def two_threads():
    former = dragon.get_num_threads()
    dragon.set_num_threads(2)
    yield
    dragon.set_num_threads(former)


class Training:
    """Two parameters and their gradients, the same wherever it is made with the same seed."""

    def __init__(self, seed=0, size=LARGE):
        self._random = np.random.RandomState(seed)
        self.params = [parameter(self._numbers(size)), parameter(self._numbers(7))]
        self.optimizer = dragon_optim.RMSprop(self.params, **OPTIONS)

    def _numbers(self, size):
        return self._random.standard_normal(size).astype("float32")

    def steps(self, count):
        for _ in range(count):
            for param in self.params:
                feed_gradient(param, self._numbers(param.shape[0]))
            self.optimizer.step()
        return self

    def bits(self):
        states = [self.optimizer.state[param] for param in self.params]
        tensors = [
            *self.params,
            *[state[key] for state in states for key in ("square_avg", "momentum_buffer", "grad_avg")],
        ]
        return [np.array(tensor.numpy()).tobytes().hex() for tensor in tensors]


# --- forks --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("two_threads")
def test_step_in_a_forked_child():
    """After parallel steps in the parent, whose threads the child has not: the same bits, in both.

    With OpenMP's threads the child would hang in its first step.
    """
    training = Training().steps(3)
    in_the_child = in_child(lambda: training.steps(3).bits())
    assert in_the_child == Training().steps(6).bits()
    assert training.steps(3).bits() == in_the_child


@pytest.mark.usefixtures("two_threads")
def test_child_of_a_child():
    training = Training().steps(2)

    def child():
        training.steps(2)
        return in_child(lambda: training.steps(2).bits())

    assert in_child(child) == Training().steps(6).bits()


@pytest.mark.usefixtures("two_threads")
def test_fork_while_another_thread_steps():
    """The fork may come in the middle of somebody's step, while the locks of the threads' pool are held."""
    training, stop = Training(), threading.Event()

    def busy():
        with dragon.Workspace().as_default():
            other = Training(1)
            while not stop.is_set():
                other.steps(1)

    training.steps(1)
    thread = threading.Thread(target=busy)
    thread.start()
    try:
        results = [in_child(lambda: training.steps(2).bits()) for _ in range(5)]
    finally:
        stop.set()
        thread.join()
    assert results == [Training().steps(3).bits()] * 5


# --- threads ------------------------------------------------------------------------------------------------

NEW_THREADS = """
import os, sys
import dragon
from tests.optim.test_processes import Training

if sys.argv[1] != "-":
    dragon.set_num_threads(int(sys.argv[1]))
training = Training()
before = len(os.listdir("/proc/self/task"))
training.steps(2)
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="counts threads in /proc")
@pytest.mark.parametrize(
    ("given", "openmp", "expected"),
    [("1", "4", 1), ("2", "4", 2), ("3", "1", 3), ("-", "1", 1), ("-", "3", 3)],
)
def test_number_of_threads(given, openmp, expected):
    """Dragon's number, which is OpenMP's until `dragon.set_num_threads()`."""
    done = run_script(NEW_THREADS, given, OMP_NUM_THREADS=openmp)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == expected - 1  # the caller does its share


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("size", [100, LARGE], ids=["small", "large"])
def test_trainings_in_threads(size):
    """Two loops in two threads, each with a workspace of its own, are as right as one after the other."""
    results = {}

    def train(seed):
        with dragon.Workspace().as_default():
            training = Training(seed, size)
            # Also what has no steps in it, and who comes last at each point, changes from turn to turn.
            for count in (1, 5, 2, 12):
                barrier.wait()
                training.steps(count)
            results[seed] = training.bits()

    barrier = threading.Barrier(2)
    threads = [threading.Thread(target=train, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {seed: Training(seed, size).steps(20).bits() for seed in (1, 2)}


def test_optimizer_of_another_thread():
    """Each thread has a workspace of its own.

    An optimizer of the main thread works in another only under its own workspace.
    """
    training, home, outcome = Training(size=5).steps(1), workspace.get_workspace(), []
    before = training.bits()

    def work():
        for call in (training.optimizer.step, training.optimizer.sum_grad, training.optimizer.zero_grad):
            try:
                call()
            except RuntimeError as error:
                outcome.append(str(error))
        outcome.append(training.bits() == before)
        with home.as_default():
            training.steps(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(outcome) == 4
    assert all("another Dragon workspace" in message for message in outcome[:3])
    assert outcome[3] is True
    assert training.bits() == Training(size=5).steps(2).bits()


# --- the end of a process -----------------------------------------------------------------------------------

SETUP = """
import gc, sys, threading
import dragon, numpy
from dragon.vm import torch
from dragon.core.framework import workspace
import dragon_optim

def parameter(size=100000):
    param = torch.nn.Parameter(torch.ones(size))
    (param * param).sum().backward()
    return param

def optimizer(*params):
    made = dragon_optim.RMSprop(params, momentum=0.9, centered=True)
    made.step()
    return made
"""

ENDINGS = {
    "live optimizer": "p = parameter(); o = optimizer(p)",
    "held state": "p = parameter(); o = optimizer(p); held = o.state[p]['square_avg']; del o",
    "held entry": "p = parameter(); o = optimizer(p); held = o.state[p]; del o, p",
    "held gradient": "p = parameter(); g = p.grad; o = optimizer(p); del p, o",
    "held view": "p = parameter(); o = optimizer(p); view = o.state[p]['square_avg'].numpy()",
    "open sums": "p = parameter(); o = optimizer(p); o.sum_grad()",
    "cycle": (
        "p = parameter(); o = optimizer(p); cycle = [o, o.state[p], p.grad]; cycle.append(cycle)\n"
        "del o, p, cycle"
    ),
    "held by a module": "sys.dragon_optim_test = [optimizer(parameter()), parameter()]",
    "another workspace": (
        "w = dragon.Workspace()\nwith w.as_default():\n    p = parameter(); o = optimizer(p)"
    ),
    "workspace of its optimizer only": (
        "def work():\n    with dragon.Workspace().as_default():\n        p = parameter(); o = optimizer(p)\n"
        "for _ in range(20): work()\n"
    ),
    "state that outlives its workspace": (
        "def work():\n    with dragon.Workspace().as_default():\n        p = parameter()\n"
        "        return optimizer(p).state[p]['square_avg']\n"
        "held = work(); gc.collect(); print(held.numpy()[:2])"
    ),
    "cleared workspace": "p = parameter(); o = optimizer(p); workspace.get_workspace().clear()",
    "reset workspace": "p = parameter(); o = optimizer(p); dragon.reset_workspace()",
    "thread": "t = threading.Thread(target=lambda: optimizer(parameter())); t.start(); t.join()",
    "dead leaves": "for _ in range(100): parameter(100)",
    "exception": (
        "p = parameter(); o = optimizer(p)\n"
        "try: dragon_optim.RMSprop([p], lr=-1)\nexcept ValueError as e: held = e"
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_process_ends_well(ending):
    """Exit code 0 and nothing on stderr, whatever is alive, held or half freed when the interpreter ends."""
    done = run_script(SETUP + ENDINGS[ending])
    assert (done.returncode, done.stderr) == (0, "")


# --- stock optimizers ---------------------------------------------------------------------------------------

TOGETHER = {
    "same parameter": """
p = parameter(10)
ours, stock = optimizer(p), torch.optim.RMSprop([p], momentum=0.9)
for _ in range(3):
    for each in (ours, stock):
        each.zero_grad(); (p * p).sum().backward(); each.step()
""",
    "same parameter, sums": """
p = parameter(10)
ours, stock = dragon_optim.RMSprop([p]), torch.optim.RMSprop([p])
for _ in range(3):
    (p * p).sum().backward(); ours.sum_grad(); stock.sum_grad()
    ours.step(); stock.step()
""",
    "different parameters": """
p, q = parameter(10), parameter(10)
ours, stock = optimizer(p), torch.optim.RMSprop([q])
for _ in range(3):
    (p * q).sum().backward(); ours.step(); stock.step(); ours.zero_grad(); stock.zero_grad()
""",
    "stock first, ours without gradient": """
p, q = torch.nn.Parameter(torch.ones(10)), parameter(10)
stock, ours = torch.optim.RMSprop([p, q]), dragon_optim.RMSprop([p, q])
for _ in range(3):
    ours.step(); ours.zero_grad(); ours.sum_grad(); stock.zero_grad(); stock.step()
assert p.grad is None and p.numpy().tolist() == [1] * 10
""",
    "stock takes over the model of a dead optimizer of ours": """
def model():
    return [parameter(10), parameter(20)]
for size in (10, 20, 30):
    ps = [parameter(size), torch.nn.Parameter(torch.ones(size))]
    optimizer(*ps)
    del ps
    q = torch.nn.Parameter(torch.ones(3))
    stock = torch.optim.SGD([q], lr=0.1, momentum=0.9)
    stock.zero_grad(); stock.step()
    assert q.numpy().tolist() == [1] * 3
""",
    "every stock optimizer": """
p = parameter(10)
ours = optimizer(p)
for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop):
    stock = kind([p], lr=0.01)
    (p * p).sum().backward(); stock.step(); ours.step(); stock.zero_grad(); ours.zero_grad(); ours.step()
""",
}


@pytest.mark.parametrize("story", TOGETHER)
def test_beside_stock_optimizers(story):
    """On the same parameters and on others, in any order: no abort.

    Each starts an interpreter, since an abort would end this one.
    """
    done = run_script(SETUP + TOGETHER[story] + "\nprint('to the end')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "to the end\n", "")


def test_stock_numbers_are_not_disturbed():
    """Importing this package and training with it does not change what a stock optimizer does beside it."""
    script = """
from dragon.vm import torch
{first}
p, q = torch.nn.Parameter(torch.ones(5)), torch.nn.Parameter(torch.ones(5))
stock = torch.optim.RMSprop([p], momentum=0.9, weight_decay=0.1)
{second}
for _ in range(5):
    (p * p).sum().backward(); stock.step()
    {third}
    stock.zero_grad()
print(p.numpy().tobytes().hex())
"""
    alone = run_script(script.format(first="", second="", third=""))
    beside = run_script(
        script.format(
            first="import dragon_optim",
            second="ours = dragon_optim.RMSprop([q])",
            third="(q * q).sum().backward(); ours.sum_grad(); ours.step()",
        )
    )
    assert alone.returncode == beside.returncode == 0
    assert alone.stdout == beside.stdout != ""


@pytest.mark.parametrize("foreach", [True, False])
def test_all_or_nothing(foreach):
    """A bad gradient in the second group, also with one operator for each parameter.

    The first group has not moved.
    """
    params = [parameter(np.ones(3)) for _ in range(4)]
    groups = [{"params": params[:2]}, {"params": params[2:]}]
    optimizer = dragon_optim.RMSprop(groups, momentum=0.9, foreach=foreach)
    for param in params[:3]:
        feed_gradient(param, np.ones(3, "float32"))
    feed_gradient(params[3], np.ones(2, "float32"))
    with pytest.raises(ValueError, match="the gradient of parameter 1 of group 1 is float32 of shape"):
        optimizer.step()
    assert [param.numpy().tolist() for param in params] == [[1, 1, 1]] * 4
    assert len(optimizer.state) == 0
    feed_gradient(params[3], np.ones(3, "float32"))
    optimizer.step()
    assert [optimizer.state[param]["step"] for param in params] == [1] * 4


def test_no_thread_is_started_at_import():
    script = """
import os, dragon
before = os.listdir('/proc/self/task')
import dragon_optim
assert os.listdir('/proc/self/task') == before
"""
    assert run_script(script).returncode == 0
