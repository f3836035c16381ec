# SPDX-License-Identifier: BSD-2-Clause
"""The one exception for what a file holds."""

from typing import Any


class CheckpointError(ValueError):
    """A checkpoint file is damaged, holds what cannot be loaded, or is no checkpoint at all.

    Examples
    --------
    >>> issubclass(CheckpointError, ValueError)
    True
    """


TORCHSCRIPT = (
    "this is a TorchScript archive (torch.jit.save), which is a program. In PyTorch, save the state_dict() "
    "of the module that torch.jit.load gives."
)

# Pickle sees the public name.
CheckpointError.__module__ = "dragon_optim.checkpoint"


def shown(value: Any) -> str:
    """Return the value as one short line of ASCII: it may come from a hostile file."""
    text = ascii(value) if isinstance(value, (str, bytes, int, float, type(None))) else type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."
