# SPDX-License-Identifier: BSD-2-Clause
"""The two functions that clip, and parameters with gradients for them."""

from __future__ import annotations

import numpy as np

import dragon_optim
from tests.optim.support import backward, parameter, values

NORM, VALUE = dragon_optim.clip_grad_norm_, dragon_optim.clip_grad_value_


def leaves(*grads, dtype="float32"):
    """Parameters with these gradients, by a backward pass of each."""
    params = [parameter(np.zeros(len(grad)), dtype) for grad in grads]
    for param, grad in zip(params, grads):
        backward(param, grad)
    return params


def grads_of(params):
    return [None if param.grad is None else values(param.grad).tolist() for param in params]


def clipped(*numbers):
    """Numbers of norm 5, scaled to 1."""
    return [float(np.float32(number) * np.float32(1 / (5 + 1e-6))) for number in numbers]
