# SPDX-License-Identifier: BSD-2-Clause
"""Tensors that Dragon ends the process at, when it reads or prints them."""

from __future__ import annotations

import gc

from dragon.core.framework import workspace
from dragon.vm import torch


def reset_tensor():
    """Its memory was given back."""
    tensor = torch.ones(3)
    tensor._impl.Reset()
    return tensor


def never_filled():
    """It has no name yet."""
    return torch.Tensor()


def dead_tensor():
    """Its workspace is gone."""
    other = workspace.Workspace()
    with other.as_default():
        tensor = torch.ones(3)
    del other
    gc.collect()
    return tensor
