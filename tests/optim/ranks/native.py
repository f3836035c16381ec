# SPDX-License-Identifier: BSD-2-Clause
"""The native optimizer on two ranks: eagerly, and in a function that is built inside of the group."""

from __future__ import annotations

import dragon
import numpy as np

from dragon_optim.native_optimizers import RMSprop
from tests.optim.natives import canonical, computed, variable
from tests.optim.ranks import meeting

STEPS = 4


def gradient(rank, step):
    return np.float32([0.5, -1, 3]) * (rank + 1) * (step + 1)


def train(rank, give, function):
    var, optimizer, found = variable([1.0, 2.0, 3.0]), RMSprop(lr=0.1, momentum=0.9, clip_norm=1.0), []
    apply = lambda: optimizer.apply_gradients([(canonical(var), var)])  # noqa: E731
    apply = dragon.function(apply) if function else apply
    for step in range(STEPS):
        grad = give(var, gradient(rank, step))
        if function:
            apply()
        else:
            optimizer.apply_gradients([(grad, var)])
        found.append([var.numpy().tolist(), grad.numpy().tolist()])
    return found


def half(rank):
    del rank
    var = variable([1.0], "float16")
    try:
        RMSprop().apply_gradients([(canonical(var, np.ones(1, "float16")), var)])
    except RuntimeError as error:
        return [str(error), var.numpy().tolist()]


def main():
    met = meeting.Meeting()
    with met.group.as_default():
        met.report("eager", train(met.rank, canonical, function=False))
        met.report("computed", train(met.rank, computed, function=False))
        met.report("function", train(met.rank, canonical, function=True))
        met.report("half", half(met.rank))


if __name__ == "__main__":
    main()
