# SPDX-License-Identifier: BSD-2-Clause
"""Schedulers of schedulers: one after the other, and all at once."""

from bisect import bisect_right
from typing import Any, Dict, List, Optional, Sequence

from dragon_optim.lr_scheduler import arguments, loading, order, rates
from dragon_optim.lr_scheduler.base import LRScheduler
from dragon_optim.lr_scheduler.plateau import ReduceLROnPlateau
from dragon_optim.parameters import brief


class _OfSchedulers(LRScheduler):
    """What schedulers of schedulers have in common."""

    _not_saved = (*LRScheduler._not_saved, "_schedulers")

    _schedulers: List[LRScheduler]

    def _begin(self) -> None:
        """Let the schedulers, none of which has begun, set the first learning rates."""
        raise NotImplementedError

    def _update_lr(self, epoch: Optional[int] = None) -> None:
        """Begin anew, where another scheduler says so: the only epoch that it gives is 0."""
        with order.silent():
            _reset_to_initial(self)
            for each in _leaves(self):
                each.last_epoch = -1
            self._begin()

    def state_dict(self) -> Dict[str, Any]:
        """Return the state of the scheduler, with the keys of PyTorch's.

        Returns
        -------
        dict
            As `LRScheduler.state_dict`; ``_schedulers`` is a list of the state dicts of the schedulers.
        """
        return {**super().state_dict(), "_schedulers": [each.state_dict() for each in self._schedulers]}

    def _load(self, state_dict: Dict[str, Any]) -> Any:
        loading.check_mapping(state_dict)
        saved = state_dict.get("_schedulers")
        if not isinstance(saved, (list, tuple)) or len(saved) != len(self._schedulers):
            raise ValueError(
                f"_schedulers of the state dict must be a list of {len(self._schedulers)} state dicts, "
                f"but is {brief(saved)}"
            )
        super()._load({key: value for key, value in state_dict.items() if key != "_schedulers"})
        return [pair for part, each in zip(self._schedulers, saved) for pair in part._load(each)]


class SequentialLR(_OfSchedulers):
    """One scheduler after the other, with a milestone between each two: a warm-up, and what follows it.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer of all the schedulers.
    schedulers : list of LRScheduler
        In the order in which they take turns.
    milestones : list of int
        The epochs at which the second and each later one begins, in ascending order.
    last_epoch : int, optional, default=-1
        The epoch that was done last.

    Raises
    ------
    TypeError
        If one of `schedulers` is none.
    ValueError
        If there is none, one belongs to another optimizer or is a `ReduceLROnPlateau`, or there is not one
        milestone between each two.

    Notes
    -----
    A scheduler begins with its own epoch 0, and from the initial learning rate, where it has a form that says
    what that is. A `SequentialLR` or `ChainedScheduler` may follow another scheduler, too; PyTorch raises
    NotImplementedError at its milestone. One that comes first behaves as PyTorch's, whose milestones are
    counted from the second epoch there.

    Examples
    --------
    >>> from dragon.vm import torch
    >>> import dragon_optim
    >>> from dragon_optim.lr_scheduler import ExponentialLR, LinearLR, SequentialLR
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = dragon_optim.RMSprop([weight], lr=1.0)
    >>> warm_up = LinearLR(optimizer, start_factor=0.5, total_iters=2)
    >>> decay = ExponentialLR(optimizer, gamma=0.5)
    >>> scheduler = SequentialLR(optimizer, [warm_up, decay], milestones=[2])
    >>> for _ in range(5):
    ...     weight.sum().backward()
    ...     optimizer.step()
    ...     print(scheduler.get_last_lr()[0], end=" ")
    ...     scheduler.step()
    0.5 0.75 1.0 0.5 0.25
    """

    _state_keys = ("_milestones",)

    def __init__(
        self, optimizer: Any, schedulers: List[LRScheduler], milestones: List[int], last_epoch: int = -1
    ) -> None:
        """See the class."""
        schedulers = _checked(type(self).__name__, schedulers, optimizer)
        if not isinstance(milestones, (list, tuple)):
            raise TypeError(f"milestones must be a list of integers, but got {brief(milestones)}")
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                "Sequential Schedulers expects number of schedulers provided to be one more than the number "
                f"of milestone points, but got number of schedulers {len(schedulers)} and the number of "
                f"milestones to be equal to {len(milestones)}"
            )
        self._schedulers = schedulers
        self._milestones = [arguments.number("milestones", each) for each in milestones]
        if self._milestones != sorted(self._milestones):
            raise ValueError(
                f"Invalid milestones value: {brief(list(milestones))} (need them in ascending order)"
            )
        with rates.all_or_nothing(self, optimizer), order.silent():
            self.last_epoch = arguments.epoch(last_epoch) + 1
            self.optimizer = optimizer
            _reset_to_initial(self)
            for each in _leaves(self):
                each.last_epoch -= 1
            first = self._schedulers[bisect_right(self._milestones, 0)]
            first._initial_step()
            self._last_lr = first.get_last_lr()

    def _begin(self) -> None:
        _reset_to_initial(self)  # as where it is made: what came before counts for nothing
        self.last_epoch = 0
        first = self._schedulers[bisect_right(self._milestones, 0)]
        _begin(first)
        self._last_lr = first.get_last_lr()

    def step(self) -> None:  # type: ignore[override]
        """Go on to the next epoch. Call it after the optimizer's ``step()``.

        Raises
        ------
        Exception
            What the scheduler whose turn it is raises. Nothing has changed then.
        """
        with rates.all_or_nothing(self, self.optimizer):
            self.last_epoch += 1
            turn = bisect_right(self._milestones, self.last_epoch)
            scheduler = self._schedulers[turn]
            if turn > 0 and self._milestones[turn - 1] == self.last_epoch:
                scheduler._update_lr(0)
            else:
                scheduler.step()
            self._last_lr = scheduler.get_last_lr()


