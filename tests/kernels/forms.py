# SPDX-License-Identifier: BSD-2-Clause
"""The forms of the update that the tests of the kernels go through, by their options."""

from __future__ import annotations

import itertools

MOMENTUM = [{}, {"momentum": 0.9}, {"momentum": 0.9, "lr_in_momentum": True}]
CENTERED = [{}, {"centered": True, "alpha": 0.99}, {"centered": True, "alpha": 0.3}]
DECAY = [{}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled_weight_decay": True}]
EPS = [{}, {"eps_inside_sqrt": True, "eps": 1e-3}]
EXTRAS = [
    {},
    {"grad_scale": 0.3},
    {"clip_norm": 0.7},
    {"clip_value": 0.2},
    {"maximize": True},
    {"grad_scale": -1.7, "clip_norm": 2.0, "clip_value": 0.1, "maximize": True},
]
FORMS = [
    {name: value for part in parts for name, value in part.items()}
    for parts in itertools.product(MOMENTUM, CENTERED, DECAY, EPS, EXTRAS)
]
RICH = {"momentum": 0.9, "centered": True, "weight_decay": 0.01, "grad_scale": 0.5, "clip_value": 0.8}
