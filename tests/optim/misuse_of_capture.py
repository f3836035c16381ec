# SPDX-License-Identifier: BSD-2-Clause
"""Misuses of captured functions: what cannot be replayed must say so, and leave nothing behind."""

from __future__ import annotations

import functools
import os

import dragon
import numpy as np
from dragon.core.framework import workspace
from dragon.vm import torch

import dragon_optim
from dragon_optim.graph import NotCapturableError, capture
from tests.optim.elsewhere import in_thread
from tests.optim.forked_cases import Table
from tests.optim.support import backward

CASES = Table()
misuse = CASES.case


def step_of(w):
    """A good step."""

    def step(x):
        loss = (w.p * x).sum() + (w.q * w.q).sum()
        loss.backward()
        w.optimizer.step()
        return loss

    return step


X = [1.0, 2.0, 3.0]


def tensor(numbers=X):
    return torch.tensor(numbers, dtype="float32")


# --- inside the function --------------------------------------------------------------------------

READS = {
    "float": float,
    "int": int,
    "item": lambda t: t.item(),
    "numpy": lambda t: t.numpy(),
    "tolist": lambda t: t.tolist(),
    "print": str,
    "format": lambda t: f"{t}",
    "array": lambda t: np.array(t.numpy()),
}

for _name, _read in READS.items():

    @misuse(NotCapturableError, "Return the tensor, and read it outside", name=f"capture-reads-by-{_name}")
    def _(w, read=_read):
        def step(x):
            read((w.p * x).sum())

        yield functools.partial(capture(step), tensor())


FEEDS = {
    "tensor": lambda: torch.tensor([1.0]),
    "from_numpy": lambda: torch.from_numpy(np.ones(3)),
    "Tensor": lambda: torch.Tensor([1.0, 2.0]),
}

for _name, _feed in FEEDS.items():

    @misuse(NotCapturableError, "pass it as an argument", name=f"capture-feeds-by-{_name}")
    def _(w, feed=_feed):
        yield functools.partial(capture(lambda x: feed() * 1.0), tensor())


CALLS = {
    "new-optimizer": lambda w: dragon_optim.RMSprop([w.p]),
    "new-stock-optimizer": lambda w: torch.optim.SGD([w.p], lr=1.0),
    "add_param_group": lambda w: w.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]}),
    "state_dict": lambda w: w.optimizer.state_dict(),
    "load_state_dict": lambda w: w.optimizer.load_state_dict({}),
    "load-module": lambda w: torch.nn.Linear(1, 1).load_state_dict({}),
}

for _name, _call in CALLS.items():

    @misuse(NotCapturableError, "inside a captured function", name=f"capture-{_name}")
    def _(w, call=_call):
        yield functools.partial(capture(lambda x: call(w)), tensor())


@misuse(NotCapturableError, "Return the tensor", name="capture-swallows-the-refusal")
def _(w):
    def step(x):
        try:
            return float(x)
        except RuntimeError:
            return None

    yield functools.partial(capture(step), tensor())


@misuse(NotCapturableError, "ran before", name="capture-backward-through-what-ran-before")
def _(w):
    before = (w.p * 2.0).sum()

    def step(x):
        (before * x.sum()).backward()

    yield functools.partial(capture(step), tensor())


@misuse(NotCapturableError, "torch.utils.checkpoint", name="capture-checkpoint")
def _(w):
    from dragon.vm.torch.core.utils.checkpoint import checkpoint

    layer = torch.nn.Linear(3, 3)

    def step(x):
        checkpoint(layer, x * w.p).sum().backward()

    yield functools.partial(capture(step), torch.ones(1, 3))


@misuse(NotCapturableError, "inside another captured function", name="capture-nested")
def _(w):
    inner = capture(lambda x: x * 2.0)
    yield functools.partial(capture(lambda x: inner(x)), tensor())


@misuse(NotCapturableError, "traced by torch.jit.trace", name="capture-around-a-trace")
def _(w):
    traced = torch.jit.trace(lambda x: x * 2.0, example_inputs=[tensor()])
    yield functools.partial(capture(lambda x: traced(x)), tensor())


@misuse(RuntimeError, "torch.jit.trace", name="capture-inside-a-trace")
def _(w):
    captured = capture(step_of(w))
    yield lambda: torch.jit.trace(lambda x: captured(x), example_inputs=[tensor()])(tensor())


@misuse(ZeroDivisionError, name="capture-of-a-function-that-raises")
def _(w):
    def step(x):
        (w.p * x).sum()
        return 1 / 0

    yield functools.partial(capture(step), tensor())


