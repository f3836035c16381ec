# SPDX-License-Identifier: BSD-2-Clause
"""Every trajectory in the group of both ranks, and one in each kind of group that is none."""

from __future__ import annotations

import contextlib

from tests.optim.ranks import meeting, trajectories


def main():
    meet = meeting.Meeting()

    def gradient(trajectory):
        return lambda step, place: trajectory.gradient(step, meet.rank, place)

    for trajectory in trajectories.TRAJECTORIES:
        with meet.group.as_default():
            meet.report(trajectory.name, trajectories.play(trajectory, gradient(trajectory), meet.rank))
    no_groups = {
        "alone: a group of one rank": meet.own_group().as_default(),
        "alone: the empty group": meeting.distributed.new_group(None).as_default(),
        "alone: no group": contextlib.nullcontext(),
    }
    for name, context in no_groups.items():
        with context:
            # Ranks that wait for each other would hang: they do not take the same number of steps.
            for _ in range(1 + meet.rank):
                result = trajectories.play(trajectories.ALONE, gradient(trajectories.ALONE), meet.rank)
            meet.report(name, result)


if __name__ == "__main__":
    main()
