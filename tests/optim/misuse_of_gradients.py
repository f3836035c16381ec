# SPDX-License-Identifier: BSD-2-Clause
"""Misuses of gradients: such as do not fit their parameters, and such as are not there."""

from __future__ import annotations

import numpy as np

import dragon_optim
from tests.optim.forked_cases import Table
from tests.optim.support import backward, feed_gradient, parameter

CASES = Table()
misuse = CASES.case

WRONG_GRADIENTS = {
    "float64": (np.ones(3, "float64"), r"float64 of shape \(3,\)"),
    "float16": (np.ones(3, "float16"), r"float16 of shape \(3,\)"),
    "int64": (np.ones(3, "int64"), r"int64 of shape \(3,\)"),
    "int32": (np.ones(3, "int32"), r"int32 of shape \(3,\)"),
    "bool": (np.ones(3, "bool"), r"bool of shape \(3,\)"),
    "shorter": (np.ones(2, "float32"), r"shape \(2,\)"),
    "longer": (np.ones(4, "float32"), r"shape \(4,\)"),
    "column": (np.ones((3, 1), "float32"), r"shape \(3, 1\)"),
    "scalar": (np.ones((), "float32"), r"shape \(\)"),
}

for _what, (_array, _match) in WRONG_GRADIENTS.items():

    @misuse(
        ValueError, rf"gradient of parameter 0 of group 0 is .*{_match}", name=f"step-with-gradient-{_what}"
    )
    def _(w, array=_array):
        feed_gradient(w.p, array)
        yield w.optimizer.step

    @misuse(
        ValueError, rf"a gradient is .*{_match}.*nothing was summed", name=f"sum_grad-with-gradient-{_what}"
    )
    def _(w, array=_array):
        backward(w.q, 1.0, w.p, 1.0)
        feed_gradient(w.p, array)
        yield w.optimizer.sum_grad


@misuse(ValueError, r"float32 of shape \(1,\), but the parameter is float32 of shape \(\)", goes_on=False)
def gradient_of_one_element_for_a_scalar(w):
    scalar = parameter(1.0)
    optimizer = dragon_optim.RMSprop([scalar])
    feed_gradient(scalar, np.ones(1, "float32"))
    yield optimizer.step
    assert scalar.numpy() == 1


@misuse(ValueError, r"shape \(3, 0\), but the parameter is float32 of shape \(0, 3\)")
def gradient_of_another_empty_shape(w):
    empty = parameter(np.zeros((0, 3)))
    w.optimizer.add_param_group({"params": [empty]})
    feed_gradient(empty, np.zeros((3, 0), "float32"))
    yield w.optimizer.step
    assert empty not in w.optimizer.state


@misuse(None)
def gradient_reset_between_steps(w):
    w.p.grad._impl.Reset()

    def act():
        w.optimizer.step()
        w.optimizer.sum_grad()
        w.optimizer.zero_grad()

    yield act


@misuse(None)
def no_gradients_at_all(w):
    optimizer = dragon_optim.RMSprop([parameter([1.0])])
    yield lambda: (optimizer.sum_grad(), optimizer.step(), optimizer.zero_grad(), optimizer.zero_grad(True))


@misuse(None)
def zero_grad_after_zero_grad_to_none(w):
    w.optimizer.zero_grad(True)
    yield lambda: (
        w.optimizer.zero_grad(),
        w.optimizer.zero_grad(True),
        w.optimizer.sum_grad(),
        w.optimizer.step(),
    )
