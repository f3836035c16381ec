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
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an int of {value.bit_length()} bits"
    if isinstance(value, (str, bytes)):
        value = value[:81]  # the whole may be long, and asked for often
    text = ascii(value) if isinstance(value, (str, bytes, int, float, type(None))) else type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."
