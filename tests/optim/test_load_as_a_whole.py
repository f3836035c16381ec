# SPDX-License-Identifier: BSD-2-Clause
"""A load is done as a whole: memory that runs out, Ctrl-C, and threads that step meanwhile."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from dragon.core.framework import workspace

import dragon_optim
from dragon_optim.slots import SlotTable
from dragon_optim.state import ParameterState
from tests.optim.states import trained
from tests.optim.support import snapshot, values

NUMBER = 5


def other_state(lr=0.7):
    """The state dict of another training, a copy."""
    optimizer, *_ = trained(NUMBER, momentum=0.9, lr=lr)
    optimizer.step()
    return copy.deepcopy(optimizer.state_dict())


def arrays(state):
    return {
        number: {name: each if name == "step" else values(each).tolist() for name, each in entry.items()}
        for number, entry in state.items()
    }


def raising_at(call, error):
    """A stand-in for a method that raises once, when it is called for the `call`-th time, before it acts."""
    calls = []

    def wrap(method):
        def wrapper(*args):
            calls.append(args)
            if len(calls) == call:
                raise error
            return method(*args)

        return wrapper

    return wrap


def load(optimizer, params, state):
    optimizer.load_state_dict(state)


def assign(optimizer, params, state):
    optimizer.state = {param: state["state"][number] for number, param in enumerate(params)}


@pytest.mark.parametrize("call", [1, 7, 10])
@pytest.mark.parametrize("way", [load, assign])
def test_nothing_has_changed_when_memory_runs_out(monkeypatch, way, call):
    params = trained(NUMBER)[1:]
    optimizer = dragon_optim.RMSprop(params, lr=0.5, momentum=0.5)  # without state: all of it is made anew
    optimizer.state[params[0]]["mine"] = 3
    groups, before = optimizer.param_groups, snapshot(optimizer, *params[1:])
    state = other_state()
    with monkeypatch.context() as patched:
        patched.setattr(SlotTable, "filled", raising_at(call, MemoryError())(SlotTable.filled))
        with pytest.raises(MemoryError):
            way(optimizer, params, state)
    assert optimizer.param_groups is groups
    assert snapshot(optimizer, *params[1:]) == before
    assert dict(optimizer.state[params[0]]) == {"mine": 3}
    optimizer.load_state_dict(state)
    assert arrays(optimizer.state_dict()["state"]) == arrays(state["state"])


@pytest.mark.parametrize(("owner", "name"), [(ParameterState, "put"), (SlotTable, "drop_state")])
@pytest.mark.parametrize("call", [1, 3])
def test_an_interrupt_waits_until_all_is_taken_over(monkeypatch, owner, name, call):
    optimizer, *_ = trained(NUMBER, momentum=0.9, lr=0.5)
    state = other_state()
    for entry in state["state"].values():
        del entry["momentum_buffer"]  # is dropped
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, raising_at(call, KeyboardInterrupt())(getattr(owner, name)))
        with pytest.raises(KeyboardInterrupt):
            optimizer.load_state_dict(state)
    assert arrays(optimizer.state_dict()["state"]) == arrays(state["state"])
    assert optimizer.param_groups[0]["lr"] == 0.7


def test_a_tensor_that_somebody_holds_keeps_its_values():
    optimizer, *_ = trained(NUMBER, momentum=0.9)
    held = optimizer.state_dict()
    before = arrays(held["state"])
    optimizer.load_state_dict(other_state())
    assert arrays(held["state"]) == before
    assert arrays(optimizer.state_dict()["state"]) != before


WRITES = {
    "load": "optimizer.load_state_dict({**optimizer.state_dict(), 'state': {}})",
    "assign": "optimizer.state = {}",
    "clear": "optimizer.state.clear()",
    "entry": "optimizer.state[params[0]] = {'step': 1, 'square_avg': numpy.ones(50000)}",
    "value": "optimizer.state[params[0]]['square_avg'] = numpy.ones(50000)",
    "delete": "optimizer.state.pop(params[0], None)",
    "setstate": "optimizer.__setstate__(optimizer.__getstate__())",
    "group": "optimizer.add_param_group({'params': [torch.nn.Parameter(torch.ones(2))]})",
}


@pytest.mark.parametrize("what", WRITES)
def test_state_is_written_between_the_steps_of_another_thread(what):
    """In a child process, which a write in the middle of a step would end."""
    script = """
        import sys, threading
        import numpy
        from dragon.core.framework import workspace
        from dragon.vm import torch
        import dragon_optim

        home = workspace.get_workspace()
        params = [torch.nn.Parameter(torch.ones(50000)) for _ in range(8)]
        optimizer = dragon_optim.RMSprop(params, momentum=0.9)
        sum(param.sum() for param in params).backward()
        optimizer.step()
        writes, errors, done = 0, [], threading.Event()

        def run():
            with home.as_default():
                try:
                    while not done.is_set():
                        optimizer.step()
                except BaseException as error:
                    errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        for _ in range(150):
            WRITE
            writes += 1
        done.set()
        thread.join()
        assert not errors, errors
        print(writes)
    """
    script = textwrap.dedent(script).replace("WRITE", WRITES[what])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "150\n"), done.stderr


def test_hooks_run_in_a_child_that_was_forked_during_a_step():
    """The ident of a thread that was in a step is given again in the child."""
    optimizer, *_ = trained()
    inside, go_on = threading.Event(), threading.Event()
    home = workspace.get_workspace()

    def closure():
        inside.set()
        go_on.wait(60)

    def step():
        with home.as_default():
            optimizer.step(closure)

    thread = threading.Thread(target=step)
    thread.start()
    inside.wait(60)
    child = os.fork()
    if child == 0:
        ran = []
        optimizer.register_step_post_hook(lambda *_: ran.append(threading.get_ident()))

        def once():
            with home.as_default():
                optimizer.step()

        for _ in range(3):
            other = threading.Thread(target=once)
            other.start()
            other.join(60)
        os._exit(0 if len(ran) == 3 else 1)
    go_on.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_a_deepcopy_takes_the_memory_of_the_copy_and_no_more():
    script = """
        import copy, gc, os
        from dragon.vm import torch
        import dragon_optim

        def peak():
            with open("/proc/self/status") as file:
                return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))

        tensors = [torch.ones(1 << 24) for _ in range(3)]  # of 64 MiB
        before = peak()
        made = copy.deepcopy(tensors)
        print((peak() - before) / (3 << 26))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert 0.9 < float(done.stdout) < 1.2


def test_a_subclass_may_keep_anything_under_any_name():
    class Mine(dragon_optim.RMSprop):
        pass

    param = trained()[1]
    optimizer = Mine([param])
    optimizer._required = ["lr"]
    made = copy.deepcopy(optimizer)
    assert made._required == ["lr"]
    assert made.defaults == optimizer.defaults


def test_master_weights_of_a_model_that_is_float32_by_now_are_left_out():
    optimizer, param = trained()
    state = copy.deepcopy(optimizer.state_dict())
    state["state"][0]["master_param"] = np.ones(3, "float32")
    optimizer.load_state_dict(state)
    assert "master_param" not in optimizer.state[param]
    assert "master_param" not in optimizer.state_dict()["state"][0]
