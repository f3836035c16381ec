# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of `optimizer.state` start from."""

from __future__ import annotations

import dragon_optim
from tests.optim.support import backward, parameter, values


def trained(number=1, **options):
    """An optimizer after one step from gradients of 1, and its parameters."""
    params = [parameter([1.0, 2.0, 3.0 + i]) for i in range(number)]
    optimizer = dragon_optim.RMSprop(params, **options)
    for param in params:
        backward(param, 1.0)
    optimizer.step()
    return (optimizer, *params)


def copied(entry):
    return {key: value if key == "step" else values(value).tolist() for key, value in entry.items()}
