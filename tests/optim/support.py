# SPDX-License-Identifier: BSD-2-Clause
"""Helpers of the tests of behaviour: parameters, exact gradients, snapshots, child processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np
from dragon.vm import torch

import dragon_optim
from tests.optim import feed_gradient, make_parameter

__all__ = [
    "backward",
    "feed_gradient",
    "in_thread",
    "moves",
    "parameter",
    "run_script",
    "shown",
    "snapshot",
    "values",
]

ROOT = Path(__file__).resolve().parents[2]
CASE_SECONDS = 30


def parameter(numbers, dtype="float32"):
    """A leaf that holds these numbers."""
    return make_parameter(np.array(numbers, dtype))


def values(tensor):
    """A copy: Dragon's own numpy views change under the reader."""
    return np.array(tensor.numpy())


def backward(param, grad, *others):
    """Leave exactly `grad` in `param.grad`, by a backward pass; further pairs follow in the same pass."""
    loss = None
    for each, number in [(param, grad), *zip(others[::2], others[1::2])]:
        array = np.broadcast_to(np.array(number, each.dtype), tuple(each.shape)).copy()
        term = (each * torch.tensor(array, dtype=each.dtype)).sum()
        loss = term if loss is None else loss + term
    loss.backward()


def snapshot(optimizer, *params) -> dict:
    """The bytes of parameters, gradients and states, and step counts: equal where nothing has changed."""
    found = {}

    def take(name, tensor):
        if tensor is None or tensor._impl.size == 0:  # reading such a tensor would end the process
            found[name] = "no data"
        else:
            found[name] = (tensor.dtype, tuple(tensor.shape), values(tensor).tobytes())

    for i, param in enumerate(params):
        take(f"param {i}", param)
        if param._impl.size == 0:
            continue  # its workspace was cleared, and the states with it
        take(f"grad {i}", param.grad)
        for key, value in optimizer.state[param].items():
            if key == "step":
                found[f"{key} {i}"] = value
            else:
                take(f"{key} {i}", value)
    return found


def shown(optimizer, param):
    """The gradient that one step() uses for a float64 `param`; None if it does not use any.

    For options alpha=0, eps=1 and lr=1, with which gradient g moves a parameter by g / (abs(g) + 1).
    """
    steps = optimizer.state[param].get("step", 0)
    before = values(param).reshape(-1)[0]
    optimizer.step()
    move = before - values(param).reshape(-1)[0]
    if optimizer.state[param].get("step", 0) == steps:
        assert move == 0
        return None
    return round(move / (1 - abs(move)), 3)


def moves(optimizer, *params):
    """How far one step from gradients of 1 takes each parameter."""
    before = [values(param) for param in params]
    for param in params:
        backward(param, 1.0)
    optimizer.step()
    return [round(float((old - values(param)).reshape(-1)[0]), 6) for old, param in zip(before, params)]


def in_thread(function):
    """Call it in another thread; return what it returns, raise what it raises."""
    outcome = []

    def work():
        try:
            outcome.append((function(), None))
        except Exception as error:  # handed to the caller, who raises it
            outcome.append((None, error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    ((result, error),) = outcome
    if error is not None:
        raise error
    return result


def run_script(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a script in an interpreter of its own. `returncode` is negative where a signal ended it."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, paths)), **environment)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# --- many cases, each in a process of its own -----------------------------------------------------


class World:
    """What a misuse starts from: an optimizer with all states, after one good step."""

    def __init__(self):
        self.p, self.q = parameter([1.0, 2.0, 3.0]), parameter([[4.0, 5.0]])
        self.optimizer = dragon_optim.RMSprop([self.p, self.q], momentum=0.9, centered=True)
        self.good_step()
        self.groups = [dict(group, params=list(group["params"])) for group in self.optimizer.param_groups]

    @property
    def group(self):
        return self.optimizer.param_groups[0]

    def good_step(self):
        backward(self.p, 1.0, self.q, -1.0)
        self.optimizer.step()

    def snapshot(self):
        return snapshot(self.optimizer, self.p, self.q)

    def step_again(self):
        """Put the groups right and train on: an error must not have harmed the optimizer."""
        before = self.optimizer.state[self.p]["step"]
        self.optimizer.param_groups = [dict(group, params=list(group["params"])) for group in self.groups]
        self.optimizer.zero_grad(drop_sums=True)
        self.good_step()
        assert self.optimizer.state[self.p]["step"] == before + 1


class Case(NamedTuple):
    """A generator function: what it does before `yield` is arrangement, what it yields is called and judged.

    `exception` is the type that the call must raise, None where it is legal.
    """

    name: str
    function: Callable
    exception: type | None
    match: str
    goes_on: bool  # whether the optimizer can be used afterwards

    def __str__(self):
        return self.name


def _play(case: Case, report) -> None:
    """One case, to its end. What is wrong goes up as an exception, and so does the one that was expected."""
    world = World()
    story = case.function(world)
    action = next(story)
    before = world.snapshot()
    caught = None
    try:
        action()
    except Exception as error:  # judged by the test that reads the report, and raised again below
        caught = error
    changed = [] if caught is None else sorted(k for k, v in _differences(before, world.snapshot()))
    result = {"type": type(caught).__name__, "message": str(caught), "changed": changed}
    rest = next(story, "end")
    assert rest == "end", "a case yields once"
    if case.goes_on:
        world.step_again()
    report(result)
    if caught is not None:
        raise caught


def _differences(before: dict, after: dict):
    return [(key, after.get(key)) for key in {**before, **after} if before.get(key) != after.get(key)]


def _fork(case: Case) -> dict:
    reader, writer = os.pipe()
    errors = os.memfd_create("stderr")
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        signal.alarm(CASE_SECONDS)
        os.close(reader)
        os.dup2(errors, 2)
        # Not os._exit(): the interpreter must get through its own end, where a wrong destructor would show.
        _play(case, lambda result: os.write(writer, json.dumps(result).encode()))
        raise SystemExit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    result = json.loads(text) if text else {}
    with os.fdopen(errors, "rb") as file:
        file.seek(0)
        result["stderr"] = file.read().decode(errors="replace")[-3000:]
    result["returncode"] = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return result


def serve(cases) -> None:
    """Run each case in a fork of this process, which has imported everything but has not computed yet.

    A fork costs some milliseconds where an interpreter costs a second. Nothing is computed before the fork:
    the threads of OpenMP do not live on in a child.
    """
    parent = os.getpid()
    try:
        outcomes = {case.name: _fork(case) for case in cases}
    except Exception:
        if os.getpid() == parent:
            raise
        traceback.print_exc()  # a child: its case raised what it should, or an assertion of it failed
        sys.exit(1)
    print(json.dumps(outcomes))


def run_cases(module: str) -> dict:
    """The outcomes of a module that calls `serve`."""
    code = f"import runpy; runpy.run_module({module!r}, run_name='__main__')"
    done = run_script(code)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
