# SPDX-License-Identifier: BSD-2-Clause
"""Tensors and operators for graphs that are written by hand.

`csrc/segments.h` says what the edges of an update are.
"""

from __future__ import annotations

import faulthandler
import itertools
import json
import os
import signal

import numpy as np
from dragon.core.framework import workspace
from dragon.vm.torch.core.cpp import device as Device

from dragon_optim import RMSprop
from dragon_optim._dragon import graphs

DTYPE_CODES = {"float16": 0, "float32": 1, "float64": 2}
FIELDS = [field.key for field in RMSprop.hyper_fields]
DEFAULTS = dict(dict.fromkeys(FIELDS, 0), lr=0.01, alpha=0.99, eps=1e-8, grad_scale=1)
# Where the operators run: "cpu", or "cuda" in a build that has them for it. Some are for the CPU only.
CPU = Device("cpu")
PLACE = Device(os.environ.get("DRAGON_OPTIM_TESTS_DEVICE", "cpu"))
CHILD_SECONDS = 30

_numbers = itertools.count()


class Edge:
    """A tensor of the workspace under a name of its own, without data if it is given None."""

    def __init__(self, array=None):
        self.name = f"tests/operators/{next(_numbers)}"
        self._impl = workspace.get_workspace().create_tensor(self.name)
        if array is not None:
            self.feed(array)

    def feed(self, array):
        self._impl.FromNumpy(np.array(array), True)

    def take_away(self):
        self._impl.Reset()

    @property
    def array(self):
        """A copy, or None: reading a tensor without data would end the process."""
        return np.array(self._impl.ToNumpy()) if self._impl.size > 0 else None


def edge(value):
    return value if isinstance(value, Edge) else Edge(value)


def operator(kind, inputs, outputs, **arguments):
    place = CPU if "Differentiable" in kind else PLACE
    return graphs.operator(
        kind, [each.name for each in inputs], [each.name for each in outputs], place, **arguments
    )


def run_graph(*operators):
    graphs.Graph(workspace.get_workspace(), operators).run()


def run_eagerly(*operators):
    for each in operators:
        workspace.get_workspace().run_operator(each)


def hyper(*rows):
    """The table of hyper-parameters; a row says what is not the default."""
    return np.array([[float(dict(DEFAULTS, **row)[key]) for key in FIELDS] for row in rows])


class Segment:
    """Parameters of one group and one dtype, each with its gradient and states."""

    def __init__(self, params, grads, states=("square_avg",), group=0, first_slot=0):
        self.params, self.grads = [edge(each) for each in params], [edge(each) for each in grads]
        self.names, self.group = states, group
        self.states = {name: [Edge() for _ in params] for name in states}
        self.slots = list(range(first_slot, first_slot + len(params)))
        self.dtype = DTYPE_CODES[str(self.params[0].array.dtype)]

    @property
    def outputs(self):
        return self.params + [state for name in self.names for state in self.states[name]]

    def arrays(self):
        return [each.array for each in self.outputs]


class Update:
    """The operators of a step over some segments: one check over all, one update for each."""

    def __init__(self, segments, rows, slots=None, mask=None):
        self.segments = segments
        count = slots or 1 + max(slot for each in segments for slot in each.slots)
        self.hyper = Edge(hyper(*rows))
        self.mask = Edge(np.ones(count, "int64") if mask is None else np.array(mask, "int64"))
        self.steps = Edge(np.zeros(count, "int64"))

    def _operator(self, kind, segments, **arguments):
        return operator(
            kind,
            [self.hyper, self.mask] + [grad for each in segments for grad in each.grads],
            [output for each in segments for output in each.outputs] + [self.steps],
            groups=[each.group for each in segments],
            sizes=[len(each.params) for each in segments],
            num_states=[len(each.names) for each in segments],
            dtypes=[each.dtype for each in segments],
            slots=[slot for each in segments for slot in each.slots],
            hyper_size=self.hyper.array.size,
            summed=0,
            **arguments,
        )

    def check(self):
        return self._operator("DragonOptimCheck", self.segments)

    def updates(self):
        return [
            self._operator("DragonOptimRMSprop", [each], states=list(each.names)) for each in self.segments
        ]

    def operators(self):
        return [self.check(), *self.updates()]

    def arrays(self):
        return [*[array for each in self.segments for array in each.arrays()], self.steps.array]


def in_child(function):
    """What a process comes to that calls it: what it returns, "Error: message", or the signal that ended it.

    The child is a fork. It only runs our own operators: of Dragon's, those that use OpenMP would hang in it.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(CHILD_SECONDS)
            faulthandler.disable()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # Dragon's last words
            try:
                text = json.dumps(function())
            except Exception as error:
                text = json.dumps(f"{type(error).__name__}: {error}")
            os.write(writer, text.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else json.loads(text)


def refusal(inputs, outputs, run):
    """What `run(given, results)` raises in a child, over edges with these arrays. Nothing may be written.

    `outputs` are arrays, or the number of the input from which on the outputs are the inputs.
    """

    def work():
        given = [Edge(array) for array in inputs]
        results = given[outputs:] if isinstance(outputs, int) else [Edge(array) for array in outputs]
        try:
            run(given, results)
        except (ValueError, RuntimeError) as error:
            same = all(
                array is None or np.array_equal(edge.array, array, equal_nan=True)
                for edge, array in zip(given, inputs)
            )
            return str(error) if same else "something was written"
        return "no error"

    return in_child(work)
