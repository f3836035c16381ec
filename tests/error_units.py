# SPDX-License-Identifier: BSD-2-Clause
"""The unit in which errors of a trajectory are stated.

`p - lr * b` and `g + wd * p` cancel, so a limit in units in the last place says nothing: two correct
implementations that round differently stand thousands of them apart where the terms cancelled. Instead, one
error unit is the running first-order forward error bound: let every elementary operation be wrong by half a
unit in the last place of its result, and carry these errors along through all steps by the first derivative
of each operation. PyTorch's own square root, which is not correctly rounded, costs up to 0.4 units; an
alpha that was rounded to float32 too early 2.6 in float32 and a billion in float64; an option that is
ignored, more still.

    bound = Bound(param, dtype)
    bound.advance(grad, **options)                 # for each step
    units(actual, expected, bound.errors["param"])
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from tests import cases, exact

LIMIT = (
    2.0  # more than any correct rounding gives, less than the smallest mistake; test_oracles.py shows both
)


class Tracked:
    """A value in float64 and a bound of what computing it in `dtype` may have cost."""

    def __init__(self, value, error, dtype):
        self.value, self.error, self.dtype = value, error, np.dtype(dtype)

    def _result(self, value, carried):
        """The outcome of one operation: the errors that came in, and half a unit in the last place."""
        half_ulp = np.abs(np.spacing(np.abs(value).astype(self.dtype)).astype("float64")) / 2
        return Tracked(value, carried + half_ulp, self.dtype)

    def _operand(self, other):
        return other if isinstance(other, Tracked) else Tracked(np.float64(other), 0.0, self.dtype)

    def __add__(self, other):
        other = self._operand(other)
        return self._result(self.value + other.value, self.error + other.error)

    def __sub__(self, other):
        other = self._operand(other)
        return self._result(self.value - other.value, self.error + other.error)

    def __mul__(self, other):
        other = self._operand(other)
        carried = np.abs(other.value) * self.error + np.abs(self.value) * other.error
        return self._result(self.value * other.value, carried)

    def __truediv__(self, other):
        quotient = self.value / other.value
        return self._result(quotient, (self.error + np.abs(quotient) * other.error) / np.abs(other.value))

    def __neg__(self):
        return Tracked(-self.value, self.error, self.dtype)

    def sqrt(self):
        root = np.sqrt(self.value)
        # Near zero the derivative is infinite, but the root of an error of size e is never wrong by more
        # than sqrt(e).
        carried = np.minimum(np.where(root > 0, self.error / (2 * root), np.inf), np.sqrt(self.error))
        return self._result(root, carried)


class Bound:
    """Follows one parameter through its steps; knows the unit of it and of its state, element by element."""

    def __init__(self, param, dtype):
        self.dtype = np.dtype("float32") if np.dtype(dtype) == np.float16 else np.dtype(dtype)
        self.param = self._given(param)
        self.square_avg = None
        self.grad_avg = self.momentum_buffer = self._given(np.zeros(np.shape(param)))

    def _given(self, array):
        array = np.array(array, dtype="float64")
        return Tracked(array, np.zeros_like(array), self.dtype)

    @property
    def errors(self) -> dict:
        names = ("param", "square_avg", "grad_avg", "momentum_buffer")
        return {name: getattr(self, name).error for name in names if getattr(self, name) is not None}

    def advance(self, grad, **options):
        with np.errstate(all="ignore"):
            self._advance(self._given(grad), SimpleNamespace(**exact.with_defaults(options)))

    def _advance(self, g, o):
        if o.grad_scale != 1:
            g = g * o.grad_scale
        if o.clip_norm > 0:
            norm = np.sqrt((g.value**2).sum())
            if norm > o.clip_norm:
                # The norm is a sum in double: its order may cost some ulps there, which only float64 can see.
                factor = o.clip_norm / norm
                g = g * Tracked(factor, factor * 8 * np.finfo("float64").eps, self.dtype)
        elif o.clip_value > 0:
            g = Tracked(np.clip(g.value, -o.clip_value, o.clip_value), g.error, g.dtype)
        if o.maximize:
            g = -g
        if o.weight_decay and o.decoupled_weight_decay:
            self.param = self.param * (1 - o.lr * o.weight_decay)
        elif o.weight_decay:
            g = g + self.param * o.weight_decay

        if self.square_avg is None:
            self.square_avg = self._given(np.full(g.value.shape, o.initial_square_avg))
        self.square_avg = self.square_avg * o.alpha + g * (1 - o.alpha) * g
        spread = self.square_avg
        if o.centered:
            self.grad_avg = self.grad_avg * o.alpha + g * (1 - o.alpha)
            spread = spread - self.grad_avg * self.grad_avg
        divisor = (spread + o.eps).sqrt() if o.eps_inside_sqrt else spread.sqrt() + o.eps

        if o.momentum > 0 and o.lr_in_momentum:
            self.momentum_buffer = self.momentum_buffer * o.momentum + g * o.lr / divisor
            self.param = self.param - self.momentum_buffer
        elif o.momentum > 0:
            self.momentum_buffer = self.momentum_buffer * o.momentum + g / divisor
            self.param = self.param - self.momentum_buffer * o.lr
        else:
            self.param = self.param - g * o.lr / divisor


def units(actual, expected, unit) -> float:
    """The largest distance of two arrays, in units. Where one is not finite, the other must be the same."""
    actual, expected = (np.array(x, dtype="float64") for x in (actual, expected))
    with np.errstate(all="ignore"):
        same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
        comparable = np.isfinite(actual) & np.isfinite(expected) & ~np.isnan(unit)
        distance = np.where(same, 0.0, np.where(comparable, np.abs(actual - expected) / unit, np.inf))
    return float(np.max(distance, initial=0.0))


def largest(case, dtype, actual: list, expected: list) -> float:
    """The largest error of a whole case: lists with a dict of arrays for each parameter, after all steps."""
    *_, bounds = cases.play(case, dtype, lambda param: Bound(param, dtype))
    return max(
        units(ours[name], theirs[name], bound.errors[name])
        for ours, theirs, bound in zip(actual, expected, bounds)
        for name in bound.errors
        if name in theirs
    )
