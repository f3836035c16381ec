# SPDX-License-Identifier: BSD-2-Clause
"""Schedules that multiply the learning rate at certain epochs, or at each."""

from bisect import bisect_right
from collections import Counter
from typing import Any, Dict, Iterable, List, Mapping

from dragon_optim.lr_scheduler import arguments, loading
from dragon_optim.lr_scheduler.base import LRScheduler
from dragon_optim.parameters import brief


class StepLR(LRScheduler):
    r"""Times `gamma` every `step_size` epochs: :math:`\gamma_t = \gamma_0 g^{\lfloor t / s \rfloor}`.

    Parameters
    ----------
    optimizer : Optimizer
        See `LRScheduler`.
    step_size : int
        The epochs between two decays. Range: ``> 0``.
    gamma : float, optional, default=0.1
        The factor.
    last_epoch : int, optional, default=-1
        See `LRScheduler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, or out of range.

    Notes
    -----
    It multiplies what stands in the group, so it can be chained with others and follows changes by hand.

    Examples
    --------
    As torchvision trains MobileNetV3:

    >>> from dragon.vm import torch
    >>> import dragon_optim
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = dragon_optim.RMSprop([weight], lr=0.064, alpha=0.9, eps=0.0316, momentum=0.9)
    >>> scheduler = dragon_optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.973)
    >>> for _ in range(2):
    ...     weight.sum().backward()
    ...     optimizer.step()
    ...     scheduler.step()
    >>> optimizer.param_groups[0]["lr"] == 0.064 * 0.973
    True
    """

    _state_keys = ("base_lrs", "step_size", "gamma")

    def __init__(self, optimizer: Any, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        """See the class."""
        self.step_size = arguments.above("step_size", step_size, 0)
        self.gamma = arguments.number("gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> List[Any]:
        """Compute the learning rates; see `LRScheduler.get_lr`."""
        present = self._present_lrs()
        if self.last_epoch == 0 or self.last_epoch % self.step_size != 0:
            return present
        return [rate * self.gamma for rate in present]

    def _get_closed_form_lr(self) -> List[Any]:
        return [base * self.gamma ** (self.last_epoch // self.step_size) for base in self.base_lrs]


class MultiStepLR(LRScheduler):
    """Times `gamma` at each of some epochs.

    Parameters
    ----------
    optimizer : Optimizer
        See `LRScheduler`.
    milestones : iterable of int
        The epochs, in any order. One that is given twice counts twice.
    gamma : float, optional, default=0.1
        The factor.
    last_epoch : int, optional, default=-1
        See `LRScheduler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, or out of range.

    Notes
    -----
    Without milestones the learning rate stays as it is, as in PyTorch.

    Examples
    --------
    >>> from dragon.vm import torch
    >>> import dragon_optim
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = dragon_optim.RMSprop([weight], lr=1.0)
    >>> scheduler = dragon_optim.lr_scheduler.MultiStepLR(optimizer, milestones=[1, 3], gamma=0.5)
    >>> for _ in range(3):
    ...     weight.sum().backward()
    ...     optimizer.step()
    ...     scheduler.step()
    ...     print(scheduler.get_last_lr()[0])
    0.5
    0.5
    0.25
    """

    _state_keys = ("base_lrs", "milestones", "gamma")

    def __init__(
        self, optimizer: Any, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        """See the class."""
        self.milestones = _counted(milestones)
        self.gamma = arguments.number("gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> List[Any]:
        """Compute the learning rates; see `LRScheduler.get_lr`."""
        present = self._present_lrs()
        times = self.milestones.get(self.last_epoch, 0)
        return [rate * self.gamma**times for rate in present] if times else present

    def _get_closed_form_lr(self) -> List[Any]:
        passed = bisect_right(sorted(self.milestones.elements()), self.last_epoch)
        return [base * self.gamma**passed for base in self.base_lrs]

    def _load(self, state_dict: Dict[str, Any]) -> Any:
        loading.check_mapping(state_dict)
        if "milestones" in state_dict:
            state_dict = {**state_dict, "milestones": _counted(state_dict["milestones"])}
        return super()._load(state_dict)


def _counted(milestones: Any) -> Counter:
    """How often each epoch is among the milestones."""
    if isinstance(milestones, (str, bytes)) or not isinstance(milestones, Iterable):
        raise TypeError(f"milestones must be an iterable of integers, but got {brief(milestones)}")
    counted = Counter(milestones)
    for epoch, times in counted.items():
        arguments.number("milestones", epoch)
        if isinstance(milestones, Mapping) and not (type(times) is int and times >= 0):
            raise ValueError(
                f"Invalid milestones value: {epoch} counts {brief(times)} (need an integer, 0 or more)"
            )
    return counted


class ExponentialLR(LRScheduler):
    r"""Times `gamma` at each epoch: :math:`\gamma_t = \gamma_0 g^t`.

    Parameters
    ----------
    optimizer : Optimizer
        See `LRScheduler`.
    gamma : float
        The factor.
    last_epoch : int, optional, default=-1
        See `LRScheduler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, or out of range.

    Examples
    --------
    >>> from dragon.vm import torch
    >>> import dragon_optim
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = dragon_optim.RMSprop([weight], lr=1.0)
    >>> scheduler = dragon_optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    >>> for _ in range(2):
    ...     weight.sum().backward()
    ...     optimizer.step()
    ...     scheduler.step()
    >>> scheduler.get_last_lr()
    [0.25]
    """

    _state_keys = ("base_lrs", "gamma")

    def __init__(self, optimizer: Any, gamma: float, last_epoch: int = -1) -> None:
        """See the class."""
        self.gamma = arguments.number("gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> List[Any]:
        """Compute the learning rates; see `LRScheduler.get_lr`."""
        present = self._present_lrs()
        return present if self._is_initial else [rate * self.gamma for rate in present]

    def _get_closed_form_lr(self) -> List[Any]:
        return [base * self.gamma**self.last_epoch for base in self.base_lrs]
