# SPDX-License-Identifier: BSD-2-Clause
"""In a process group, parameter lists change and workspaces are cleared or made anew."""

from __future__ import annotations

import dragon
import numpy as np
from dragon.core.framework import workspace

import dragon_optim
from tests.optim.ranks import meeting, trajectories
from tests.optim.support import feed_gradient, parameter

LR = 0.1


def fed(rank, *shapes):
    """Parameters of ones, with gradients whose mean is 1."""
    params = [parameter(np.ones(shape)) for shape in shapes]
    for param in params:
        feed_gradient(param, np.full(param.shape, 2.0 * rank, "float32"))
    return params


def lists_change(rank):
    """The list of parameters shrinks, and grows back after another optimizer has come.

    The buffer of the first layout is gone by then, and its name may be another tensor's.
    """
    params = fed(rank, (2,), (3,))
    optimizer = dragon_optim.RMSprop(params, lr=LR)
    optimizer.step()
    optimizer.param_groups[0]["params"] = params[:1]
    optimizer.step()
    others = fed(rank, (2,), (3,))
    other = dragon_optim.RMSprop(others, lr=LR)
    other.step()
    optimizer.param_groups[0]["params"] = params
    optimizer.step()
    other.step()
    return [trajectories.snapshot(optimizer, param) for param in params] + [
        trajectories.snapshot(other, param) for param in others
    ]


def group_comes(rank):
    params = fed(rank, (2,), (3,))
    optimizer = dragon_optim.RMSprop(params[:1], lr=LR)
    optimizer.step()
    optimizer.add_param_group({"params": params[1:]})
    optimizer.step()
    return [trajectories.snapshot(optimizer, param) for param in params]


def one_step(rank):
    (param,) = fed(rank, (4,))
    optimizer = dragon_optim.RMSprop([param], lr=LR)
    optimizer.step()
    return [trajectories.snapshot(optimizer, param)]


def cleared(rank):
    first = one_step(rank)
    workspace.get_workspace().clear()
    return first + one_step(rank)


def made_anew(rank):
    first = one_step(rank)
    dragon.reset_workspace()
    return first + one_step(rank)


def other_groups(meet, rank):
    """Several optimizers, groups made more than once, and a workspace of its own, all in one process."""
    again = meeting.distributed.new_group([0, 1], backend="MPI")
    results = one_step(rank)
    with again.as_default():
        results += one_step(rank)
    with dragon.Workspace().as_default():
        results += one_step(rank)
    return results + one_step(rank)


SCENARIOS = {
    "group-comes": group_comes,
    "made-anew": made_anew,
    "cleared": cleared,
    "lists-change": lists_change,
}


def main():
    meet = meeting.Meeting()
    with meet.group.as_default():
        meet.report("other-groups", other_groups(meet, meet.rank))
        for name, scenario in SCENARIOS.items():
            try:
                result = scenario(meet.rank)
            except (
                Exception
            ) as error:  # the parent compares: this fails one test, not those of the scenarios after it
                result = [repr(error)]
            meet.report(name, result)


if __name__ == "__main__":
    main()
