# SPDX-License-Identifier: BSD-2-Clause
"""RMSprop in float64, from its definitions: for comparisons with a tolerance.

Given complex numbers it computes with those: an imaginary part too small to count carries a derivative along.

Written from the texts, not from `exact.py` or from any implementation, so that an error in one shows
against the other:

- T. Tieleman and G. Hinton, Lecture 6.5, "RMSProp: divide the gradient by a running average of its recent
  magnitude" (2012);
- A. Graves, "Generating Sequences With Recurrent Neural Networks" (2013), equations 38 to 45: the centered
  form. Graves adds epsilon under the root; PyTorch, and so this project's default, adds it outside;
- the formulas of the documentation of `torch.optim.RMSprop` (L2 decay, momentum, maximize) and of
  `tf.compat.v1.train.RMSPropOptimizer` (epsilon under the root, learning rate inside the momentum, mean
  square starting at one);
- I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization" (2019);
- R. Pascanu et al., "On the difficulty of training recurrent neural networks" (2013): clipping by the norm.
"""

from __future__ import annotations

import math

import numpy as np


class Trajectory:
    """One parameter on its way: `parameter` and the running averages after each `advance`."""

    def __init__(self, parameter):
        self.parameter = _wide(parameter)
        self.mean_square = None
        self.mean = np.zeros_like(self.parameter)
        self.velocity = np.zeros_like(self.parameter)

    def advance(
        self,
        gradient,
        *,
        lr=0.01,
        alpha=0.99,
        eps=1e-8,
        weight_decay=0.0,
        momentum=0.0,
        centered=False,
        maximize=False,
        grad_scale=1.0,
        clip_norm=0.0,
        clip_value=0.0,
        lr_in_momentum=False,
        eps_inside_sqrt=False,
        decoupled_weight_decay=False,
        initial_square_avg=0.0,
    ):
        with np.errstate(all="ignore"):
            gradient = grad_scale * _wide(gradient)
            if clip_norm:
                gradient = gradient * _shrinking(gradient, clip_norm)
            elif clip_value:
                gradient = np.clip(gradient, -clip_value, clip_value)

            # Maximizing f is minimizing -f; the decay pulls towards zero in either case.
            direction = -gradient if maximize else gradient
            if weight_decay and decoupled_weight_decay:
                self.parameter = self.parameter - lr * weight_decay * self.parameter
            elif weight_decay:
                direction = direction + weight_decay * self.parameter

            if self.mean_square is None:
                self.mean_square = np.full_like(self.parameter, initial_square_avg)
            self.mean_square = alpha * self.mean_square + (1 - alpha) * direction**2
            spread = self.mean_square
            if centered:
                self.mean = alpha * self.mean + (1 - alpha) * direction
                spread = spread - self.mean**2
            divisor = np.sqrt(spread + eps) if eps_inside_sqrt else np.sqrt(spread) + eps

            move = direction / divisor
            if momentum and lr_in_momentum:
                self.velocity = momentum * self.velocity + lr * move
                self.parameter = self.parameter - self.velocity
            elif momentum:
                self.velocity = momentum * self.velocity + move
                self.parameter = self.parameter - lr * self.velocity
            else:
                self.parameter = self.parameter - lr * move

    def snapshot(self) -> dict:
        """Under the names of the optimizer's state."""
        averages = {"square_avg": self.mean_square, "grad_avg": self.mean, "momentum_buffer": self.velocity}
        return (
            dict(averages, param=self.parameter)
            if self.mean_square is not None
            else {"param": self.parameter}
        )


def _wide(numbers):
    return np.array(numbers, dtype=np.result_type(np.asarray(numbers).dtype, "float64"))


def _shrinking(gradient, limit):
    """The factor that brings a norm above the limit down to it. A norm that is not a number clips nothing."""
    if np.iscomplexobj(gradient):
        length = np.sqrt((gradient * gradient).sum())
        return limit / length if length.real > np.real(limit) else 1.0
    length = (
        math.sqrt(math.fsum(x * x for x in gradient.ravel()))
        if np.isfinite(gradient).all()
        else np.linalg.norm(gradient)
    )
    return limit / length if length > limit else 1.0
