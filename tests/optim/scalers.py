# SPDX-License-Identifier: BSD-2-Clause
"""Scalers that are in use, and optimizers that show which gradient they were stepped with."""

from __future__ import annotations

import math

from dragon.vm import torch

import dragon_optim
from tests.optim.support import parameter, values

# Gradient g moves a parameter by g / (abs(g) + 1): see `support.shown`.
SHOW = dict(lr=1.0, alpha=0.0, eps=1.0)
BAD = [math.inf, -math.inf, math.nan]


def scaler_of(scale=8.0, **arguments):
    """A scaler that has scaled something: PyTorch's has no scale before that."""
    scaler = dragon_optim.GradScaler("cpu", init_scale=scale, **arguments)
    scaler.scale(torch.ones(1))
    return scaler


def make(number=1, dtype="float64", kind=dragon_optim.RMSprop, **options):
    """An optimizer and its parameters."""
    params = [parameter([0.0, 0.0], dtype) for _ in range(number)]
    return (kind(params, **dict(SHOW, **options)), *params)


def used(scaler, optimizer, param):
    """The gradient that one step of the scaler uses for a float64 parameter; None if it uses none."""
    before = values(param).reshape(-1)[0]
    scaler.step(optimizer)
    move = before - values(param).reshape(-1)[0]
    if scaler.step_was_skipped(optimizer):
        assert move == 0
        return None
    return round(move / (1 - abs(move)), 3)


def settings(scaler):
    """All of a scaler that a refusal must leave alone."""
    return repr((scaler.state_dict(), scaler.is_enabled()))
