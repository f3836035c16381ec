# SPDX-License-Identifier: BSD-2-Clause
"""Schedules that last for some epochs and then leave the learning rate alone: warm-up, and decay to 0."""

from typing import Any, List

from dragon_optim.lr_scheduler import arguments
from dragon_optim.lr_scheduler.base import LRScheduler


class ConstantLR(LRScheduler):
    """Times `factor` until epoch `total_iters`, which puts the learning rate back.

    Parameters
    ----------
    optimizer : Optimizer
        See `LRScheduler`.
    factor : float, optional, default=1/3
        The factor. Range: 0 to 1.
    total_iters : int, optional, default=5
        The epochs for which it holds. Range: ``>= 0``.
    last_epoch : int, optional, default=-1
        See `LRScheduler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, or out of range.

    Notes
    -----
    With ``factor=0`` the initial learning rate comes back, where PyTorch divides by 0. With ``total_iters=0``
    the factor stays for good, as in PyTorch.

    Examples
    --------
    >>> from dragon.vm import torch
    >>> import dragon_optim
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = dragon_optim.RMSprop([weight], lr=1.0)
    >>> scheduler = dragon_optim.lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=2)
    >>> for _ in range(2):
    ...     print(scheduler.get_last_lr()[0])
    ...     weight.sum().backward()
    ...     optimizer.step()
    ...     scheduler.step()
    0.5
    0.5
    >>> scheduler.get_last_lr()
    [1.0]
    """

    _state_keys = ("base_lrs", "factor", "total_iters")

    def __init__(
        self, optimizer: Any, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        """See the class."""
        self.factor = arguments.number("factor", factor)
        if not 0 <= self.factor <= 1:
            raise ValueError(
                f"Constant multiplicative factor expected to be between 0 and 1, but factor is {factor}."
            )
        self.total_iters = arguments.at_least("total_iters", total_iters, 0)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> List[Any]:
        """Compute the learning rates; see `LRScheduler.get_lr`."""
        present = self._present_lrs()
        if self.last_epoch == 0:
            return [rate * self.factor for rate in present]
        if self.last_epoch != self.total_iters:
            return present
        if self.factor == 0:
            return self.base_lrs
        return [rate * (1.0 / self.factor) for rate in present]

    def _get_closed_form_lr(self) -> List[Any]:
        factor = self.factor + (self.last_epoch >= self.total_iters) * (1 - self.factor)
        return [base * factor for base in self.base_lrs]


class LinearLR(LRScheduler):
    r"""Along a line from `start_factor` to `end_factor`, over `total_iters` epochs: a warm-up, by default.

    :math:`\gamma_t = \gamma_0 (s + (e - s) \min(t, T) / T)`, where :math:`s` and :math:`e` are the factors
    and :math:`T` is `total_iters`; computed as a factor on the present rate.

    Parameters
    ----------
    optimizer : Optimizer
        See `LRScheduler`.
    start_factor : float, optional, default=1/3
        The factor at the start. Range: above 0, to 1.
    end_factor : float, optional, default=1.0
        The factor at the end. Range: 0 to 1.
    total_iters : int, optional, default=5
        The epochs that it lasts. Range: ``>= 0``.
    last_epoch : int, optional, default=-1
        See `LRScheduler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, or out of range.

    Notes
    -----
    With ``total_iters=0`` the start factor stays for good, as in PyTorch.

    Examples
    --------
    >>> from dragon.vm import torch
    >>> import dragon_optim
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = dragon_optim.RMSprop([weight], lr=1.0)
    >>> scheduler = dragon_optim.lr_scheduler.LinearLR(optimizer, start_factor=0.5, total_iters=2)
    >>> for _ in range(2):
    ...     print(scheduler.get_last_lr()[0])
    ...     weight.sum().backward()
    ...     optimizer.step()
    ...     scheduler.step()
    0.5
    0.75
    """

    _state_keys = ("base_lrs", "start_factor", "end_factor", "total_iters")

    def __init__(
        self,
        optimizer: Any,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        """See the class."""
        self.start_factor = arguments.number("start_factor", start_factor)
        if not 0 < self.start_factor <= 1:
            raise ValueError(
                "Starting multiplicative factor expected to be greater than 0 and less or equal to 1, but "
                f"start_factor is {start_factor}."
            )
        self.end_factor = arguments.number("end_factor", end_factor)
        if not 0 <= self.end_factor <= 1:
            raise ValueError(
                "Ending multiplicative factor expected to be between 0 and 1, but end_factor is "
                f"{end_factor}."
            )
        self.total_iters = arguments.at_least("total_iters", total_iters, 0)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> List[Any]:
        """Compute the learning rates; see `LRScheduler.get_lr`."""
        present = self._present_lrs()
        if self.last_epoch == 0:
            return [rate * self.start_factor for rate in present]
        if self._is_initial or self.last_epoch > self.total_iters:
            return present
        rise = self.end_factor - self.start_factor
        # The line's value at the epoch before, times total_iters.
        before = self.total_iters * self.start_factor + (self.last_epoch - 1) * rise
        return [rate * (1.0 + rise / before) for rate in present]

    def _get_closed_form_lr(self) -> List[Any]:
        start, rise = self.start_factor, self.end_factor - self.start_factor
        if self.total_iters == 0:
            return [base * start for base in self.base_lrs]
        epochs = min(self.total_iters, self.last_epoch)
        return [base * (start + rise * epochs / self.total_iters) for base in self.base_lrs]


class PolynomialLR(LRScheduler):
    r"""Down to 0 over `total_iters` epochs: :math:`\gamma_t = \gamma_0 (1 - \min(t, T) / T)^p`.

    Parameters
    ----------
    optimizer : Optimizer
        See `LRScheduler`.
    total_iters : int, optional, default=5
        The epochs :math:`T` that it lasts. Range: ``>= 0``.
    power : float, optional, default=1.0
        The power :math:`p`.
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
    >>> scheduler = dragon_optim.lr_scheduler.PolynomialLR(optimizer, total_iters=2, power=2.0)
    >>> for _ in range(2):
    ...     weight.sum().backward()
    ...     optimizer.step()
    ...     scheduler.step()
    ...     print(scheduler.get_last_lr()[0])
    0.25
    0.0
    """

    _state_keys = ("base_lrs", "total_iters", "power")

    def __init__(
        self, optimizer: Any, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1
    ) -> None:
        """See the class."""
        self.total_iters = arguments.at_least("total_iters", total_iters, 0)
        self.power = arguments.number("power", power)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> List[Any]:
        """Compute the learning rates; see `LRScheduler.get_lr`."""
        present = self._present_lrs()
        if self._is_initial or self.last_epoch > self.total_iters:
            return present
        left = 1.0 - self.last_epoch / self.total_iters
        left_before = 1.0 - (self.last_epoch - 1) / self.total_iters
        factor = (left / left_before) ** self.power
        return [rate * factor for rate in present]

    def _get_closed_form_lr(self) -> List[Any]:
        if self.total_iters == 0:
            return list(self.base_lrs)
        left = 1.0 - min(self.total_iters, self.last_epoch) / self.total_iters
        return [base * left**self.power for base in self.base_lrs]
