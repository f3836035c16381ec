# SPDX-License-Identifier: BSD-2-Clause
"""Optimizers for the table of schedules."""

from __future__ import annotations

from dragon.vm import torch

import dragon_optim
from tests.optim.support import parameter

KINDS = {"rmsprop": dragon_optim.RMSprop, "sgd": torch.optim.SGD, "adam": torch.optim.Adam}
STOCK = {**KINDS, "rmsprop": torch.optim.RMSprop}


def optimizer_of(case, kinds=None):
    groups = [{"params": [parameter([1.0, 2.0])], "lr": rate} for rate in case.rates]
    return (kinds or KINDS)[case.kind](groups)
