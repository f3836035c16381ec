# SPDX-License-Identifier: BSD-2-Clause
"""Schedules along a cosine, with and without restarts."""

import math
from typing import Any, List, Optional

from dragon_optim.lr_scheduler import arguments, rates
from dragon_optim.lr_scheduler.base import LRScheduler
from dragon_optim.parameters import brief


class CosineAnnealingLR(LRScheduler):
    r"""Along half a cosine, down to `eta_min` in `T_max` epochs, and up again in as many.

    .. math::
        \gamma_t = \gamma_{min} + \frac{1}{2} (\gamma_0 - \gamma_{min})
        \left(1 + \cos\left(\frac{t}{T_{max}} \pi\right)\right)

    computed from the present rate, so that it can be chained and follows changes by hand.

    Parameters
    ----------
    optimizer : Optimizer
        See `LRScheduler`.
    T_max : int
        The epochs from the highest to the lowest rate. Range: ``> 0``.
    eta_min : float, optional, default=0.0
        The lowest rate.
    last_epoch : int, optional, default=-1
        See `LRScheduler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, or out of range.

    References
    ----------
    I. Loshchilov and F. Hutter, *SGDR: Stochastic Gradient Descent with Warm Restarts*, 2017: equation 5,
    without the restarts, for which there is `CosineAnnealingWarmRestarts`.

    Examples
    --------
    >>> from dragon.vm import torch
    >>> import dragon_optim
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = dragon_optim.RMSprop([weight], lr=1.0)
    >>> scheduler = dragon_optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    >>> for _ in range(4):
    ...     weight.sum().backward()
    ...     optimizer.step()
    ...     scheduler.step()
    ...     print(round(scheduler.get_last_lr()[0], 4))
    0.8536
    0.5
    0.1464
    0.0
    """

    _state_keys = ("base_lrs", "T_max", "eta_min")
    _per_group = ("base_lrs",)

    def __init__(self, optimizer: Any, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:  # noqa: N803
        """See the class."""
        self.T_max = arguments.above("T_max", T_max, 0)
        self.eta_min = arguments.number("eta_min", eta_min)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> List[Any]:
        """Compute the learning rates; see `LRScheduler.get_lr`."""
        present = self._present_lrs()
        rates.check_count(self, len(self.base_lrs))
        epoch, half = self.last_epoch, self.T_max
        if self._is_initial:
            return present
        if (epoch - 1 - half) % (2 * half) == 0:  # from the lowest point, where the factor would divide by 0
            up = 1 - math.cos(math.pi / half)
            return [rate + (base - self.eta_min) * up / 2 for rate, base in zip(present, self.base_lrs)]
        factor = (1 + math.cos(math.pi * epoch / half)) / (1 + math.cos(math.pi * (epoch - 1) / half))
        return [factor * (rate - self.eta_min) + self.eta_min for rate in present]

    def _get_closed_form_lr(self) -> List[Any]:
        fall = 1 + math.cos(math.pi * self.last_epoch / self.T_max)
        return [self.eta_min + (base - self.eta_min) * fall / 2 for base in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    r"""Along half a cosine, down to `eta_min`, again and again from the initial learning rate.

    .. math::
        \gamma_t = \gamma_{min} + \frac{1}{2} (\gamma_0 - \gamma_{min})
        \left(1 + \cos\left(\frac{T_{cur}}{T_i} \pi\right)\right)

    where :math:`T_{cur}` counts the epochs since the last restart, and :math:`T_i` those between two.

    Parameters
    ----------
    optimizer : Optimizer
        See `LRScheduler`.
    T_0 : int
        The epochs up to the first restart. Range: ``> 0``.
    T_mult : int, optional, default=1
        How many times longer each period is than the one before. Range: ``>= 1``.
    eta_min : float, optional, default=0.0
        The lowest rate.
    last_epoch : int, optional, default=-1
        See `LRScheduler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, or out of range.

    References
    ----------
    I. Loshchilov and F. Hutter, *SGDR: Stochastic Gradient Descent with Warm Restarts*, 2017.

    Examples
    --------
    With an epoch to `step`, which may be a fraction, the rate falls within epochs, too:

    >>> from dragon.vm import torch
    >>> import dragon_optim
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = dragon_optim.RMSprop([weight], lr=1.0)
    >>> scheduler = dragon_optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=1)
    >>> batches = 4
    >>> for epoch in range(2):
    ...     for batch in range(batches):
    ...         weight.sum().backward()
    ...         optimizer.step()
    ...         scheduler.step(epoch + batch / batches)
    ...         print(round(scheduler.get_last_lr()[0], 4), end=" ")
    1.0 0.8536 0.5 0.1464 1.0 0.8536 0.5 0.1464
    """

    _state_keys = ("base_lrs", "T_0", "T_i", "T_mult", "T_cur", "eta_min")
    _per_group = ("base_lrs",)

    def __init__(
        self,
        optimizer: Any,
        T_0: int,  # noqa: N803
        T_mult: int = 1,  # noqa: N803
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        """See the class."""
        if not isinstance(T_0, int) or T_0 <= 0:
            raise ValueError(f"Expected positive integer T_0, but got {brief(T_0)}")
        if not isinstance(T_mult, int) or T_mult < 1:
            raise ValueError(f"Expected integer T_mult >= 1, but got {brief(T_mult)}")
        if not isinstance(eta_min, (float, int)):
            raise ValueError(
                f"Expected float or int eta_min, but got {brief(eta_min)} of type {type(eta_min)}"
            )
        self.T_0 = self.T_i = T_0
        self.T_mult = T_mult
        self.eta_min = arguments.number("eta_min", eta_min)
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> List[Any]:
        """Compute the learning rates; see `LRScheduler.get_lr`."""
        self._warn_outside_step()
        fall = 1 + math.cos(math.pi * self.T_cur / self.T_i)
        return [self.eta_min + (base - self.eta_min) * fall / 2 for base in self.base_lrs]

    def step(self, epoch: Optional[float] = None) -> None:
        """Go on to the next epoch, or to one that is given.

        Parameters
        ----------
        epoch : float, optional
            The epoch to go to; a fraction is a place within an epoch. Range: ``>= 0``. Not deprecated here.

        Raises
        ------
        ValueError
            If `epoch` is negative; see also `LRScheduler.step`. Nothing has changed then.
        """
        if epoch is not None:
            epoch = arguments.number("epoch", epoch)
            if epoch < 0 or math.isinf(epoch):
                raise ValueError(f"Expected non-negative epoch, but got {epoch}")
        elif self.last_epoch < 0:
            epoch = 0
        with rates.all_or_nothing(self, self.optimizer):
            if epoch is None:
                epoch = self.last_epoch + 1
                self._go_on()
            else:
                self._go_to(epoch)
            self.last_epoch = math.floor(epoch)
            with self._inside_step():
                values = self.get_lr()
            self._write(values, None)

    def _go_on(self) -> None:
        self.T_cur = self.T_cur + 1
        if self.T_cur >= self.T_i:
            self.T_cur = self.T_cur % self.T_i
            self.T_i = self.T_i * self.T_mult

    def _go_to(self, epoch: float) -> None:
        if epoch < self.T_0:
            self.T_cur, self.T_i = epoch, self.T_0
        elif self.T_mult == 1:
            self.T_cur = epoch % self.T_0
        else:
            # The n periods before this one last T_0 (T_mult^n - 1) / (T_mult - 1) epochs together.
            n = int(math.log(epoch / self.T_0 * (self.T_mult - 1) + 1, self.T_mult))
            self.T_cur = epoch - self.T_0 * (self.T_mult**n - 1) / (self.T_mult - 1)
            self.T_i = self.T_0 * self.T_mult**n
