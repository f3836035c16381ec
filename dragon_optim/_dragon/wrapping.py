# SPDX-License-Identifier: BSD-2-Clause
"""Wrapping a method of Dragon's, once in a process."""

from typing import Any

_MARK = "_dragon_optim_hook"


def install(owner: Any, name: str, wrapper: Any, static: bool = False) -> bool:
    """Put `wrapper` in the place of a method, unless one of ours is there. Return whether it was put.

    On the class, since a workspace made later must be covered too. The one there may come from another
    import of this package.
    """
    if hasattr(getattr(owner, name), _MARK):
        return False
    setattr(wrapper, _MARK, True)
    setattr(owner, name, staticmethod(wrapper) if static else wrapper)
    return True
