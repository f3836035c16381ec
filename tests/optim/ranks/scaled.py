# SPDX-License-Identifier: BSD-2-Clause
"""Steps with a loss scale: gradients that overflow on one rank, on none, or on both."""

from __future__ import annotations

import contextlib

import numpy as np
from dragon.vm import torch

import dragon_optim
from tests.optim.ranks import meeting, trajectories
from tests.optim.support import backward, feed_gradient, parameter, values

# For each step the ranks whose gradients overflow.
OVERFLOWS = [(), (1,), (), (0, 1), (0,), ()]
SKIPPED = [bool(ranks) for ranks in OVERFLOWS]
STEPS = len(OVERFLOWS)
SCALES = [1024.0, 512.0, 512.0, 256.0, 128.0, 128.0]  # after each step
LOSS = torch.tensor(1.0)


def gradient(step: int, rank: int, place: int, size: int) -> np.ndarray:
    return np.random.RandomState(100 * step + 10 * rank + place).standard_normal(size).astype("float32")


class Training:
    """Two parameters, and an optimizer with a scaler."""

    def __init__(self, kind=dragon_optim.RMSprop, **options):
        self.params = [parameter(np.ones(3)), parameter(np.ones(5))]
        self.optimizer = kind(self.params, lr=0.1, momentum=0.9, **options)
        self.scaler = dragon_optim.GradScaler("cpu", init_scale=1024.0)

    def feed(self, step, rank, spoiled=False):
        scale = np.float32(float(self.scaler.scale(LOSS)))
        for place, param in enumerate(self.params):
            array = gradient(step, rank, place, param.shape[0]) * scale
            if spoiled and place == step % 2:
                array[-1] = np.inf if step % 3 else np.nan
            self.give(param, array)

    def give(self, param, array):
        feed_gradient(param, array)

    def step(self, unscale=False):
        if unscale:
            self.scaler.unscale_(self.optimizer)
        self.scaler.step(self.optimizer)
        skipped = self.scaler.step_was_skipped(self.optimizer)
        self.scaler.update()
        return skipped, self.scaler.get_scale()

    def bits(self):
        if isinstance(self.optimizer, dragon_optim.Optimizer):
            entries = [trajectories.snapshot(self.optimizer, param) for param in self.params]
            return [dict(entry, grad=None) for entry in entries]
        return [param.numpy().tobytes().hex() for param in self.params]


class Summing(Training):
    """Two micro-batches of one gradient and of half of it."""

    def give(self, param, array):
        for part in (array, array / 2):
            backward(param, part)
            self.optimizer.sum_grad()


HOW = {
    "scaled": (Training, {}, False),
    "unscaled first": (Training, {}, True),
    "sums": (Summing, {}, False),
    "stock": (Training, {"kind": torch.optim.RMSprop}, False),
}


def play(name, rank, overflows):
    """The whole training on one rank: what each step did, and the end."""
    kind, options, unscale = HOW[name]
    training, steps = kind(**options), []
    for number in range(STEPS):
        training.feed(number, rank, spoiled=overflows(number))
        steps.append(training.step(unscale))
    return {"steps": steps, "bits": training.bits()}


def missing_gradients(meet):
    """On rank 1 in the first step, on both in the second."""
    training = Training()
    if meet.rank == 0:
        training.feed(0, 0)
    training.scaler.scale(LOSS)
    first = training.step()
    training.optimizer.zero_grad(set_to_none=True)
    return {"steps": [first, training.step()], "bits": training.bits()}


def large_gradients():
    """Whose sum over the ranks would overflow. The scale is as large."""
    training = Training()
    training.scaler = dragon_optim.GradScaler("cpu", init_scale=2.0**127)
    training.scaler.scale(LOSS)
    for param in training.params:
        feed_gradient(param, np.full(param.shape, 1.5 * 2.0**127, "float32"))
    return {"steps": [training.step()], "bits": training.bits()}


def errors(meet, kind=dragon_optim.RMSprop):
    """On one rank; a good step follows."""
    found = {}
    for name in (
        ("bad lr", "bad dtype", "no loss was scaled") if kind is dragon_optim.RMSprop else ("bad dtype",)
    ):
        training = Training(kind)
        training.feed(0, meet.rank)
        if meet.rank == 1:
            if name == "bad lr":
                training.optimizer.param_groups[0]["lr"] = -1.0
            elif name == "bad dtype":
                feed_gradient(training.params[0], np.ones(3, "int32"))
            else:
                training.scaler = dragon_optim.GradScaler("cpu", init_scale=1024.0)
        before, given = training.bits(), values(training.params[1].grad).tobytes()
        message = "no error"
        try:
            training.scaler.step(training.optimizer)
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
        unchanged = training.bits() == before
        if meet.rank == 0:  # its gradients are as they were
            unchanged &= values(training.params[1].grad).tobytes() == given
        training.optimizer.param_groups[0]["lr"] = 0.1
        training.feed(1, meet.rank)
        with contextlib.suppress(AssertionError):
            training.step()
        found[name] = [message, unchanged, training.bits()]
    return found


def main():
    meet = meeting.Meeting()
    with meet.group.as_default():
        for name in HOW:
            meet.report(name, play(name, meet.rank, lambda number: meet.rank in OVERFLOWS[number]))
        meet.report("missing", missing_gradients(meet))
        meet.report("large", large_gradients())
        meet.report("errors", errors(meet))
        meet.report("errors of stock", errors(meet, torch.optim.RMSprop))


if __name__ == "__main__":
    main()
