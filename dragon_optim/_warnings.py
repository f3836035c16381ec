# SPDX-License-Identifier: BSD-2-Clause
"""Warnings that point at the user's line."""

import sys
import warnings


def warn(message: str) -> None:
    """Give a UserWarning at the nearest line outside of this package."""
    level = 2
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("dragon_optim"):
        frame = frame.f_back
        level += 1
    warnings.warn(message, UserWarning, stacklevel=level)
