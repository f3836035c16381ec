# SPDX-License-Identifier: BSD-2-Clause
"""RMSprop for Dragon's native interface: ``dragon.GradientTape`` and ``dragon.function``."""

from typing import Any, Dict, Iterable, NoReturn, Tuple

import dragon

from dragon_optim import hyper, native_update, rmsprop
from dragon_optim._dragon import native
from dragon_optim.state import ParameterState

__all__ = ["RMSprop"]


class RMSprop(dragon.optimizers.Optimizer):
    r"""RMSprop for ``dragon.optimizers`` users: change the class, keep the loop.

    The arguments of ``dragon.optimizers.RMSprop``, in its order and with its defaults, and those that
    `dragon_optim.RMSprop` has besides; the update is the same operator, to the same bits.

    Parameters
    ----------
    lr : float, optional, default=0.01
        The learning rate :math:`\gamma`. Range: ``>= 0``.
    momentum : float, optional, default=0
        The factor :math:`\mu`. Range: ``>= 0``.
    alpha : float, optional, default=0.9
        The smoothing constant. Range: ``>= 0``. Dragon's native default; PyTorch's is 0.99.
    eps : float, optional, default=1e-8
        Added to the root. Range: ``>= 0``.
    weight_decay : float, optional, default=0
        The factor :math:`\lambda` of L2 decay. Range: ``>= 0``. A variable may bring its own, as Dragon's
        regularizers set it.
    grad_scale : float, optional, default=1
        Every gradient is multiplied by it first. Any number but NaN.
    clip_norm : float, optional, default=0
        The largest L2 norm of a gradient, each tensor on its own; 0 is off. Range: ``>= 0``.
    clip_value : float, optional, default=0
        The largest absolute value of an element of a gradient; 0 is off. Range: ``>= 0``.
    centered : bool, optional, default=False
        Divide by the estimated standard deviation instead of the root of the second moment.
    maximize : bool, optional, default=False
        Ascend instead of descend.
    lr_in_momentum, eps_inside_sqrt, decoupled_weight_decay : bool, optional, default=False
        See `dragon_optim.RMSprop`.
    initial_square_avg : float, optional, default=0.0
        What the average of squares starts at. Range: ``>= 0``.

    Raises
    ------
    TypeError
        For an unknown keyword, or a hyper-parameter that is no number.
    ValueError
        For a hyper-parameter that is negative or NaN.

    Notes
    -----
    Every argument is an attribute, too: ``optimizer.lr = 0.001`` reaches the next update, also in a function
    that was built before, where momentum and `centered` may be switched on as well.

    *State* belongs to this object: it keeps the variables that it has updated, and gives the memory back when
    it dies. A function that it was used in keeps it alive.

    *Differences from* ``dragon.optimizers.RMSprop``: `centered` and the arguments after it; hyper-parameters
    are not rounded to float32; gradients are not modified; the momentum buffer exists only with momentum;
    what ends the process there (a gradient of another shape or dtype) raises here, and nothing has changed
    then; attributes are checked when they are set.

    Examples
    --------
    >>> import dragon
    >>> import dragon_optim
    >>> weight = dragon.constant([1.0, 2.0], dtype="float32")
    >>> optimizer = dragon_optim.native_optimizers.RMSprop(lr=0.1, centered=True)
    >>> with dragon.GradientTape() as tape:
    ...     tape.watch(weight)
    ...     loss = dragon.math.sum(weight * weight)
    >>> optimizer.apply_gradients(zip(tape.gradient(loss, [weight]), [weight]))
    >>> [round(float(x), 4) for x in weight.numpy()]
    [0.6667, 1.6667]
    """

    def __init__(
        self,
        lr: float = 0.01,
        momentum: float = 0,
        alpha: float = 0.9,
        eps: float = 1e-8,
        *,
        weight_decay: float = 0,
        grad_scale: float = 1,
        clip_norm: float = 0,
        clip_value: float = 0,
        centered: bool = False,
        maximize: bool = False,
        lr_in_momentum: bool = False,
        eps_inside_sqrt: bool = False,
        decoupled_weight_decay: bool = False,
        initial_square_avg: float = 0.0,
    ) -> None:
        """See the class."""
        # Not the constructor of the base: it makes names and tensors that Dragon never gives back.
        values = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "grad_scale": grad_scale,
            "clip_norm": clip_norm,
            "clip_value": clip_value,
            "centered": centered,
            "maximize": maximize,
            "lr_in_momentum": lr_in_momentum,
            "eps_inside_sqrt": eps_inside_sqrt,
            "decoupled_weight_decay": decoupled_weight_decay,
            "initial_square_avg": initial_square_avg,
        }
        numbers = dict(zip(_KEYS, hyper.row(_FIELDS, values)))
        update = native_update.NativeUpdate(
            rmsprop.RMSprop.operator_type,
            list(numbers.values()),
            rmsprop.RMSprop.state_names(numbers),
            _KEYS.index("weight_decay"),
        )
        self.__dict__.update(_numbers=numbers, _update=update)

    def apply_gradients(self, grads_and_vars: Iterable[Tuple[Any, Any]]) -> Any:
        """Update each variable from its gradient.

        Parameters
        ----------
        grads_and_vars : iterable of (Tensor, Tensor)
            The gradients and their variables. A variable whose gradient is None, or has no data, is left
            alone. One that stands there twice is updated twice.

        Returns
        -------
        object or None
            Under ``dragon.function``: what the function must return, beside its results, so that it runs the
            update each time. Otherwise None.

        Raises
        ------
        TypeError
            If `grads_and_vars` does not hold pairs of tensors, or a variable is not of floats.
        ValueError
            If a gradient does not have the dtype and the shape of its variable.
        RuntimeError
            If another workspace is current than the one that the optimizer was made in, or a tensor belongs
            to another one. In a function, when it is called: if a gradient was not computed.

        Notes
        -----
        Nothing has changed when this raises. In a Dragon process group the gradients are averaged over the
        ranks, in place; all ranks must give the same variables.
        """
        if native.executing_eagerly():
            return self._update.run(grads_and_vars)
        return self._update.build(grads_and_vars)

    def state_of(self, variable: Any) -> Dict[str, Any]:
        """Return the states of a variable; an empty dict before its first update.

        Returns
        -------
        dict
            ``step`` (an int), and the tensors in use: ``square_avg``, ``momentum_buffer``, ``grad_avg``,
            ``master_param``. They are live: the next update writes to them.
        """
        slot = self._update.find(variable)
        if slot is None:
            return {}
        return dict(ParameterState(self._update.table, slot, rmsprop.RMSprop.known_states))

    def forget(self, variable: Any) -> None:
        """Clear the states of a variable and give their memory back; its next update is as the first.

        For a variable that is not trained any more, or whose shape or dtype has changed.
        """
        self._update.forget(variable)

    def __getattr__(self, name: str) -> Any:
        numbers = self.__dict__.get("_numbers", {})
        if name not in numbers:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return bool(numbers[name]) if name in _FLAGS else numbers[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _KEYS:
            object.__setattr__(self, name, value)
            return
        numbers = dict(self._numbers, **{name: _FIELDS[_KEYS.index(name)].check(value)})
        # A learning rate, which schedules change all the time, changes no state and needs no second warning.
        states = self._update.states if name == "lr" else rmsprop.RMSprop.state_names(numbers)
        self._update.put(list(numbers.values()), states)
        self.__dict__["_numbers"] = numbers

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={getattr(self, key)!r}' for key in _KEYS)})"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            f"cannot copy or pickle {type(self).__name__!r} object: its variables are not its own"
        )


_FIELDS = rmsprop.RMSprop.hyper_fields
_KEYS = [field.key for field in _FIELDS]
_FLAGS = {field.key for field in _FIELDS if isinstance(field, hyper.Flag)}
