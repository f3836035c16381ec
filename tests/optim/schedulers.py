# SPDX-License-Identifier: BSD-2-Clause
"""Optimizers for the table of schedules, and one scheduler of each class."""

from __future__ import annotations

from dragon.vm import torch

import dragon_optim
from dragon_optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    SequentialLR,
    StepLR,
)
from tests.optim.support import parameter

KINDS = {"rmsprop": dragon_optim.RMSprop, "sgd": torch.optim.SGD, "adam": torch.optim.Adam}
STOCK = {**KINDS, "rmsprop": torch.optim.RMSprop}


def optimizer_of(case, kinds=None):
    groups = [{"params": [parameter([1.0, 2.0])], "lr": rate} for rate in case.rates]
    return (kinds or KINDS)[case.kind](groups)


def rmsprop(*rates, **options):
    groups = [{"params": [parameter([1.0])], "lr": rate} for rate in rates or (1.0,)]
    return dragon_optim.RMSprop(groups, **options)


def lrs(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def go(optimizer, scheduler, steps):
    found = []
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        found.append(lrs(optimizer)[0])
    return found


MAKERS = {
    "LambdaLR": lambda optimizer: LambdaLR(optimizer, lambda epoch: 0.5**epoch),
    "MultiplicativeLR": lambda optimizer: MultiplicativeLR(optimizer, lambda epoch: 0.5),
    "StepLR": lambda optimizer: StepLR(optimizer, 1, 0.5),
    "MultiStepLR": lambda optimizer: MultiStepLR(optimizer, [1, 2], 0.5),
    "ConstantLR": lambda optimizer: ConstantLR(optimizer, 0.5, 2),
    "LinearLR": lambda optimizer: LinearLR(optimizer, 0.5, total_iters=2),
    "ExponentialLR": lambda optimizer: ExponentialLR(optimizer, 0.5),
    "PolynomialLR": lambda optimizer: PolynomialLR(optimizer, 4),
    "CosineAnnealingLR": lambda optimizer: CosineAnnealingLR(optimizer, 4),
    "CosineAnnealingWarmRestarts": lambda optimizer: CosineAnnealingWarmRestarts(optimizer, 4),
    "CyclicLR": lambda optimizer: CyclicLR(optimizer, 0.25, 0.5, 2),
    "OneCycleLR": lambda optimizer: OneCycleLR(optimizer, 0.5, 10),
    "SequentialLR": lambda optimizer: SequentialLR(
        optimizer, [ConstantLR(optimizer, 0.5, 2), ExponentialLR(optimizer, 0.5)], [2]
    ),
    "ChainedScheduler": lambda optimizer: ChainedScheduler(
        [ConstantLR(optimizer, 0.5, 2), ExponentialLR(optimizer, 0.5)]
    ),
}
