# SPDX-License-Identifier: BSD-2-Clause
"""Errors that a rank would notice too late, in a parameter whose gradient only the other rank has."""

from __future__ import annotations

import numpy as np
from dragon.vm import torch

import dragon_optim
from tests.optim.ranks import meeting
from tests.optim.support import parameter


def parameters():
    return [parameter(np.ones(3)), parameter(np.ones((2, 3)))]


def feed(param):
    (param * torch.ones(*param.shape)).sum().backward()


def outcome(optimizer, params, closure=None):
    """What a step raised, and whether anything has moved or counted."""
    before = [(param.numpy().copy(), optimizer.state[param].get("step")) for param in params]
    try:
        optimizer.step(closure)
        raised = None
    except BaseException as error:
        raised = type(error).__name__
    after = [(param.numpy(), optimizer.state[param].get("step")) for param in params]
    return [raised, all((a[0] == b[0]).all() and a[1] == b[1] for a, b in zip(before, after))]


def after_two_steps():
    params = parameters()
    optimizer = dragon_optim.RMSprop(params, momentum=0.9)
    for param in params:
        feed(param)
    optimizer.step()
    return optimizer, params


def second_gradient_on_rank_1(rank):
    optimizer, params = after_two_steps()
    optimizer.zero_grad(set_to_none=True)
    feed(params[0])
    if rank == 1:
        feed(params[1])
    return optimizer, params


def wrong_state(rank):
    """Rank 0 has no gradient of the second parameter, and a state of it that does not fit."""
    optimizer, params = second_gradient_on_rank_1(rank)
    if rank == 0:
        optimizer.state[params[1]]["square_avg"]._impl.FromNumpy(np.ones(5, "float32"), True)
    return outcome(optimizer, params)


def wrong_dtype(rank):
    optimizer, params = second_gradient_on_rank_1(rank)
    if rank == 0:
        params[1]._impl.FromNumpy(np.ones((2, 3)), True)
    return outcome(optimizer, params)


def interrupted(rank):
    """Ctrl-C in the closure of one rank: the other one must not wait for ever."""
    optimizer, params = after_two_steps()

    def closure():
        if rank == 0:
            raise KeyboardInterrupt
        return 1.0

    return outcome(optimizer, params, closure)


SCENARIOS = {"wrong-state": wrong_state, "wrong-dtype": wrong_dtype, "interrupted": interrupted}


def main():
    meet = meeting.Meeting()
    with meet.group.as_default():
        for name, scenario in SCENARIOS.items():
            meet.report(name, scenario(meet.rank))


if __name__ == "__main__":
    main()
