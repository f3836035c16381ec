# SPDX-License-Identifier: BSD-2-Clause
"""Cyclical learning rates."""

import math
from typing import Any, Callable, Dict, List, Optional, Sequence, Union

from dragon_optim.lr_scheduler import arguments, loading, rates
from dragon_optim.lr_scheduler.base import LRScheduler
from dragon_optim.parameters import brief

_MODES = ("triangular", "triangular2", "exp_range")


class CyclicLR(LRScheduler):
    r"""Up and down between two learning rates, in triangles.

    With :math:`c = \lfloor 1 + t / (u + d) \rfloor`, the number of the cycle, and :math:`h`, which goes from
    0 to 1 in the :math:`u` steps up and back to 0 in the :math:`d` steps down:

    .. math::
        \gamma_t = \gamma_{base} + (\gamma_{max} - \gamma_{base}) h s

    where :math:`s` is 1 in the mode ``triangular``, :math:`1 / 2^{c - 1}` in ``triangular2``, and :math:`g^t`
    in ``exp_range``. Momentum goes the other way: :math:`\mu_t = \mu_{max} - (\mu_{max} - \mu_{base}) h s`.

    Parameters
    ----------
    optimizer : Optimizer
        See `LRScheduler`.
    base_lr : float or list of float
        The lowest rate; in a list, of each group. It becomes the initial one.
    max_lr : float or list of float
        The highest rate of the first cycle; in a list, of each group.
    step_size_up : int, optional, default=2000
        The steps up. Range: ``> 0``.
    step_size_down : int, optional, default=None
        The steps down; as many as up if None. Range: ``>= 0``.
    mode : {'triangular', 'triangular2', 'exp_range'}, optional, default='triangular'
        How cycles shrink. Without effect where there is a `scale_fn`.
    gamma : float, optional, default=1.0
        :math:`g` of ``exp_range``.
    scale_fn : callable, optional, default=None
        Gives :math:`s` in the place of a `mode`.
    scale_mode : {'cycle', 'iterations'}, optional, default='cycle'
        Whether `scale_fn` is given the number of the cycle, from 1, or of the step.
    cycle_momentum : bool, optional, default=True
        Whether momentum (of Adam: the first beta) goes up and down as well.
    base_momentum : float or list of float, optional, default=0.8
        The lowest momentum, where the learning rate is highest.
    max_momentum : float or list of float, optional, default=0.9
        The highest momentum, where the learning rate is lowest.
    last_epoch : int, optional, default=-1
        The step that was done last; see `LRScheduler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, out of range, or a list of another length than the groups; if
        `cycle_momentum` is True and the optimizer has no momentum.

    Notes
    -----
    Call `step` after each batch. An RMSprop of this package that was made without momentum gets its buffers
    at the next step. `get_lr` changes nothing, where PyTorch's writes the momentum.

    References
    ----------
    L. N. Smith, *Cyclical Learning Rates for Training Neural Networks*, 2017.

    Examples
    --------
    >>> from dragon.vm import torch
    >>> import dragon_optim
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = dragon_optim.RMSprop([weight], lr=0.1, momentum=0.9)
    >>> scheduler = dragon_optim.lr_scheduler.CyclicLR(optimizer, base_lr=1.0, max_lr=2.0, step_size_up=2)
    >>> for _ in range(4):
    ...     weight.sum().backward()
    ...     optimizer.step()
    ...     scheduler.step()
    ...     print(scheduler.get_last_lr()[0], round(optimizer.param_groups[0]["momentum"], 4))
    1.5 0.85
    2.0 0.8
    1.5 0.85
    1.0 0.9
    """

    _not_saved = (*LRScheduler._not_saved, "_scale_fn_custom")
    _state_keys = (
        "base_lrs",
        "max_lrs",
        "total_size",
        "step_ratio",
        "mode",
        "gamma",
        "scale_mode",
        "cycle_momentum",
    )
    _per_group = ("base_lrs", "max_lrs", "base_momentums", "max_momentums")

    def __init__(
        self,
        optimizer: Any,
        base_lr: Union[float, Sequence[float]],
        max_lr: Union[float, Sequence[float]],
        step_size_up: int = 2000,
        step_size_down: Optional[int] = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Optional[Callable[[float], float]] = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: Union[float, Sequence[float]] = 0.8,
        max_momentum: Union[float, Sequence[float]] = 0.9,
        last_epoch: int = -1,
    ) -> None:
        """See the class."""
        arguments.check_optimizer(optimizer)
        with rates.all_or_nothing(self, optimizer):
            self.optimizer = optimizer
            base_lrs = arguments.for_each_group("base_lr", optimizer, base_lr)
            self.max_lrs = arguments.for_each_group("max_lr", optimizer, max_lr)
            up = float(arguments.above("step_size_up", step_size_up, 0))
            down = (
                up
                if step_size_down is None
                else float(arguments.at_least("step_size_down", step_size_down, 0))
            )
            self.total_size = up + down
            self.step_ratio = up / self.total_size
            self._take_scale(mode, scale_fn, scale_mode)
            self.gamma = arguments.number("gamma", gamma)
            self.cycle_momentum = bool(cycle_momentum)
            if last_epoch == -1:
                rates.write(self, base_lrs)
            if self.cycle_momentum:
                self._take_momenta(base_momentum, max_momentum, last_epoch)
            super().__init__(optimizer, last_epoch)
            self.base_lrs = base_lrs

    def _take_scale(self, mode: Any, scale_fn: Any, scale_mode: Any) -> None:
        if scale_fn is None and mode not in _MODES:
            raise ValueError(
                f"mode is invalid and scale_fn is None: mode is {brief(mode)} (need one of "
                f"{', '.join(_MODES)})"
            )
        if scale_fn is not None and not callable(scale_fn):
            raise TypeError(f"scale_fn must be callable, but got {brief(scale_fn)}")
        if scale_mode not in ("cycle", "iterations"):
            raise ValueError(f"Invalid scale_mode value: {brief(scale_mode)} (need 'cycle' or 'iterations')")
        self.mode = mode
        self._scale_fn_custom = scale_fn
        self.scale_mode = scale_mode
        if scale_fn is None:
            self.scale_mode = "iterations" if mode == "exp_range" else "cycle"

    def _take_momenta(self, base: Any, most: Any, last_epoch: int) -> None:
        self.use_beta1 = rates.has_beta1(self.optimizer)
        self.base_momentums = arguments.for_each_group("base_momentum", self.optimizer, base)
        self.max_momentums = arguments.for_each_group("max_momentum", self.optimizer, most)
        if last_epoch == -1:
            rates.write_momenta(self, self.max_momentums)
            for group, low, high in zip(self.optimizer.param_groups, self.base_momentums, self.max_momentums):
                group.update(max_momentum=high, base_momentum=low)

    def scale_fn(self, x: float) -> Any:
        """Return the height of the triangle of a cycle, or at a step, by `scale_mode`."""
        if self._scale_fn_custom is not None:
            return arguments.plain("scale_fn", self._scale_fn_custom(x))
        if self.mode == "triangular2":
            return 1 / 2.0 ** (x - 1)
        return self.gamma**x if self.mode == "exp_range" else 1.0

    def _up(self) -> float:
        """How far up the triangle it is, from 0 to 1."""
        place = 1.0 + self.last_epoch / self.total_size - self._cycle()
        if place <= self.step_ratio:
            return place / self.step_ratio
        return (place - 1) / (self.step_ratio - 1)

    def _cycle(self) -> int:
        return math.floor(1 + self.last_epoch / self.total_size)

    def _scale(self) -> Any:
        return self.scale_fn(self._cycle() if self.scale_mode == "cycle" else self.last_epoch)

    def get_lr(self) -> List[Any]:
        """Compute the learning rates; see `LRScheduler.get_lr`."""
        self._warn_outside_step()
        up = self._up()
        ranges = zip(self.base_lrs, self.max_lrs)
        return [low + (high - low) * up * self._scale() for low, high in ranges]

    def _get_momenta(self) -> Optional[List[Any]]:
        if not self.cycle_momentum:
            return None
        up = self._up()
        ranges = zip(self.base_momentums, self.max_momentums)
        return [high - (high - low) * up * self._scale() for low, high in ranges]

    def state_dict(self) -> Dict[str, Any]:
        """Return the state of the scheduler, with the keys of PyTorch's.

        Returns
        -------
        dict
            As `LRScheduler.state_dict`. ``_scale_fn_custom`` holds the attributes of `scale_fn` where that is
            a callable object, else None.
        """
        saved = None if self._scale_fn_custom is None else loading.saved_function(self._scale_fn_custom)
        return {**super().state_dict(), "_scale_fn_custom": saved}

    def _load(self, state_dict: Dict[str, Any]) -> Any:
        loading.check_mapping(state_dict)
        functions, saved = [self._scale_fn_custom], [state_dict.get("_scale_fn_custom")]
        loading.check_functions("_scale_fn_custom", functions, saved)
        mode, scale_mode = state_dict.get("mode"), state_dict.get("scale_mode")
        if self._scale_fn_custom is None and mode is not None and mode not in _MODES:
            raise ValueError(
                f"mode of the state dict is {brief(mode)}, a schedule by a scale_fn that this scheduler lacks"
            )
        if scale_mode is not None and scale_mode not in ("cycle", "iterations"):
            raise ValueError(f"Invalid scale_mode value of the state dict: {brief(scale_mode)}")
        super()._load({key: value for key, value in state_dict.items() if key != "_scale_fn_custom"})
        if self._scale_fn_custom is None:
            self.scale_mode = "iterations" if self.mode == "exp_range" else "cycle"
        return [(functions, saved)]
