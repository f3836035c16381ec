# SPDX-License-Identifier: BSD-2-Clause
"""Schedules whose factors the user gives as functions."""

from typing import Any, Callable, Dict, List, Sequence, Union

from dragon_optim.lr_scheduler import arguments, loading
from dragon_optim.lr_scheduler.base import LRScheduler

Factor = Callable[[int], float]


class _OfFunctions(LRScheduler):
    """What schedulers with one function for each group have in common."""

    _not_saved = (*LRScheduler._not_saved, "lr_lambdas")
    _state_keys = ("base_lrs",)

    lr_lambdas: List[Factor]

    def __init__(
        self, optimizer: Any, lr_lambda: Union[Factor, Sequence[Factor]], last_epoch: int = -1
    ) -> None:
        """See the class."""
        arguments.check_optimizer(optimizer)
        count = len(optimizer.param_groups)
        functions: List[Any] = (
            list(lr_lambda) if isinstance(lr_lambda, (list, tuple)) else [lr_lambda] * count
        )
        if len(functions) != count:
            raise ValueError(
                f"Expected {count} lr_lambdas, but got {len(functions)}: give one function for each group"
            )
        for function in functions:
            if not callable(function):
                raise TypeError(f"lr_lambda should be a function, but got {type(function).__name__}")
        self.lr_lambdas = functions
        super().__init__(optimizer, last_epoch)

    def _factors(self) -> List[Any]:
        return [arguments.plain("lr_lambda", function(self.last_epoch)) for function in self.lr_lambdas]

    def state_dict(self) -> Dict[str, Any]:
        """Return the state of the scheduler, with the keys of PyTorch's.

        Returns
        -------
        dict
            As `LRScheduler.state_dict`. ``lr_lambdas`` holds, for each function, None, or the attributes of a
            callable object.
        """
        return {**super().state_dict(), "lr_lambdas": list(map(loading.saved_function, self.lr_lambdas))}

    def _load(self, state_dict: Dict[str, Any]) -> Any:
        loading.check_mapping(state_dict)
        saved = state_dict.get("lr_lambdas", ...)
        if saved is ...:
            raise KeyError("the state dict lacks 'lr_lambdas': it is of another scheduler, or damaged")
        loading.check_functions("lr_lambdas", self.lr_lambdas, saved)
        rest = {key: value for key, value in state_dict.items() if key != "lr_lambdas"}
        super()._load(rest)
        return [(self.lr_lambdas, saved)]


class LambdaLR(_OfFunctions):
    r"""The initial learning rate times a function of the epoch: :math:`\gamma_t = \gamma_0 f(t)`.

    Parameters
    ----------
    optimizer : Optimizer
        See `LRScheduler`.
    lr_lambda : callable, or list of callable
        From the epoch, an int from 0, to a factor; in a list, one for each group.
    last_epoch : int, optional, default=-1
        See `LRScheduler`.

    Raises
    ------
    TypeError
        If an argument is of the wrong type, or a factor no number.
    ValueError
        If there is not one function for each group.

    Notes
    -----
    Functions are not saved by `state_dict`, the attributes of callable objects are.

    Examples
    --------
    Linearly to 0, as TorchBeast trains IMPALA:

    >>> from dragon.vm import torch
    >>> import dragon_optim
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = dragon_optim.RMSprop([weight], lr=0.00048, alpha=0.99, eps=0.01)
    >>> scheduler = dragon_optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 - min(epoch, 10) / 10)
    >>> for _ in range(10):
    ...     weight.sum().backward()
    ...     optimizer.step()
    ...     scheduler.step()
    >>> optimizer.param_groups[0]["lr"]
    0.0
    """

    _per_group = ("base_lrs",)

    def get_lr(self) -> List[Any]:
        """Compute the learning rates; see `LRScheduler.get_lr`."""
        self._warn_outside_step()
        return [base * factor for base, factor in zip(self.base_lrs, self._factors())]


class MultiplicativeLR(_OfFunctions):
    r"""The present learning rate times a function of the epoch: :math:`\gamma_t = \gamma_{t-1} f(t)`.

    Parameters
    ----------
    optimizer : Optimizer
        See `LRScheduler`.
    lr_lambda : callable, or list of callable
        From the epoch, an int from 1, to a factor; in a list, one for each group.
    last_epoch : int, optional, default=-1
        See `LRScheduler`.

    Raises
    ------
    TypeError
        If an argument is of the wrong type, or a factor no number.
    ValueError
        If there is not one function for each group.

    Notes
    -----
    Functions are not saved by `state_dict`, the attributes of callable objects are.

    Examples
    --------
    >>> from dragon.vm import torch
    >>> import dragon_optim
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = dragon_optim.RMSprop([weight], lr=1.0)
    >>> scheduler = dragon_optim.lr_scheduler.MultiplicativeLR(optimizer, lambda epoch: 0.5)
    >>> weight.sum().backward()
    >>> optimizer.step()
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.5]
    """

    def get_lr(self) -> List[Any]:
        """Compute the learning rates; see `LRScheduler.get_lr`."""
        present = self._present_lrs()
        if self._is_initial:
            return present
        return [rate * factor for rate, factor in zip(present, self._factors())]
