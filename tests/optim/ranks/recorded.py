# SPDX-License-Identifier: BSD-2-Clause
"""Recorded steps of two ranks: they go from the mean of the gradients, which is a constant to them."""

from __future__ import annotations

import numpy as np

import dragon_optim
from tests.optim.ranks import meeting
from tests.optim.support import backward, parameter, values
from tests.optim.unrolled import tensor

NUMBERS = (1.0, 3.0)  # the gradient on each rank; their mean is 2


def unrolled(gradient_of_step):
    """Two steps; the parameter, its state, and the derivative of the parameter by the rate and the start."""
    weight, rate = parameter(np.ones(3), "float64"), tensor(0.25)
    optimizer = dragon_optim.RMSprop([weight], lr=rate, alpha=0.5, eps=1, differentiable=True)
    for step in range(2):
        with optimizer.as_leaves():
            backward(weight, gradient_of_step(step))
        optimizer.step()
    found = [values(weight).tolist(), values(optimizer.state[weight]["square_avg"]).tolist()]
    weight.sum().backward()
    return [*found, values(rate.grad).tolist(), values(optimizer.origin(weight).grad).tolist()]


def given(rank):
    """Gradients that are expressions cannot be averaged."""
    weight = parameter(np.ones(3), "float64")
    optimizer = dragon_optim.RMSprop([weight], differentiable=True)
    try:
        optimizer.step(gradients={weight: weight * 2.0})
    except RuntimeError as error:
        return [str(error), values(weight).tolist()]
    return "no error"


def main():
    here = meeting.Meeting()
    with here.group.as_default():
        here.report("unrolled", unrolled(lambda step: NUMBERS[here.rank] * (step + 1)))
        here.report("given", given(here.rank))


if __name__ == "__main__":
    main()
