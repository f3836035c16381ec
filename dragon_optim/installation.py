# SPDX-License-Identifier: BSD-2-Clause
"""`install`: Dragon's own names hand out the classes of this package."""

import sys
import threading
from typing import Any, Dict, List, Tuple

from dragon_optim import lr_scheduler
from dragon_optim._dragon import optim_modules
from dragon_optim.rmsprop import RMSprop

_NOTHING = object()  # found where there was no such name


class _Place:
    """A name in the dict of a module, or in ``sys.modules``, that may hold a value of ours.

    Parameters
    ----------
    names : dict
        The dict.
    key : str
        The name.
    ours : object
        The value to hand out under it.
    """

    def __init__(self, names: Dict[str, Any], key: str, ours: Any) -> None:
        self._names, self._key, self._ours = names, key, ours
        self._layers: List[Tuple[object, Any]] = []  # who has put the value, and what was found there
        self._before = ours  # what was last there that is not ours, once there was any

    def is_for(self, names: Dict[str, Any], key: str, ours: Any) -> bool:
        """Whether it is this place, and this value."""
        return self._names is names and self._key == key and self._ours is ours

    def put(self, owner: object) -> None:
        """Hand out the value, on top of whatever is there."""
        found = self._names.get(self._key, _NOTHING)
        if found is not self._ours:
            self._before = found
        elif not self._layers:
            # Somebody had theirs over ours, and gave ours back when it had been removed already.
            found = self._before
        self._layers.append((owner, found))
        self._names[self._key] = self._ours

    def take(self, owner: object) -> None:
        """Undo one `put`, in any order. What somebody else has put over ours stays."""
        index = [each for each, _ in self._layers].index(owner)
        found = self._layers.pop(index)[1]
        if index < len(self._layers):
            later, found_later = self._layers[index]
            if found_later is self._ours:
                self._layers[index] = (later, found)
        elif self._names.get(self._key, _NOTHING) is self._ours:
            if found is _NOTHING:
                del self._names[self._key]
                exported = self._names.get("__all__")
                if isinstance(exported, list) and self._key in exported:
                    exported.remove(self._key)  # Dragon makes the list anew, of all names, in a reload
            else:
                self._names[self._key] = found


_turn = threading.RLock()  # a finalizer may remove a handle in the middle of this
_places: List[_Place] = []


def _place(names: Dict[str, Any], key: str, ours: Any) -> _Place:
    for place in _places:
        if place.is_for(names, key, ours):
            return place
    _places.append(_Place(names, key, ours))
    return _places[-1]


def _wanted() -> List[_Place]:
    """Every place that must hold a value of ours now."""
    modules, offered = optim_modules.found(), {"RMSprop": RMSprop, "lr_scheduler": lr_scheduler}
    places = [_place(vars(module), key, value) for module in modules for key, value in offered.items()]
    # Else a first ``import dragon.vm.torch.optim`` would make a module with Dragon's own class in it.
    places.append(_place(sys.modules, optim_modules.NAME, modules[0]))
    places.append(_place(sys.modules, f"{optim_modules.NAME}.lr_scheduler", lr_scheduler))
    return places


class Installation:
    """What `install` returns: takes the names back, by `remove` or at the end of a ``with`` block."""

    def __init__(self) -> None:
        with _turn:
            self._places = _wanted()
            for place in self._places:
                place.put(self)

    def remove(self) -> None:
        """Let the names mean what they meant before. To remove it twice does nothing.

        While another installation is there the names stay. Where somebody else has put something over ours,
        that stays, too.
        """
        with _turn:
            while self._places:
                self._places.pop().take(self)

    def __enter__(self) -> "Installation":
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove()


def install() -> Installation:
    """Let ``dragon.vm.torch.optim`` hand out the classes of this package.

    For scripts whose import cannot be changed: ``torch.optim.RMSprop``, and ``RMSprop`` imported from
    ``dragon.vm.torch.optim`` from now on, are `dragon_optim.RMSprop`, and ``torch.optim.lr_scheduler``, which
    Dragon does not have, is `dragon_optim.lr_scheduler`. This holds for the whole process, in all threads,
    until the returned handle is removed.

    Returns
    -------
    Installation
        Its ``remove()`` undoes this; so does the end of a ``with`` block. Installations may be nested and
        removed in any order: the names are ours as long as one is left.

    Notes
    -----
    *Positional arguments* mean the same in Dragon's class and ours, and so do all of its keywords.

    *What stays Dragon's*: the other optimizers; ``torch.optim.Optimizer``, of which ours is a subclass; names
    that were imported before; and ``dragon.vm.torch.core.optim.rmsprop.RMSprop``, since Dragon's class looks
    itself up under that name. An optimizer that was made keeps its class, and a pickle names
    `dragon_optim.RMSprop`: it loads with or without an installation.

    ``importlib.reload(torch.optim)`` brings Dragon's names back; install again then.

    Examples
    --------
    >>> from dragon.vm import torch
    >>> import dragon_optim
    >>> with dragon_optim.install():
    ...     optimizer = torch.optim.RMSprop([torch.nn.Parameter(torch.ones(3))], lr=0.1, centered=True)
    >>> type(optimizer) is dragon_optim.RMSprop
    True
    >>> torch.optim.RMSprop is dragon_optim.RMSprop
    False
    """
    return Installation()