@misuse(NotCapturableError, "depends on values", name="capture-shape-of-a-mask")
def _(w):
    yield functools.partial(capture(lambda x: x[x > 0.0] * float(x[x > 0.0].numel())), tensor())


@misuse(NotCapturableError, "native interface is fed", name="capture-native-operator")
def _(w):
    yield functools.partial(capture(lambda x: dragon.reshape(x, (-1, 1))), tensor())


# --- arguments and results ------------------------------------------------------------------------

for _name, _value in {"number": 1.0, "array": np.ones(3), "bytes": b"x", "list": [1.0], "dict": {}}.items():

    @misuse(TypeError, "functools.partial.*torch.tensor", name=f"capture-argument-{_name}")
    def _(w, value=_value):
        yield functools.partial(capture(step_of(w)), value)


for _name, _value in {
    "number": 1.0,
    "nested": ([{1}],),
    "array": np.ones(1),
    "string": "x",
    "empty": torch.Tensor(),
}.items():

    @misuse(TypeError, "a replay knows no other values", name=f"capture-result-{_name}")
    def _(w, value=_value):
        yield functools.partial(capture(lambda x: value), tensor())


@misuse(ValueError, "requires a gradient", name="capture-argument-requires-grad")
def _(w):
    yield functools.partial(capture(step_of(w)), w.p)


@misuse(RuntimeError, "another Dragon workspace", name="capture-argument-of-another-workspace")
def _(w):
    elsewhere = workspace.Workspace()
    with elsewhere.as_default():
        other = tensor()
    yield functools.partial(capture(step_of(w)), other)


@misuse(TypeError, "needs a function", name="capture-nothing")
def _(w):
    yield lambda: capture(3)


for _options in ({"optimization": 0}, {"optimization": 4}, {"optimization": True}, {"max_graphs": -1},
                 {"max_graphs": 1.5}):  # fmt: skip

    @misuse(ValueError, "Invalid", name=f"capture-with-{_options}")
    def _(w, options=_options):
        yield lambda: capture(step_of(w), **options)


# --- surroundings ---------------------------------------------------------------------------------

for _calls in (0, 1, 3):

    @misuse(RuntimeError, "another Dragon workspace", name=f"capture-in-another-workspace-after-{_calls}")
    def _(w, calls=_calls):
        captured = capture(step_of(w))
        for _ in range(calls):
            captured(tensor())

        def act():
            with workspace.Workspace().as_default():
                captured(tensor())

        yield act

    @misuse(RuntimeError, "another Dragon workspace", name=f"capture-in-another-thread-after-{_calls}")
    def _(w, calls=_calls):
        captured = capture(step_of(w))
        for _ in range(calls):
            captured(tensor())
        yield lambda: in_thread(lambda: captured(tensor()))

    @misuse(RuntimeError, "workspace.* was cleared", name=f"capture-after-clear-{_calls}", goes_on=False)
    def _(w, calls=_calls):
        captured = capture(step_of(w))
        for _ in range(calls):
            captured(tensor())
        workspace.get_workspace().clear()
        yield functools.partial(captured, tensor())

    @misuse(
        ValueError, "Invalid learning rate", name=f"capture-with-a-wrong-learning-rate-after-{_calls + 1}"
    )
    def _(w, calls=_calls):
        captured = capture(step_of(w))
        for _ in range(calls + 1):
            captured(tensor())
        x = tensor()
        w.group["lr"] = -1.0
        yield functools.partial(captured, x)


@misuse(None)
def capture_in_a_thread_that_takes_the_workspace_along(w):
    home, captured = workspace.get_workspace(), capture(step_of(w))
    captured(tensor())

    def work():
        with home.as_default():
            return captured(tensor())

    yield lambda: in_thread(work)
    assert captured.replays == 1


@misuse(None)
def capture_in_a_fork(w):
    captured = capture(step_of(w))
    for _ in range(3):
        captured(tensor())

    def act():
        child = os.fork()
        if child == 0:
            try:
                captured(tensor())
                code = 0 if captured.replays == 3 else 3
            except BaseException:
                code = 4
            os._exit(code)
        _, status = os.waitpid(child, 0)
        assert status == 0, status

    yield act


@misuse(None)
def capture_again_after_a_refusal(w):
    reading = [True]

    def step(x):
        if reading[0]:
            float(x.sum())
        return step_of(w)(x)

    captured = capture(step)
    try:
        captured(tensor())
    except NotCapturableError:
        reading.clear()
        reading.append(False)

    def act():
        for _ in range(3):
            captured(tensor())

    yield act
    assert captured.replays == 2
    backward(w.p, 1.0, w.q, 1.0)
    assert float((w.p * 1.0).sum()) == w.p.numpy().sum()
