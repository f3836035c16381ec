# SPDX-License-Identifier: BSD-2-Clause
"""The cases of `RMSpropTF`: trajectories that timm's class can run, too.

A case is written in timm's arguments and held in those of `RMSprop`, defaults spelled out, which the oracles
understand; `timm_arguments` goes the way back.
"""

from __future__ import annotations

from tests.cases import LR_CHANGES, Case

# What makes the form, and what `RMSprop` calls timm's arguments.
FORM = {"eps_inside_sqrt": True, "initial_square_avg": 1.0}
NAMES = {"decoupled_decay": "decoupled_weight_decay"}

DEFAULTS = dict(FORM, lr=1e-2, alpha=0.9, eps=1e-10, lr_in_momentum=True)


def tf_case(name, arguments, second_group=None, **others) -> Case:
    options, second_group = (
        {NAMES.get(key, key): value for key, value in group.items()}
        for group in (arguments, {"lr": 0.003} if second_group is None else second_group)
    )
    return Case(name, dict(DEFAULTS, **options), second_group, **others)


def timm_arguments(options) -> dict:
    names = {own: theirs for theirs, own in NAMES.items()}
    return {names.get(key, key): value for key, value in options.items() if key not in FORM}


def _efficientnet_rates(peak, decay=0.97):
    """By epoch, which is a step here: a warm-up of 5 from 1e-6, then a fall each 2.4."""
    warm_up = {epoch: {"lr": 1e-6 + (peak - 1e-6) * epoch / 5} for epoch in range(5)}
    return {**warm_up, **{epoch: {"lr": peak * decay ** (epoch // 2.4)} for epoch in range(5, 25)}}


_EFFICIENTNET = dict(eps=0.001, momentum=0.9, weight_decay=1e-5)

# The second group is timm's for biases and whatever else has one dimension.
_NO_DECAY = {"weight_decay": 0.0}

TF_RECIPES = [
    tf_case(
        "efficientnet-b2",
        dict(_EFFICIENTNET, lr=0.016),
        second_group=_NO_DECAY,
        schedule=_efficientnet_rates(0.016),
    ),
    tf_case(
        "mixnet-xl",
        dict(_EFFICIENTNET, lr=0.016),
        second_group=_NO_DECAY,
        schedule=_efficientnet_rates(0.016, 0.969),
    ),
    tf_case(
        "mnasnet",
        dict(_EFFICIENTNET, lr=0.256),
        second_group=_NO_DECAY,
        schedule=_efficientnet_rates(0.256),
    ),
]

TF_CASES = [
    tf_case("defaults", {}),
    tf_case("momentum", dict(momentum=0.9), schedule=LR_CHANGES),
    tf_case("momentum+lr-outside", dict(momentum=0.9, lr_in_momentum=False), schedule=LR_CHANGES),
    tf_case("centered", dict(centered=True, eps=1e-3), schedule=LR_CHANGES),
    tf_case("centered+momentum", dict(centered=True, momentum=0.5, eps=1e-2), schedule=LR_CHANGES),
    tf_case("decay", dict(weight_decay=0.1), schedule=LR_CHANGES),
    tf_case("decay+momentum", dict(weight_decay=0.1, momentum=0.9, alpha=0.95), schedule=LR_CHANGES),
    tf_case("decoupled", dict(weight_decay=0.1, decoupled_decay=True), schedule=LR_CHANGES),
    tf_case(
        "everything",
        dict(weight_decay=0.3, decoupled_decay=True, momentum=0.9, centered=True, eps=1e-3, alpha=0.99),
        second_group={"lr": 0.003, "lr_in_momentum": False, "decoupled_decay": False},
        schedule=LR_CHANGES,
    ),
    tf_case("alpha-0.3+centered", dict(alpha=0.3, centered=True, eps=0.1)),
    tf_case("eps-1", dict(eps=1.0, momentum=0.9, lr=0.1)),
    *TF_RECIPES,
]
