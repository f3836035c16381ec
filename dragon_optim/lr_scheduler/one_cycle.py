# SPDX-License-Identifier: BSD-2-Clause
"""One cycle of the learning rate over a whole training."""

import math
from typing import Any, Dict, List, Optional, Sequence, Union

from dragon_optim.lr_scheduler import arguments, rates
from dragon_optim.lr_scheduler.base import LRScheduler
from dragon_optim.parameters import brief


class OneCycleLR(LRScheduler):
    r"""Up to `max_lr`, then far down, over the steps of a whole training; momentum the other way.

    The rate goes from ``max_lr / div_factor`` up to `max_lr` in the first part of the steps, `pct_start`, and
    then down to ``max_lr / div_factor / final_div_factor``. From :math:`a` to :math:`b`, at a part :math:`r`
    of the way, it is :math:`b + (a - b) (1 + \cos \pi r) / 2`, or :math:`a + (b - a) r` with ``linear``.

    Parameters
    ----------
    optimizer : Optimizer
        See `LRScheduler`.
    max_lr : float or list of float
        The highest rate; in a list, of each group.
    total_steps : int, optional, default=None
        The steps of the training. Range: ``> 0``.
    epochs, steps_per_epoch : int, optional, default=None
        Their product is `total_steps`, where that is not given. Range: ``> 0``.
    pct_start : float, optional, default=0.3
        The part of the steps in which the rate rises, a float. Range: 0.0 to 1.0.
    anneal_strategy : {'cos', 'linear'}, optional, default='cos'
        Along half a cosine, or along a line.
    cycle_momentum : bool, optional, default=True
        Whether momentum (of Adam: the first beta) goes down and up as well.
    base_momentum : float or list of float, optional, default=0.85
        The lowest momentum, where the learning rate is highest.
    max_momentum : float or list of float, optional, default=0.95
        The highest momentum, at the start and at the end.
    div_factor : float, optional, default=25.0
        `max_lr` by the rate at the start. Range: ``> 0``.
    final_div_factor : float, optional, default=1e4
        The rate at the start by that at the end. Range: ``> 0``.
    three_phase : bool, optional, default=False
        Whether the rate falls to where it started in as many steps as it rose, and to the end in the rest.
    last_epoch : int, optional, default=-1
        The step that was done last; see `LRScheduler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, out of range, or a list of another length than the groups; if
        `cycle_momentum` is True and the optimizer has no momentum. ValueError in `step` after `total_steps`.

    Notes
    -----
    Call `step` after each batch. The groups get the keys ``initial_lr``, ``max_lr``, ``min_lr``,
    ``max_momentum`` and ``base_momentum``. An RMSprop of this package that was made without momentum gets its
    buffers at the first step. Where the rise is of one step only (``pct_start * total_steps`` is 1) the rate
    starts at `max_lr`; PyTorch divides by 0. `get_lr` changes nothing, where PyTorch's writes the momentum.

    References
    ----------
    L. N. Smith and N. Topin, *Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
    Rates*, 2018. The three phases are of that paper.

    Examples
    --------
    >>> from dragon.vm import torch
    >>> import dragon_optim
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = dragon_optim.RMSprop([weight], lr=0.1)
    >>> scheduler = dragon_optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=10)
    >>> for _ in range(9):
    ...     weight.sum().backward()
    ...     optimizer.step()
    ...     print(round(scheduler.get_last_lr()[0], 3), end=" ")
    ...     scheduler.step()
    0.04 0.52 1.0 0.95 0.812 0.611 0.389 0.188 0.05
    """

    _state_keys = ("base_lrs", "total_steps", "_schedule_phases", "cycle_momentum")

    def __init__(
        self,
        optimizer: Any,
        max_lr: Union[float, Sequence[float]],
        total_steps: Optional[int] = None,
        epochs: Optional[int] = None,
        steps_per_epoch: Optional[int] = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: Union[float, Sequence[float]] = 0.85,
        max_momentum: Union[float, Sequence[float]] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        """See the class."""
        arguments.check_optimizer(optimizer)
        with rates.all_or_nothing(self, optimizer):
            self.optimizer = optimizer
            self.total_steps = _total(total_steps, epochs, steps_per_epoch)
            if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
                raise ValueError(f"Expected float between 0 and 1 pct_start, but got {brief(pct_start)}")
            self._schedule_phases = _phases(pct_start, self.total_steps, bool(three_phase))
            if anneal_strategy not in ("cos", "linear"):
                raise ValueError(
                    f"anneal_strategy must be one of 'cos' or 'linear', instead got {brief(anneal_strategy)}"
                )
            self._anneal_func_type = anneal_strategy
            highest = arguments.for_each_group("max_lr", optimizer, max_lr)
            div_factor = arguments.above("div_factor", div_factor, 0)
            final_div_factor = arguments.above("final_div_factor", final_div_factor, 0)
            if last_epoch == -1:
                for group, high in zip(optimizer.param_groups, highest):
                    low = high / div_factor
                    group.update(initial_lr=low, max_lr=high, min_lr=low / final_div_factor)
            self.cycle_momentum = bool(cycle_momentum)
            if self.cycle_momentum:
                self._take_momenta(base_momentum, max_momentum, last_epoch)
            super().__init__(optimizer, last_epoch)

    def _take_momenta(self, base: Any, most: Any, last_epoch: int) -> None:
        self.use_beta1 = rates.has_beta1(self.optimizer)
        lowest = arguments.for_each_group("base_momentum", self.optimizer, base)
        highest = arguments.for_each_group("max_momentum", self.optimizer, most)
        if last_epoch == -1:
            rates.write_momenta(self, highest)
            for group, low, high in zip(self.optimizer.param_groups, lowest, highest):
                group.update(max_momentum=high, base_momentum=low)

    def _place(self) -> Any:
        """The phase of this step, and which part of it has passed."""
        step = self.last_epoch
        if step > self.total_steps:
            raise ValueError(
                f"Tried to step {step} times. The specified number of total steps is {self.total_steps}"
            )
        start = 0.0
        for phase in self._schedule_phases[:-1]:
            if step <= phase["end_step"]:
                break
            start = phase["end_step"]
        else:
            phase = self._schedule_phases[-1]
        length = phase["end_step"] - start
        return phase, (step - start) / length if length else 1.0

    def _between(self, what: str) -> List[Any]:
        """What each group has of something between the phase's start and its end."""
        phase, part = self._place()
        starts = rates.read(self.optimizer, phase[f"start_{what}"])
        ends = rates.read(self.optimizer, phase[f"end_{what}"])
        if self._anneal_func_type == "linear":
            return [(end - start) * part + start for start, end in zip(starts, ends)]
        wave = math.cos(math.pi * part) + 1
        return [end + (start - end) / 2.0 * wave for start, end in zip(starts, ends)]

    def get_lr(self) -> List[Any]:
        """Compute the learning rates; see `LRScheduler.get_lr`."""
        self._warn_outside_step()
        return self._between("lr")

    def _get_momenta(self) -> Optional[List[Any]]:
        return self._between("momentum") if self.cycle_momentum else None

    def _load(self, state_dict: Dict[str, Any]) -> Any:
        objects = super()._load(state_dict)
        for phase in self._schedule_phases:
            if not isinstance(phase, dict) or not _PHASE_KEYS.issubset(phase):
                raise ValueError(
                    f"_schedule_phases of the state dict holds {brief(phase)}, which is no phase"
                )
        if not self._schedule_phases or self._anneal_func_type not in ("cos", "linear"):
            raise ValueError(
                "_schedule_phases or _anneal_func_type of the state dict is not that of a OneCycleLR"
            )
        return objects


def _total(total: Any, epochs: Any, per_epoch: Any) -> int:
    if total is not None:
        return _positive("total_steps", total)
    if epochs is None or per_epoch is None:
        raise ValueError("You must define either total_steps OR (epochs AND steps_per_epoch)")
    return _positive("epochs", epochs) * _positive("steps_per_epoch", per_epoch)


def _positive(name: str, value: Any) -> int:
    if not isinstance(value, int) or value <= 0:
        raise ValueError(f"Expected positive integer {name}, but got {brief(value)}")
    return value


_PHASE_KEYS = {"end_step", "start_lr", "end_lr", "start_momentum", "end_momentum"}


def _phase(end_step: float, start: str, end: str, start_momentum: str, end_momentum: str) -> Dict[str, Any]:
    """A phase as PyTorch saves it: its last step, and the keys of a group from which and to which it goes."""
    return {
        "end_step": end_step,
        "start_lr": start,
        "end_lr": end,
        "start_momentum": start_momentum,
        "end_momentum": end_momentum,
    }


def _phases(part: float, total: int, three: bool) -> List[Dict[str, Any]]:
    up = _phase(float(part * total) - 1, "initial_lr", "max_lr", "max_momentum", "base_momentum")
    if not three:
        return [up, _phase(total - 1, "max_lr", "min_lr", "base_momentum", "max_momentum")]
    down = _phase(float(2 * part * total) - 2, "max_lr", "initial_lr", "base_momentum", "max_momentum")
    return [up, down, _phase(total - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum")]
