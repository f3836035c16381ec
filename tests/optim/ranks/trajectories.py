# SPDX-License-Identifier: BSD-2-Clause
"""Trainings of two ranks, and the one training without a process group that must give the same bits.

MPI's mean of two numbers is `(a + b) * 0.5`, rounded once in their dtype, so that the parent can compute the
means by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable

import numpy as np
from dragon.vm import torch

import dragon_optim
from tests.optim.support import feed_gradient, parameter

RANKS = 2
SHAPES = ((3, 5), (), (257,), (0,), (4,))
STATES = ("square_avg", "momentum_buffer", "grad_avg")


def everywhere(step, rank, place):
    return True


def only_rank_0(step, rank, place):
    return rank == 0


def each_its_own(step, rank, place):
    """Never the same parameter on both."""
    return place % RANKS == rank


def in_turns(step, rank, place):
    return step % RANKS == rank


def nowhere(step, rank, place):
    return False


def late_on_rank_1(step, rank, place):
    """Rank 0 never has a gradient of the last parameters; rank 1 gets theirs only after the first step."""
    return place < 3 or (rank == 1 and step > 0)


def growing_sets(step, rank, place):
    return place <= step if rank == 0 else place == 4


@dataclass(frozen=True)
class Trajectory:
    name: str
    options: dict = field(default_factory=dict)
    second_group: dict | None = None  # the options of the last two parameters, where they have their own
    dtypes: tuple = ("float32",)  # of the parameters, in turn
    has: Callable = everywhere  # (step, rank, place) -> whether that rank has that gradient
    passes: int = 0  # backward passes with sum_grad() in a step; 0 is a step from `.grad`
    steps: int = 4

    def __str__(self):
        return self.name

    def dtype(self, place) -> str:
        return self.dtypes[place % len(self.dtypes)]

    def gradient(self, step, rank, place, number=0):
        """One gradient of one rank, or None."""
        if not self.has(step, rank, place):
            return None
        random = np.random.RandomState(1000 * step + 100 * rank + 10 * place + number)
        return np.array(random.standard_normal(SHAPES[place]) * 3.0 ** (place - 1), self.dtype(place))

    def given(self, step, rank, place):
        """What that rank brings to the step: its gradient, or the sum of its gradients."""
        total = self.gradient(step, rank, place)
        for number in range(1, self.passes):
            gradient = self.gradient(step, rank, place, number)
            total = total if gradient is None else np.array(total + gradient)
        return total

    def mean(self, step, place):
        """The mean over the ranks, a missing gradient counting as zero; None if no rank has one."""
        given = [self.given(step, rank, place) for rank in range(RANKS)]
        if all(each is None for each in given):
            return None
        zero = np.zeros(SHAPES[place], self.dtype(place))
        first, second = (zero if each is None else each for each in given)
        return np.array((first + second) * np.array(0.5, self.dtype(place)))

    def make(self):
        """Parameters, the same on every rank, and an optimizer of them."""
        params = [
            parameter(np.random.RandomState(place).standard_normal(shape), self.dtype(place))
            for place, shape in enumerate(SHAPES)
        ]
        if self.second_group is None:
            return params, dragon_optim.RMSprop(params, **self.options)
        groups = [{"params": params[:3]}, dict(self.second_group, params=params[3:])]
        return params, dragon_optim.RMSprop(groups, **self.options)


ALL_OPTIONS = dict(lr=0.02, alpha=0.9, momentum=0.9, centered=True, weight_decay=0.01)

TRAJECTORIES = [
    Trajectory("plain", dict(lr=0.1)),
    Trajectory("momentum-centered-float32", ALL_OPTIONS),
    Trajectory("momentum-centered-float64", ALL_OPTIONS, dtypes=("float64",)),
    Trajectory("float32-and-float64", ALL_OPTIONS, dtypes=("float32", "float64")),
    # The gradients of the ranks have norms well above the bound, and most of them differ in direction:
    # clipping each rank's own before the mean would give other numbers.
    Trajectory("clip-norm", dict(lr=0.1, momentum=0.5, clip_norm=0.5)),
    Trajectory("clip-value", dict(lr=0.1, clip_value=0.1)),
    Trajectory("groups", dict(lr=0.1, momentum=0.9), second_group=dict(lr=0.003, momentum=0, centered=True)),
    Trajectory("one-operator-each", ALL_OPTIONS, second_group=dict(lr=0.003), dtypes=("float64", "float32")),
    Trajectory("sums", ALL_OPTIONS, passes=3),
    Trajectory("sums-float64", ALL_OPTIONS, second_group=dict(lr=0.5), dtypes=("float64",), passes=2),
    Trajectory("none-on-rank-1", ALL_OPTIONS, has=only_rank_0),
    Trajectory("each-its-own", ALL_OPTIONS, has=each_its_own),
    Trajectory("each-its-own-one-operator-each", dict(ALL_OPTIONS, foreach=False), has=each_its_own),
    Trajectory("in-turns", ALL_OPTIONS, has=in_turns),
    Trajectory("nowhere", ALL_OPTIONS, has=nowhere),
    Trajectory("late-on-rank-1", ALL_OPTIONS, has=late_on_rank_1),
    Trajectory("growing-sets", ALL_OPTIONS, dtypes=("float32", "float64"), has=growing_sets, steps=6),
    Trajectory("sums-none-on-rank-1", ALL_OPTIONS, has=only_rank_0, passes=2),
    Trajectory("sums-each-its-own", ALL_OPTIONS, has=each_its_own, passes=2),
    Trajectory("sums-in-turns", ALL_OPTIONS, has=in_turns, passes=2),
    Trajectory("sums-late-on-rank-1", ALL_OPTIONS, has=late_on_rank_1, passes=2),
    Trajectory(
        "sums-growing-sets", ALL_OPTIONS, dtypes=("float32", "float64"), has=growing_sets, passes=2, steps=6
    ),
]
TRAJECTORIES[7].options["foreach"] = False

ALONE = Trajectory("alone", ALL_OPTIONS)  # each rank for itself


def play(trajectory: Trajectory, gradient, rank=None) -> list:
    """Train; return what there is in the end, a dict for each parameter.

    `gradient(step, place)` is what `.grad` holds before a step. With a rank given, its gradients are summed
    up from backward passes instead where the trajectory says so.
    """
    params, optimizer = trajectory.make()
    for step in range(trajectory.steps):
        optimizer.zero_grad(set_to_none=True)
        if rank is not None and trajectory.passes:
            _sum_passes(trajectory, step, rank, params, optimizer)
        else:
            for place, param in enumerate(params):
                value = gradient(step, place)
                if value is not None:
                    feed_gradient(param, value)
        optimizer.step()
    return [snapshot(optimizer, param) for param in params]


def _sum_passes(trajectory, step, rank, params, optimizer):
    for number in range(trajectory.passes):
        for place, param in enumerate(params):
            gradient = trajectory.gradient(step, rank, place, number)
            if gradient is not None:
                (param * torch.tensor(gradient, dtype=param.dtype)).sum().backward()
        optimizer.sum_grad()


def hexadecimal(tensor) -> str:
    return np.array(tensor.numpy()).tobytes().hex()


def snapshot(optimizer, param) -> dict:
    """A parameter, its gradient and its states, to the bit, in a form that JSON can carry."""
    state = optimizer.state.get(param, {})
    entry = {name: hexadecimal(state[name]) for name in STATES if name in state}
    entry["grad"] = None if param.grad is None else hexadecimal(param.grad)
    return dict(entry, param=hexadecimal(param), step=state.get("step", 0))
