# SPDX-License-Identifier: BSD-2-Clause
"""A schedule that looks at how the training goes."""

import math
from typing import Any, Dict, List, Optional, Sequence, Union

from dragon_optim._warnings import warn
from dragon_optim.lr_scheduler import arguments, rates
from dragon_optim.lr_scheduler.base import EPOCH_IS_DEPRECATED, LRScheduler
from dragon_optim.parameters import brief


class ReduceLROnPlateau(LRScheduler):
    """Times `factor` where a metric has not become better for more than `patience` epochs.

    Parameters
    ----------
    optimizer : Optimizer
        See `LRScheduler`.
    mode : {'min', 'max'}, optional, default='min'
        Whether less is better, or more.
    factor : float, optional, default=0.1
        The factor. Range: ``< 1``.
    patience : int, optional, default=10
        The epochs without a better metric that change nothing; one more does.
    threshold : float, optional, default=1e-4
        By how much a metric must be better than the best one to count.
    threshold_mode : {'rel', 'abs'}, optional, default='rel'
        Whether `threshold` is a part of the best metric, or an amount.
    cooldown : int, optional, default=0
        The epochs after a reduction in which none is counted as bad.
    min_lr : float or list of float, optional, default=0
        The lowest rate; in a list, of each group.
    eps : float, optional, default=1e-8
        A reduction by no more than this is not made.

    Attributes
    ----------
    best : float
        The best metric so far.
    num_bad_epochs : int
        The epochs since, as they are counted.
    in_cooldown : bool
        Whether a reduction was less than `cooldown` epochs ago.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, or out of range.

    Notes
    -----
    NaN is not better than anything, and so counts as a bad epoch.

    Examples
    --------
    >>> from dragon.vm import torch
    >>> import dragon_optim
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = dragon_optim.RMSprop([weight], lr=1.0)
    >>> scheduler = dragon_optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    >>> for loss in (3.0, 2.0, 2.0, 2.0):
    ...     weight.sum().backward()
    ...     optimizer.step()
    ...     scheduler.step(loss)
    >>> scheduler.get_last_lr()
    [0.5]
    """

    _state_keys = (
        *("factor", "min_lrs", "patience", "cooldown", "eps", "mode", "threshold", "threshold_mode"),
        *("best", "cooldown_counter", "num_bad_epochs"),
    )

    def __init__(
        self,
        optimizer: Any,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: Union[float, Sequence[float]] = 0,
        eps: float = 1e-8,
    ) -> None:
        """See the class."""
        self.factor = arguments.number("factor", factor)
        if self.factor >= 1.0:
            raise ValueError(f"Factor should be < 1.0, but factor is {factor}.")
        arguments.check_optimizer(optimizer)
        self.optimizer = optimizer
        self._take_min_lr(min_lr)
        self.patience = arguments.number("patience", patience)
        self.cooldown = arguments.number("cooldown", cooldown)
        self.eps = arguments.number("eps", eps)
        self.last_epoch = 0
        self._last_lr = rates.read(optimizer)
        self._take_mode(mode, arguments.number("threshold", threshold), threshold_mode)
        self._reset()

    def _take_min_lr(self, min_lr: Any) -> None:
        count = len(self.optimizer.param_groups)
        if isinstance(min_lr, (list, tuple)):
            if len(min_lr) != count:
                raise ValueError(f"expected {count} min_lrs, got {len(min_lr)}")
            self.default_min_lr = None
            self.min_lrs = [arguments.number("min_lr", each) for each in min_lr]
        else:
            self.default_min_lr = arguments.number("min_lr", min_lr)
            self.min_lrs = [self.default_min_lr] * count

    def _take_mode(self, mode: Any, threshold: Any, threshold_mode: Any) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode {_word(mode)} is unknown! (need 'min' or 'max')")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"threshold mode {_word(threshold_mode)} is unknown! (need 'rel' or 'abs')")
        self.mode_worse = math.inf if mode == "min" else -math.inf
        self.mode = mode
        self.threshold = threshold
        self.threshold_mode = threshold_mode

    def _reset(self) -> None:
        """Forget the metrics."""
        self.best = self.mode_worse
        self.cooldown_counter = 0
        self.num_bad_epochs = 0

    def step(self, metrics: Any, epoch: Optional[int] = None) -> None:  # type: ignore[override]
        """Look at the metric of an epoch.

        Parameters
        ----------
        metrics : float
            The metric; a number, or a tensor of one element.
        epoch : int, optional
            The number of the epoch. Deprecated, as in PyTorch.

        Raises
        ------
        TypeError
            If `metrics` is no number.
        RuntimeError
            If groups were added since `min_lr` was given as a list. Nothing has changed then.

        Warns
        -----
        UserWarning
            If `epoch` is given.
        """
        current = float(arguments.plain("metrics", metrics))
        if epoch is not None:
            warn(EPOCH_IS_DEPRECATED)
        with rates.all_or_nothing(self, self.optimizer):
            self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
            if self._is_better(current, self.best):
                self.best = current
                self.num_bad_epochs = 0
            else:
                self.num_bad_epochs += 1
            if self.in_cooldown:
                self.cooldown_counter -= 1
                self.num_bad_epochs = 0
            if self.num_bad_epochs > self.patience:
                self._reduce_lr()
                self.cooldown_counter = self.cooldown
                self.num_bad_epochs = 0
            self._last_lr = rates.read(self.optimizer)

    def _reduce_lr(self) -> None:
        groups = len(self.optimizer.param_groups)
        if len(self.min_lrs) != groups:
            if self.default_min_lr is None:
                raise RuntimeError(
                    f"The number of param groups in the `optimizer` ({groups}) differs from when "
                    f"`ReduceLROnPlateau` was initialized ({len(self.min_lrs)}): groups were added. Give "
                    "scheduler.min_lrs a value for each."
                )
            self.min_lrs = [self.default_min_lr] * groups
        present = rates.read(self.optimizer)
        reduced = [max(float(rate) * self.factor, least) for rate, least in zip(present, self.min_lrs)]
        rates.write(self, [new if rate - new > self.eps else rate for rate, new in zip(present, reduced)])

    @property
    def in_cooldown(self) -> bool:
        """Whether a reduction was less than `cooldown` epochs ago."""
        return bool(self.cooldown_counter > 0)

    def _is_better(self, metric: float, best: float) -> bool:
        if self.threshold_mode == "rel":
            bound = best * (1.0 - self.threshold if self.mode == "min" else self.threshold + 1.0)
        else:
            bound = best - self.threshold if self.mode == "min" else best + self.threshold
        return metric < bound if self.mode == "min" else metric > bound

    def get_lr(self) -> List[Any]:
        """Return the present learning rates: they depend on metrics, not on the epoch."""
        return rates.read(self.optimizer)

    def _load(self, state_dict: Dict[str, Any]) -> Any:
        objects = super()._load(state_dict)
        self._take_mode(self.mode, self.threshold, self.threshold_mode)
        return objects


def _word(value: Any) -> str:
    return value if isinstance(value, str) else brief(value)
