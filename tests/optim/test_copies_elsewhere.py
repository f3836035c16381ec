# SPDX-License-Identifier: BSD-2-Clause
"""Copied optimizers in other workspaces, threads and processes; and the memory that copies take."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import pickle

import numpy as np
import pytest
from dragon.core.framework import workspace

import dragon_optim
from tests.optim import memory
from tests.optim.copied import OPTIONS, WAYS, Training, bits, step
from tests.optim.elsewhere import in_thread, run_script
from tests.optim.support import feed_gradient, parameter


def test_under_another_workspace(way):
    """The copy belongs to the workspace in which it was made."""
    original = Training(momentum=0.9).steps(0, 2).optimizer
    expected = bits(Training(momentum=0.9).steps(0, 4).optimizer)
    with workspace.Workspace().as_default():
        made = way(original)
        step(made, 2, 2)
        assert bits(made) == expected
    with pytest.raises(RuntimeError, match="another Dragon workspace"):
        made.step()
    step(original, 2, 2)
    assert bits(original) == expected


def test_in_another_thread(way):
    original = Training(momentum=0.9).steps(0, 2).optimizer

    def work():
        made = way(original)
        step(made, 2, 2)
        return bits(made)

    assert in_thread(work) == bits(Training(momentum=0.9).steps(0, 4).optimizer)


GO_ON = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    optimizer = pickle.load(file)
from tests.optim.copied import bits, step
step(optimizer, 3, 3)
with open(sys.argv[2], "wb") as file:
    pickle.dump(bits(optimizer), file)
"""


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_in_a_new_process(tmp_path, dtype):
    path, result = tmp_path / "optimizer", tmp_path / "bits"
    path.write_bytes(pickle.dumps(Training(dtype, **OPTIONS["everything"]).steps(0, 3).optimizer))
    done = run_script(GO_ON, str(path), str(result))
    assert done.returncode == 0, done.stderr
    expected = bits(Training(dtype, **OPTIONS["everything"]).steps(0, 6).optimizer)
    assert pickle.loads(result.read_bytes()) == expected


def echo(questions, answers):
    """What a worker process does: take an optimizer, step, send it back."""
    optimizer = questions.get()
    step(optimizer, 2, 2)
    answers.put((bits(optimizer), optimizer))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_through_a_queue(method, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(memory.__file__).rsplit("/tests/", 1)[0])  # for the spawned one
    context = multiprocessing.get_context(method)
    questions, answers = context.Queue(), context.Queue()
    original = Training(momentum=0.9).steps(0, 2).optimizer
    before = bits(original)
    process = context.Process(target=echo, args=(questions, answers), daemon=True)
    process.start()
    questions.put(original)
    there, made = answers.get(timeout=60)
    process.join(60)
    assert process.exitcode == 0
    assert bits(original) == before
    assert there == bits(made) == bits(Training(momentum=0.9).steps(0, 4).optimizer)
    step(made, 4, 1)


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("what", ["deepcopy", "pickle-4", "copy", "state-dict"])
def test_copies_leave_nothing_behind(ws, what):
    """200 copies: no names, no graphs, no memory, and none of it left to Python's collector."""
    p = parameter(np.ones(10000))
    original = dragon_optim.RMSprop([p], momentum=0.9)
    feed_gradient(p, np.ones(10000, "float32"))
    original.step()
    copied = {**WAYS, "copy": copy.copy, "state-dict": lambda each: copy.deepcopy(each.state_dict())}[what]
    gc.collect()
    grown = memory.growth(ws, lambda _: copied(original), 20, 200)
    assert grown.before == grown.after
    assert grown.resident < 4 * memory.MEGABYTE
