# SPDX-License-Identifier: BSD-2-Clause
"""The tables' cases on their way through `dragon_optim.RMSprop` on Dragon."""

from __future__ import annotations

import contextlib

import numpy as np
from dragon.vm import torch

import dragon_optim
from dragon_optim._dragon import library
from tests.golden.recording import NAMES
from tests.optim.support import feed_gradient, parameter

STATES = (*NAMES[1:], "master_param")
INSTRUCTION_SETS = library.kernels().dragon_optim_supported_isas().decode().split(",")


@contextlib.contextmanager
def using_instruction_set(name):
    kernels = library.kernels()
    former = kernels.dragon_optim_isa()
    assert kernels.dragon_optim_set_isa(name.encode()) == 0, kernels.dragon_optim_last_error()
    assert kernels.dragon_optim_isa() == name.encode()
    try:
        yield
    finally:
        kernels.dragon_optim_set_isa(former)


def backward_gradients(params, grads):
    """Get exactly these gradients out of a backward pass."""
    losses = []
    for param, grad in zip(params, grads):
        if grad is not None and param.dtype != "float16" and 0 not in grad.shape[1:]:
            losses.append((param * torch.tensor(grad, dtype=str(grad.dtype))).sum())
        elif grad is not None:
            feed_gradient(param, grad)
    for loss in losses:
        loss.backward()


def feed_gradients(params, grads):
    for param, grad in zip(params, grads):
        if grad is not None:
            feed_gradient(param, grad)


class Run:
    """A case on its way through the optimizer."""

    optimizer_class = dragon_optim.RMSprop

    def __init__(self, case, dtype, give_gradients=feed_gradients, **arguments):
        self.case, self.dtype, self.give_gradients = case, dtype, give_gradients
        self.params = [parameter(array, dtype) for array in case.parameters(dtype)]
        groups = [
            dict(self.arguments(options), params=[self.params[i] for i in places])
            for options, places in case.groups()
        ]
        self.optimizer = self.optimizer_class(groups, **arguments)

    @staticmethod
    def arguments(options) -> dict:
        """The options of a case as the optimizer calls them."""
        return options

    def steps(self, start=0):
        """Do all steps from `start` on; yield what the optimizer holds after each."""
        for step in range(start, self.case.steps):
            for group in self.optimizer.param_groups:
                group.update(self.case.schedule.get(step, {}))
            grads = [self.case.gradient(step, place, self.dtype) for place in range(len(self.params))]
            for param, grad in zip(self.params, grads):
                if grad is None and param.grad is not None:
                    param.grad._impl.Reset()
            self.give_gradients(self.params, grads)
            self.optimizer.step()
            yield self.snapshot()

    def last(self) -> list:
        *_, snapshot = self.steps()
        return snapshot

    def snapshot(self) -> list:
        """As in the recordings: one dict for each parameter."""
        entries = []
        for param in self.params:
            state = self.optimizer.state.get(param, {})
            assert set(state) <= {"step", *STATES}, f"unexpected state: {sorted(state)}"
            entry = {name: np.array(state[name].numpy()) for name in STATES if name in state}
            step = state.get("step", 0)
            assert type(step) is int
            entries.append(dict(entry, param=np.array(param.numpy()), step=step))
        return entries
