# SPDX-License-Identifier: BSD-2-Clause
"""Many cases, each in a process of its own.

What a case does to an optimizer may end its process, and what it leaves behind must not reach the next one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from typing import Callable, NamedTuple

import dragon_optim
from tests.optim.elsewhere import run_script
from tests.optim.support import backward, parameter, snapshot

CASE_SECONDS = 30


class World:
    """What a case starts from: an optimizer with all states, after one good step."""

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


class Table(list):
    """The cases of one subject."""

    def case(self, exception, match="", goes_on=True, name=None):
        """Put a generator function into the table, under its own name or another."""

        def add(function):
            self.append(Case(name or function.__name__, function, exception, match, goes_on))
            return function

        return add


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
    done = run_script(code, seconds=900)  # hundreds of cases, each of which has its own limit
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
