# SPDX-License-Identifier: BSD-2-Clause
"""Living beside Dragon's own optimizers on the same parameters."""

import functools
from typing import Any

from dragon.vm.torch.core.optim.optimizer import Optimizer

from dragon_optim._dragon import hooks

_get_grad = Optimizer._get_grad


@functools.wraps(_get_grad)
def _get_grad_with_data(*args: Any, **kwargs: Any) -> Any:
    gradient = _get_grad(*args, **kwargs)
    return gradient if gradient is not None and gradient._impl.size > 0 else None


def install() -> None:
    """Let stock optimizers take a gradient that was taken away for none.

    ``zero_grad(set_to_none=True)``, ours as well as theirs, leaves an empty tensor; at that the next stock
    ``zero_grad()`` or ``sum_grad()`` would end the process.
    """
    hooks.install(Optimizer, "_get_grad", _get_grad_with_data, static=True)
