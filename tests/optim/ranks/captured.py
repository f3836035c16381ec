# SPDX-License-Identifier: BSD-2-Clause
"""Captured steps in the group of both ranks, and on one rank alone."""

from __future__ import annotations

import warnings

import numpy as np
from dragon.vm import torch

import dragon_optim
from tests.optim.ranks import meeting
from tests.optim.support import values

STEPS = 6


def train(rank, capture, group_inside=None, stock=False):
    """Train one weight on inputs that differ from rank to rank; return what it became, and the capture."""
    weight = torch.nn.Parameter(torch.ones(3))
    make = torch.optim.SGD if stock else dragon_optim.RMSprop
    optimizer = make([weight], lr=0.1, momentum=0.5)

    def step(x):
        loss = (weight * weight * x).sum()
        loss.backward()
        if group_inside is None:
            optimizer.step()
        else:
            with group_inside.as_default():
                optimizer.step()
        return loss

    run = dragon_optim.graph.capture(step) if capture else step
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        losses = [float(run(torch.ones(3) * (1.0 + rank + number))) for number in range(STEPS)]
    return {
        "weight": values(weight).tolist(),
        "losses": np.array(losses).tolist(),
        "replays": getattr(run, "replays", None),
        "warnings": [str(each.message) for each in caught],
    }


def main():
    meet = meeting.Meeting()
    for stock in (False, True):
        kind = "stock" if stock else "ours"
        for capture in (False, True):
            how = "captured" if capture else "eager"
            with meet.group.as_default():
                meet.report(f"{kind} {how} around", train(meet.rank, capture, stock=stock))
            try:
                report = train(meet.rank, capture, meet.group, stock)
            except RuntimeError as error:  # reported, so that the other scenarios run
                report = {"error": str(error)}
            meet.report(f"{kind} {how} inside", report)
    alone = meet.own_group()
    with alone.as_default():
        meet.report("alone", train(meet.rank, True))
    # The group comes later, and goes again.
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = dragon_optim.RMSprop([weight], lr=0.1)

    @dragon_optim.graph.capture
    def step(x):
        (weight * weight * x).sum().backward()
        optimizer.step()

    x = torch.ones(3) * (1.0 + meet.rank)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(9):
            if number // 3 == 1:
                with meet.group.as_default():
                    step(x)
            else:
                step(x)
    meet.report("comes and goes", {"replays": step.replays, "step": int(optimizer.state[weight]["step"])})


if __name__ == "__main__":
    main()
