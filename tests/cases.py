# SPDX-License-Identifier: BSD-2-Clause
"""The tables that drive the tests: options, and the parameters and gradients that they meet.

A `Case` is a whole trajectory: options of two groups, changes of options on the way, parameters of awkward
shapes, gradients over nine orders of magnitude some of which are missing. `play` runs one through anything
that can follow a parameter.

- `TORCH_CASES` and `TORCH_EDGE_CASES` need nothing that PyTorch lacks; `golden/` holds what PyTorch made of
  them.
- `FORM_CASES` and `FORM_EDGE_CASES` have no counterpart in PyTorch.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

from tests import inputs

# Scalars, tails of every vector width, nothing at all in two ways, and a parameter that spans several
# vectors.
SHAPES = ((), (1,), (3, 5), (0,), (257,), (17,), (2, 0), (33, 4), (5,))

# Parameter (its place in SHAPES) -> the steps at which it has no gradient: in between, once, at the start,
# ever.
ABSENT = {2: {3, 4}, 5: {10}, 7: set(range(5)), 8: set(range(1000))}


@dataclass(frozen=True)
class Case:
    name: str
    options: dict
    second_group: dict = field(default_factory=lambda: {"lr": 0.003})
    schedule: dict = field(default_factory=dict)  # step -> options that all groups have from then on
    gradients: str = "wide"
    shapes: tuple = SHAPES
    steps: int = 25
    empty_group: bool = False

    def groups(self) -> list:
        """(options, places of its parameters) of each group: the first half, the others, perhaps nothing."""
        half = (len(self.shapes) + 1) // 2
        groups = [
            (dict(self.options), list(range(half))),
            (dict(self.options, **self.second_group), list(range(half, len(self.shapes)))),
        ]
        return groups + [(dict(self.options), [])] if self.empty_group else groups

    def parameters(self, dtype) -> list:
        return [inputs.uniform(place, shape).astype(dtype) for place, shape in enumerate(self.shapes)]

    def gradient(self, step: int, place: int, dtype):
        """The gradient of one parameter at one step, or None."""
        if self.shapes is SHAPES and step in ABSENT.get(place, ()):
            return None
        return inputs.gradient(self.gradients, step, place, self.shapes[place], np.dtype(dtype))

    def __str__(self):
        return self.name


def play(case: Case, dtype, follow):
    """Yields, after each step, the list of what follows the parameters.

    `follow(param)` is called once for each parameter; the result's `advance(grad, **options)` at each step
    with a gradient.
    """
    followers = [follow(param) for param in case.parameters(dtype)]
    groups = case.groups()
    for step in range(case.steps):
        for options, places in groups:
            options.update(case.schedule.get(step, {}))
            for place in places:
                grad = case.gradient(step, place, dtype)
                if grad is not None:
                    followers[place].advance(grad, **options)
        yield followers


# --- what PyTorch has too -------------------------------------------------------------------------

# At 8 the learning rate falls, at 16 it rises above its first value.
LR_CHANGES = {8: {"lr": 0.001}, 16: {"lr": 0.02}}


def _flag_grid():
    """Every combination of the flags, with values that are not the defaults."""
    flags = {
        "momentum": {"momentum": 0.9},
        "centered": {"centered": True},
        "decay": {"weight_decay": 0.1},
        "maximize": {"maximize": True},
    }
    for count in range(len(flags) + 1):
        for names in itertools.combinations(flags, count):
            options = {key: value for name in names for key, value in flags[name].items()}
            alpha = (0.99, 0.9, 0.95)[count % 3]
            yield Case("+".join(names) or "plain", dict(options, alpha=alpha), schedule=LR_CHANGES)


# Settings of well-known trainings, as far as PyTorch's arguments express them.
RECIPES = [
    Case("a3c", dict(lr=7e-4, alpha=0.99, eps=0.1)),
    Case("a2c", dict(lr=7e-4, alpha=0.99, eps=1e-5)),
    Case("impala-torchbeast", dict(lr=4.8e-4, alpha=0.99, eps=0.01, momentum=0.0)),
    Case("mobilenet-v3-torchvision", dict(lr=0.064, alpha=0.9, eps=0.0316, momentum=0.9, weight_decay=1e-5)),
    Case("graves-handwriting", dict(lr=1e-4, alpha=0.95, eps=1e-4, momentum=0.9, centered=True)),
    Case("wgan", dict(lr=5e-5)),
    Case(
        "dpo-warmup", dict(lr=0.0), second_group={}, schedule={i: {"lr": 5e-7 * i / 20} for i in range(1, 25)}
    ),
    Case("unet", dict(lr=1e-5, momentum=0.999, weight_decay=1e-8)),
]

TORCH_CASES = [
    Case("defaults", {}),
    *_flag_grid(),
    Case("alpha-0.5", dict(alpha=0.5, momentum=0.5)),
    Case("alpha-0.5+centered", dict(alpha=0.5, centered=True)),
    Case("alpha-just-above-0.5+centered", dict(alpha=0.5 + 1e-12, centered=True)),
    Case(
        "alpha-0.3+centered+momentum+decay", dict(alpha=0.3, centered=True, momentum=0.7, weight_decay=0.01)
    ),
    Case("alpha-0", dict(alpha=0.0, momentum=0.9)),
    Case("alpha-1", dict(alpha=1.0, eps=0.5)),
    Case("eps-1", dict(eps=1.0)),
    Case("eps-0.1+centered+momentum", dict(eps=0.1, centered=True, momentum=0.9)),
    Case("eps-0", dict(eps=0.0, alpha=0.9), gradients="gentle"),
    Case("momentum-1", dict(momentum=1.0, alpha=0.9)),
    Case("lr-0", dict(lr=0.0, momentum=0.9, weight_decay=0.1), second_group={}),
    Case("large-decay", dict(weight_decay=10.0, lr=0.1)),
    Case("empty-group", dict(momentum=0.9), empty_group=True),
    Case(
        "changing-everything",
        dict(momentum=0.9, centered=True, weight_decay=0.1),
        second_group={"lr": 0.003, "alpha": 0.7, "maximize": True},
        schedule={
            4: {"alpha": 0.4},
            7: {"momentum": 0.0, "eps": 1e-3},
            10: {"centered": False, "weight_decay": 0.0},
            14: {"momentum": 0.5, "maximize": True},
            18: {"centered": True, "weight_decay": 0.2, "alpha": 0.9},
        },
    ),
    *RECIPES,
]

_FEW = ((), (5,), (17,), (0,))

TORCH_EDGE_CASES = [
    Case("alpha-1.25+centered", dict(alpha=1.25, centered=True), shapes=_FEW),
    Case("alpha-1.25", dict(alpha=1.25), shapes=_FEW),
    Case("alpha-2+centered", dict(alpha=2.0, centered=True, momentum=0.9), shapes=_FEW),
    Case("alpha-0+centered", dict(alpha=0.0, centered=True), shapes=_FEW),
    Case("lr-inf", dict(lr=float("inf")), shapes=_FEW),
    Case("lr-inf+momentum", dict(lr=float("inf"), momentum=0.9), shapes=_FEW),
    Case("eps-inf", dict(eps=float("inf"), momentum=0.9), shapes=_FEW),
    Case("zero-gradients", dict(momentum=0.9, centered=True), gradients="zero", shapes=_FEW),
    Case("zero-gradients+eps-0", dict(eps=0.0), gradients="zero", shapes=_FEW),
    Case("inf-gradients", dict(), gradients="inf", shapes=_FEW, steps=8),
    Case(
        "inf-gradients+all",
        dict(centered=True, momentum=0.9, maximize=True),
        gradients="inf",
        shapes=_FEW,
        steps=8,
    ),
    Case("nan-gradients", dict(centered=True, momentum=0.9), gradients="nan", shapes=_FEW, steps=8),
    Case("overflowing-square", dict(momentum=0.9), gradients="huge", shapes=_FEW, steps=8),
    Case(
        "constant-gradients+centered",
        dict(alpha=0.9, centered=True),
        second_group={"alpha": 0.95},
        gradients="constant",
        shapes=((1,), (2,), (3,), (4,)),
        steps=300,
    ),
]

# --- what PyTorch has not -------------------------------------------------------------------------

_TENSORFLOW = dict(eps_inside_sqrt=True, lr_in_momentum=True, initial_square_avg=1.0)
_ALL_FORMS = dict(
    _TENSORFLOW, momentum=0.9, centered=True, weight_decay=0.1, decoupled_weight_decay=True, maximize=True
)
# Two whole blocks of the norm's sum and a part of a third.
_BLOCKS = ((8192 + 37,), (4096,), (4095,), (3, 5))

FORM_CASES = [
    Case("grad-scale-0.1", dict(grad_scale=0.1, momentum=0.9), steps=10),
    Case("grad-scale-negative", dict(grad_scale=-2.5), steps=10),
    Case("grad-scale-0", dict(grad_scale=0, momentum=0.9, weight_decay=0.1), steps=10),
    Case("clip-norm-1", dict(clip_norm=1.0, momentum=0.9, weight_decay=0.1), steps=10),
    Case("clip-norm-never-reached", dict(clip_norm=1e9), steps=10),
    Case(
        "clip-norm+scale+maximize",
        dict(clip_norm=0.3, grad_scale=0.7, maximize=True, centered=True),
        steps=10,
    ),
    Case("clip-norm+blocks", dict(clip_norm=0.5), shapes=_BLOCKS, steps=4),
    Case("clip-value-0.1", dict(clip_value=0.1), steps=10),
    Case(
        "clip-value+scale+decay",
        dict(clip_value=0.2, grad_scale=3.0, weight_decay=0.1, momentum=0.5),
        steps=10,
    ),
    Case("decoupled", dict(weight_decay=0.1, decoupled_weight_decay=True), schedule=LR_CHANGES),
    Case(
        "decoupled+maximize+centered",
        dict(weight_decay=0.3, decoupled_weight_decay=True, maximize=True, centered=True),
    ),
    Case("decoupled-without-decay", dict(decoupled_weight_decay=True), steps=5),
    Case("lr-in-momentum", dict(momentum=0.9, lr_in_momentum=True), schedule=LR_CHANGES),
    Case(
        "lr-in-momentum+decay",
        dict(momentum=0.5, lr_in_momentum=True, weight_decay=0.1, maximize=True),
        schedule=LR_CHANGES,
    ),
    Case("lr-in-momentum-without-momentum", dict(lr_in_momentum=True), steps=10),
    Case("eps-inside", dict(eps_inside_sqrt=True, eps=0.1), steps=10),
    Case("eps-inside+centered+momentum", dict(eps_inside_sqrt=True, eps=1e-3, centered=True, momentum=0.9)),
    Case("initial-square-avg-1", dict(initial_square_avg=1.0, alpha=0.9), steps=10),
    Case("initial-square-avg-0.1+centered", dict(initial_square_avg=0.1, centered=True, alpha=0.3), steps=10),
    Case("tensorflow", dict(_TENSORFLOW, momentum=0.9, alpha=0.9, eps=1e-3), schedule=LR_CHANGES),
    Case("all-forms+clip-norm", dict(_ALL_FORMS, clip_norm=2.0, grad_scale=0.5), schedule=LR_CHANGES),
    Case(
        "all-forms+clip-value",
        dict(_ALL_FORMS, clip_value=0.4, grad_scale=0.5, alpha=0.4),
        schedule=LR_CHANGES,
    ),
    Case(
        "changing-forms",
        dict(momentum=0.9, weight_decay=0.1),
        schedule={
            2: {"grad_scale": 0.25},
            4: {"clip_norm": 1.0},
            6: {"clip_norm": 0.0, "clip_value": 0.05},
            8: {"eps_inside_sqrt": True, "eps": 0.01},
            10: {"decoupled_weight_decay": True},
            12: {"lr_in_momentum": True},
        },
    ),
    Case(
        "dqn-nature",
        dict(lr=2.5e-4, alpha=0.95, eps=0.01, centered=True, eps_inside_sqrt=True, clip_value=1.0),
    ),
    Case("dqn-dopamine", dict(_TENSORFLOW, lr=2.5e-4, alpha=0.95, eps=1e-5, centered=True)),
    Case("impala-deepmind", dict(_TENSORFLOW, lr=4.8e-4, alpha=0.99, eps=0.1)),
    Case(
        "efficientnet-tpu", dict(_TENSORFLOW, lr=0.256, alpha=0.9, eps=1e-3, momentum=0.9, weight_decay=1e-5)
    ),
    Case(
        "efficientnet-b2-timm",
        dict(_TENSORFLOW, lr=0.016, alpha=0.9, eps=1e-3, momentum=0.9, weight_decay=1e-5),
    ),
    Case("inception-v3-tf", dict(_TENSORFLOW, lr=0.1, alpha=0.9, eps=1.0, momentum=0.9)),
    Case("char-rnn", dict(lr=2e-3, alpha=0.95, clip_value=5.0)),
]

FORM_EDGE_CASES = [
    Case("inf-gradients+clip-norm", dict(clip_norm=1.0), gradients="inf", shapes=_FEW, steps=8),
    Case("nan-gradients+clip-norm", dict(clip_norm=0.1, momentum=0.9), gradients="nan", shapes=_FEW, steps=8),
    Case("inf-gradients+clip-value", dict(clip_value=0.5), gradients="inf", shapes=_FEW, steps=8),
    Case("nan-gradients+clip-value", dict(clip_value=0.5), gradients="nan", shapes=_FEW, steps=8),
    Case("clip-norm-inf", dict(clip_norm=float("inf")), gradients="inf", shapes=_FEW, steps=8),
    Case("huge-gradients+clip-norm", dict(clip_norm=1.0), gradients="huge", shapes=_FEW, steps=8),
    Case("zero-gradients+clip-norm", dict(clip_norm=1.0), gradients="zero", shapes=_FEW, steps=4),
    Case("inf-gradients+scale-0", dict(grad_scale=0), gradients="inf", shapes=_FEW, steps=8),
    Case("grad-scale-inf", dict(grad_scale=float("inf")), shapes=_FEW, steps=4),
    Case("eps-0-inside", dict(eps=0.0, eps_inside_sqrt=True), gradients="zero", shapes=_FEW, steps=4),
    Case(
        "constant-gradients+centered+eps-inside",
        dict(alpha=0.9, centered=True, eps_inside_sqrt=True, eps=1e-12),
        second_group={"alpha": 0.95},
        gradients="constant",
        shapes=((1,), (2,), (3,), (4,)),
        steps=300,
    ),
]