class ChainedScheduler(_OfSchedulers):
    """Several schedulers, all of which make each step: their factors multiply.

    Parameters
    ----------
    schedulers : list of LRScheduler
        In the order in which they step. They must be such as go from the present rate.
    optimizer : Optimizer, optional, default=None
        The optimizer of all the schedulers, which is found from the first.

    Raises
    ------
    TypeError
        If one of `schedulers` is none.
    ValueError
        If there is none, or one belongs to another optimizer or is a `ReduceLROnPlateau`.

    Examples
    --------
    >>> from dragon.vm import torch
    >>> import dragon_optim
    >>> from dragon_optim.lr_scheduler import ChainedScheduler, ConstantLR, ExponentialLR
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = dragon_optim.RMSprop([weight], lr=1.0)
    >>> parts = [ConstantLR(optimizer, factor=0.5, total_iters=2), ExponentialLR(optimizer, gamma=0.5)]
    >>> scheduler = ChainedScheduler(parts)
    >>> for _ in range(3):
    ...     weight.sum().backward()
    ...     optimizer.step()
    ...     scheduler.step()
    ...     print(scheduler.get_last_lr()[0], end=" ")
    0.25 0.25 0.125
    """

    _state_keys = ("_last_lr",)

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Any = None) -> None:
        """See the class."""
        name = type(self).__name__
        self._schedulers = _checked(name, schedulers, optimizer, "scheduler to be chained")
        self.optimizer = self._schedulers[0].optimizer
        self._last_lr = rates.read(self.optimizer)

    def _begin(self) -> None:
        for each in self._schedulers:
            _begin(each)
        self._last_lr = rates.read(self.optimizer)

    def step(self) -> None:  # type: ignore[override]
        """Let each scheduler go on to its next epoch. Call it after the optimizer's ``step()``.

        Raises
        ------
        Exception
            What one of the schedulers raises. Nothing has changed then, in the others neither.
        """
        with rates.all_or_nothing(self, self.optimizer):
            for each in self._schedulers:
                each.step()
            self._last_lr = rates.read(self.optimizer)


def _checked(name: str, schedulers: Any, optimizer: Any, what: str = "scheduler") -> List[LRScheduler]:
    """Return schedulers that can be combined, all of one optimizer."""
    if not isinstance(schedulers, (list, tuple)):
        raise TypeError(f"schedulers must be a list of schedulers, but got {brief(schedulers)}")
    if not schedulers:
        raise ValueError(f"{name} expects at least one {what}, but got no scheduler: give it a list of them")
    for place, each in enumerate(schedulers):
        if not hasattr(each, "optimizer"):
            raise TypeError(
                f"{name} at index {place} should have `optimizer` as its attribute: it is {brief(each)}"
            )
        if not isinstance(each, LRScheduler):
            raise TypeError(
                f"{name} at index {place} must be a scheduler of this package: it is {brief(each)}"
            )
        if isinstance(each, ReduceLROnPlateau):
            raise ValueError(
                f"{name} does not support `ReduceLROnPlateau` scheduler as it requires additional kwargs to "
                f"be specified when calling `step`, but got one at index {place} in the given schedulers "
                "sequence."
            )
        if each.optimizer is not (schedulers[0].optimizer if optimizer is None else optimizer):
            raise ValueError(
                f"{name} expects all schedulers to belong to the same optimizer, but got scheduler "
                f"{type(each).__name__} at index {place}, which is of another one."
            )
    return list(schedulers)


def _begin(scheduler: LRScheduler) -> None:
    scheduler._begin() if isinstance(scheduler, _OfSchedulers) else scheduler._initial_step()


def _leaves(scheduler: LRScheduler) -> List[LRScheduler]:
    """The schedulers in it, however deep, that step no others."""
    found: List[LRScheduler] = []
    for each in vars(scheduler)["_schedulers"]:
        found += _leaves(each) if isinstance(each, _OfSchedulers) else [each]
    return found


def _reset_to_initial(scheduler: Any) -> None:
    rates.write(scheduler, rates.read(scheduler.optimizer, "initial_lr"))
