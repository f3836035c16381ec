# SPDX-License-Identifier: BSD-2-Clause
"""The base class of the schedulers: the life of a step, and what is saved."""

import contextlib
from collections import Counter
from typing import Any, Dict, Iterator, List, Optional, Tuple

from dragon_optim._warnings import warn
from dragon_optim.lr_scheduler import arguments, loading, order, rates

EPOCH_IS_DEPRECATED = (
    "The epoch parameter in `scheduler.step()` was not necessary and is being deprecated where possible: "
    "call scheduler.step() without it. Where a scheduler has a closed form, that is used for this epoch."
)


class LRScheduler:
    """Base class of the schedulers.

    A subclass computes the learning rates in `get_lr`, from ``self.last_epoch``, ``self.base_lrs`` and the
    groups of ``self.optimizer``. If it also has a method ``_get_closed_form_lr``, which does not look at the
    present rates, that is used where an epoch is given to `step`.

    Parameters
    ----------
    optimizer : Optimizer
        Of this package, of Dragon, or any object with ``param_groups`` (dicts with ``lr``) and ``step()``.
    last_epoch : int, optional, default=-1
        The epoch that was done last: -1 at the start. Otherwise each group must have ``initial_lr``, as after
        the state dict of the optimizer was loaded.

    Attributes
    ----------
    last_epoch : int
        The number of the epoch that the learning rates are for, from 0.
    base_lrs : list of float
        ``initial_lr`` of each group, from which the schedule starts.

    Raises
    ------
    TypeError
        If `optimizer` is none, or `last_epoch` is no integer.
    KeyError
        If a group lacks ``initial_lr`` and `last_epoch` is 0 or more.

    Notes
    -----
    A scheduler writes ``group["lr"]`` when it is made and at each step, of all groups or of none: where
    something raises, groups and schedulers are as they were. Where ``lr`` is a tensor, it is overwritten and
    stays the tensor that it is. Graphs of `dragon_optim.graph.capture` follow; step the scheduler outside of
    the captured function.

    *Differences from PyTorch*: the optimizer may be any object with groups. `get_last_lr` and ``base_lrs``
    hold numbers where ``lr`` is a tensor, too, computed in float64. NaN is refused, in arguments and as a
    learning rate, and so are counts with which a later step would divide by 0. `load_state_dict` looks at
    what it is given, and takes all of it or nothing. The optimizer keeps its own ``step``.
    """

    _get_lr_called_within_step = False
    _is_initial = False

    _not_saved: Tuple[str, ...] = ("optimizer", "_watch")
    _state_keys: Tuple[str, ...] = ("last_epoch",)  # without these a state dict is not of this class
    _per_group: Tuple[str, ...] = ()  # lists that need one value for each group

    optimizer: Any
    base_lrs: List[Any]
    last_epoch: int
    _last_lr: List[Any]

    def __init__(self, optimizer: Any, last_epoch: int = -1) -> None:
        """See the class."""
        arguments.check_optimizer(optimizer)
        with rates.all_or_nothing(self, optimizer):
            self.optimizer = optimizer
            last_epoch = arguments.epoch(last_epoch)
            for place, group in enumerate(optimizer.param_groups):
                if last_epoch == -1:
                    group.setdefault("initial_lr", arguments.plain("lr", group["lr"]))
                elif "initial_lr" not in group:
                    raise KeyError(
                        f"param 'initial_lr' is not specified in param_groups[{place}] when resuming "
                        "scheduler with last_epoch >= 0: load the state dict of the optimizer first, or "
                        "leave out last_epoch"
                    )
            self.base_lrs = rates.read(optimizer, "initial_lr")
            self.last_epoch = last_epoch
            self._watch = order.StepWatch(optimizer)
            self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def get_last_lr(self) -> List[Any]:
        """Return the learning rates that this scheduler has set last.

        Returns
        -------
        list of float
            One for each group.
        """
        return list(self._last_lr)

    def get_lr(self) -> List[Any]:
        """Compute the learning rates of ``self.last_epoch``. For `step`; users want `get_last_lr`.

        Returns
        -------
        list of float
            One for each group.
        """
        raise NotImplementedError(f"{type(self).__name__} computes no learning rates: override get_lr()")

    def step(self, epoch: Optional[int] = None) -> None:
        """Go on to the next epoch. Call it after the optimizer's ``step()``.

        Parameters
        ----------
        epoch : int, optional
            The epoch to go to instead. Deprecated, as in PyTorch.

        Raises
        ------
        ValueError
            If a learning rate comes out as NaN, or groups were added that the scheduler does not know. What a
            function of the user's raises comes through. Nothing has changed then.

        Warns
        -----
        UserWarning
            If `epoch` is given; at the first call also if the optimizer has made no step since the scheduler
            was made.
        """
        if self._step_count == 1:
            self._watch.check(self.optimizer)
        if epoch is not None:
            warn(EPOCH_IS_DEPRECATED)
        with rates.all_or_nothing(self, self.optimizer):
            self._step_count += 1
            self._update_lr(epoch)

    def _update_lr(self, epoch: Optional[int] = None) -> None:
        """Set the rates of the next epoch, or of one that is given. Callers undo what fails."""
        with self._inside_step():
            if epoch is None:
                self.last_epoch += 1
                values = self.get_lr()
            else:
                self.last_epoch = epoch
                values = getattr(self, "_get_closed_form_lr", self.get_lr)()
            momenta = self._get_momenta()
        self._write(values, momenta)

    @contextlib.contextmanager
    def _inside_step(self) -> Iterator[None]:
        self._get_lr_called_within_step = True
        try:
            yield
        finally:
            self._get_lr_called_within_step = False

    def _get_momenta(self) -> Optional[List[Any]]:
        """The momentum of each group; None where the scheduler leaves it alone."""
        return None

    def _write(self, values: List[Any], momenta: Optional[List[Any]]) -> None:
        rates.write(self, values)
        if momenta is not None:
            rates.write_momenta(self, momenta)
        self._last_lr = rates.read(self.optimizer)

    def _warn_outside_step(self) -> None:
        """For `get_lr` of the subclasses, which users need not call."""
        if not self._get_lr_called_within_step:
            warn("To get the last learning rate computed by the scheduler, please use `get_last_lr()`.")

    def _present_lrs(self) -> List[Any]:
        """What stands in the groups now. For `get_lr` of the subclasses, which warns where it is called."""
        self._warn_outside_step()
        return rates.read(self.optimizer)

    def state_dict(self) -> Dict[str, Any]:
        """Return the state of the scheduler, with the keys of PyTorch's.

        Returns
        -------
        dict
            All attributes but the optimizer: numbers, lists and dicts, which `dragon_optim.checkpoint.save`
            and PyTorch's ``torch.save`` write. Functions that the scheduler was given are left out; of
            callable objects the attributes are there.
        """
        return {key: _copied(value) for key, value in vars(self).items() if key not in self._not_saved}

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Take over a state dict, of this class or of PyTorch's class of the same name.

        The learning rates in the groups are the optimizer's: load its state dict, too, after this scheduler
        was made.

        Parameters
        ----------
        state_dict : dict
            What `state_dict` returned.

        Raises
        ------
        KeyError, TypeError, ValueError
            If something is missing, of the wrong type, or for another number of groups. Nothing has changed
            then.
        """
        with rates.all_or_nothing(self, self.optimizer):
            objects = self._load(state_dict)
        for functions, saved in objects:
            loading.load_functions(functions, saved)

    def _load(self, state_dict: Dict[str, Any]) -> List[Tuple[List[Any], List[Any]]]:
        """Take over attributes, after all checks. Return functions, and what those that are objects get.

        These are outside of the scheduler, so they get it last, when nothing can fail any more.
        """
        vars(self).update(loading.attributes(self, state_dict))
        return []

    def __getstate__(self) -> Dict[str, Any]:
        """Return all that a copy needs; the optimizer is copied with it."""
        state = dict(vars(self))
        if "_watch" in state:
            state["_watch"] = state["_watch"].of_a_copy(self.optimizer)
        return state


def _copied(value: Any) -> Any:
    return type(value)(value) if type(value) in (list, dict, Counter) else value


class _LRScheduler(LRScheduler):
    """The name of the base class in older code."""
