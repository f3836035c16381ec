# SPDX-License-Identifier: BSD-2-Clause
"""Ways to copy an optimizer, an optimizer worth copying, and all that one holds."""

from __future__ import annotations

import copy
import pickle

import numpy as np

import dragon_optim
from tests.optim.support import feed_gradient, parameter, snapshot

WAYS: dict = {"deepcopy": copy.deepcopy}
for _protocol in range(pickle.HIGHEST_PROTOCOL + 1):
    WAYS[f"pickle-{_protocol}"] = lambda value, p=_protocol: pickle.loads(pickle.dumps(value, p))


OPTIONS = {
    "plain": {},
    "everything": dict(
        lr=0.02,
        alpha=0.9,
        eps=1e-3,
        weight_decay=0.1,
        momentum=0.9,
        centered=True,
        foreach=False,
        maximize=True,
        grad_scale=0.5,
        clip_value=2.0,
        lr_in_momentum=True,
        eps_inside_sqrt=True,
        decoupled_weight_decay=True,
        initial_square_avg=1.0,
    ),
    "clip-norm": dict(clip_norm=0.5, momentum=0.5),
}


class Training:
    """Two groups, of which one parameter never has a gradient; an extra key in the second."""

    def __init__(self, dtype="float32", cls=dragon_optim.RMSprop, **options):
        shapes = [(), (3,), (2, 3), (4,)]
        random = np.random.RandomState(5)
        params = [parameter(random.standard_normal(shape), dtype) for shape in shapes]
        groups = [
            {"params": params[:2]},
            {"params": params[2:], "lr": 0.003, "lr_scale": 0.1, "name": "head"},
        ]
        self.optimizer = cls(groups, **options)

    def steps(self, first, count):
        step(self.optimizer, first, count)
        return self


def params_of(optimizer):
    return [param for group in optimizer.param_groups for param in group["params"]]


def step(optimizer, first, count):
    """Steps from gradients that depend on the number of the step alone."""
    for number in range(first, first + count):
        random = np.random.RandomState(number)
        for param in params_of(optimizer)[:3]:
            feed_gradient(param, random.standard_normal(tuple(param.shape)).astype(param.dtype))
        optimizer.step()


def bits(optimizer):
    """All that an optimizer holds, without gradients, which a copy has none of."""
    found = snapshot(optimizer, *params_of(optimizer))
    groups = [
        {key: value for key, value in each.items() if key != "params"} for each in optimizer.param_groups
    ]
    return {key: value for key, value in found.items() if not key.startswith("grad ")}, groups
