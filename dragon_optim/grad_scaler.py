# SPDX-License-Identifier: BSD-2-Clause
"""A loss scale that finds its own size, as ``torch.amp.GradScaler`` has it."""

import functools
from typing import Any, Dict, Iterable, List, Optional, Union

import numpy
from dragon.vm import torch
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon import collective, leaf_gradients, workspace
from dragon_optim._warnings import warn
from dragon_optim.loss_scale import LossScale, as_device, as_scale, multiplied
from dragon_optim.parameters import type_name
from dragon_optim.process_group import together
from dragon_optim.scaled_gradients import ScaledGradients, check_home, drop_sums, unscales_by_itself
from dragon_optim.scaled_iteration import NOTHING, READY, STEPPED, UNSCALED, Iteration, Progress

__all__ = ["GradScaler"]


class GradScaler(LossScale):
    r"""Scales losses so that float16 gradients do not vanish, and leaves out the steps where they overflow.

    The loss is multiplied by a scale :math:`s`, so all gradients are, and the update divides by it. Where an
    element of a gradient is infinite or NaN the step is left out and the scale falls,
    :math:`s \leftarrow s \cdot` `backoff_factor`; after `growth_interval` steps without one it grows,
    :math:`s \leftarrow s \cdot` `growth_factor`.

    Parameters
    ----------
    device : str, optional, default="cuda"
        ``"cuda"`` or ``"cpu"``: where the training runs. With ``"cuda"`` and without CUDA there is a warning,
        and the scaler is disabled, as in PyTorch.
    init_scale : float, optional, default=65536
        The first scale. Range: ``> 0``, finite in float32.
    growth_factor : float, optional, default=2
        Range: ``> 1``.
    backoff_factor : float, optional, default=0.5
        Range: ``> 0`` and ``< 1``.
    growth_interval : int, optional, default=2000
        Range: ``>= 1``.
    enabled : bool, optional, default=True
        False makes every method do nothing, but for `step`, which calls the optimizer's.

    Raises
    ------
    AssertionError
        If `growth_factor` is not above 1 or `backoff_factor` not below it, as in PyTorch.
    ValueError, TypeError
        If another argument is out of range, or of the wrong type.

    See Also
    --------
    RMSprop : its argument ``grad_scale`` is for a scale that is constant.

    Notes
    -----
    `step` reads the gradients once to look for infinities. Then the update of this package multiplies each by
    ``grad_scale / s`` while it reads it, in float32 for float16 parameters: nothing vanishes, and nothing is
    written but what a step writes. Sums of `Optimizer.sum_grad` are what it looks at, and what it drops with
    a step that is left out. Where somebody may look at the gradients in between they are divided in place, as
    in PyTorch, unless they are float16: with step hooks, with a ``step`` that a subclass has overridden, and
    in a process group.

    In a process group all ranks leave out a step if one of them has to.

    The scale is a number of float32, and its reciprocal is rounded to float32, as in PyTorch: the same
    gradients give PyTorch's parameters and scales to the bit.

    *Differences from PyTorch*: `step` leaves ``.grad`` scaled where nobody looks at it in between; with
    float16 gradients it works, where PyTorch refuses them (its parameters stay float32, by ``autocast``,
    which Dragon has not). A scale is finite and above 0, and does not fall below the smallest normal float32,
    where PyTorch's becomes 0 and makes NaN of the parameters. After `set_growth_interval` a count of steps
    that is beyond the interval already makes the scale grow at the next, where PyTorch's never grows again.
    Optimizers are not told apart by their ``id()``, which another one may get.

    *Differences from stock Dragon*: 0.3.0 has no such class.

    Algorithm: P. Micikevicius et al., *Mixed Precision Training*, ICLR 2018, section 3.2.

    Examples
    --------
    >>> import dragon_optim
    >>> from dragon.vm import torch
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = dragon_optim.RMSprop(model.parameters(), lr=0.01)
    >>> scaler = dragon_optim.GradScaler("cpu", init_scale=1024.0)
    >>> for _ in range(3):
    ...     loss = model(torch.ones(4, 2)).mean()
    ...     scaler.scale(loss).backward()
    ...     scaler.step(optimizer)
    ...     scaler.update()
    >>> scaler.get_scale(), scaler.step_was_skipped(optimizer)
    (1024.0, False)
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        """See the class."""
        kind = as_device(device)
        super().__init__(init_scale, growth_factor, backoff_factor, growth_interval, enabled)
        if self._enabled and kind == "cuda" and not torch.cuda.is_available():
            warn(
                "torch.cuda.amp.GradScaler is enabled, but CUDA is not available.  Disabling. "
                'Give "cpu" to train with a loss scale there.'
            )
            self._enabled = False
        self._was_used = False  # whether a loss was scaled
        self._iteration = Iteration()

    def scale(self, outputs: Union[Tensor, Iterable[Any]]) -> Any:
        """Multiply a loss, or several, by the scale.

        Parameters
        ----------
        outputs : Tensor or iterable of Tensor
            The losses; iterables may be nested.

        Returns
        -------
        Tensor, list, tuple or iterator
            The products, in a list or a tuple as they were given. A float16 loss without dimensions becomes
            float32, as in PyTorch, where 65536 would be infinite. `outputs` itself if the scaler is disabled.

        Raises
        ------
        ValueError
            If `outputs` is, or holds, something else than tensors of floats.
        RuntimeError
            Inside of `graph.capture`, as each method: the scale would stay what it is in every replay.
        """
        if not self._enabled:
            return outputs
        _check_not_recorded("scale()")
        return self._scaled(outputs)

    def _scaled(self, outputs: Any) -> Any:
        if isinstance(outputs, Tensor):
            product = multiplied(outputs, self._scale)
            self._was_used = True
            return product
        if isinstance(outputs, (str, bytes)) or not isinstance(outputs, Iterable):
            raise ValueError(
                f"outputs must be a Tensor or an iterable of Tensors, but got {type_name(outputs)}"
            )
        products = map(self._scaled, outputs)
        return type(outputs)(products) if isinstance(outputs, (list, tuple)) else products

    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients of an optimizer by the scale, in place.

        For clipping between ``backward()`` and `step`. Once for each `step`. What is divided is what the next
        step will read: ``.grad``, or the sums of an open round.

        Parameters
        ----------
        optimizer : Optimizer
            One of this package, or Dragon's own.

        Raises
        ------
        RuntimeError
            If it was called for this optimizer since the last `update`, or `step` was. Also as `step`.
        ValueError
            If a gradient is float16: divided, its small elements would be 0. Nothing was changed.
        AssertionError
            If no loss was scaled before.
        """
        if not self._enabled:
            return
        _check_optimizer(optimizer)
        _check_not_recorded("unscale_()")
        self._check_used("unscale_")
        progress = self._iteration.progress_of(optimizer)
        if progress.stage == STEPPED:
            raise RuntimeError("unscale_() is being called after step().")
        if progress.stage != READY:
            raise RuntimeError(
                "unscale_() has already been called on this optimizer since the last update()."
            )
        self._unscale(ScaledGradients(optimizer, "unscale_()"), progress)
        if progress.found is None:
            progress.stage = NOTHING

    def _unscale(self, gradients: ScaledGradients, progress: Progress) -> None:
        gradients.check_not_float16()
        then = [functools.partial(setattr, progress, "stage", UNSCALED)]
        progress.found = gradients.unscale(self._factor(), then)

    def _factor(self) -> float:
        return float(numpy.float32(1.0 / self._scale))

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """Step an optimizer, unless one of its gradients is infinite or NaN.

        A step that is left out changes nothing: no parameter, state or count of steps, and no hook is called.

        Parameters
        ----------
        optimizer : Optimizer
            One of this package, or Dragon's own; of Dragon's own, and with ``differentiable=True``, the
            gradients are divided by the scale in place, and where the class says so.
        *args, **kwargs
            For the optimizer's ``step()``.

        Returns
        -------
        object
            What the optimizer's ``step()`` returned; None if it was left out.

        Raises
        ------
        RuntimeError
            If a closure is given, if `step` was called for this optimizer since the last `update`, if
            parameters live in another workspace than the current one, or if another rank of the process group
            failed.
        ValueError
            If float16 gradients would have to be divided in place, or ``gradients=`` is given.
        AssertionError
            If no loss was scaled before, or the optimizer has no gradients.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        _check_optimizer(optimizer)
        _check_not_recorded("step()")
        if kwargs.get("closure") is not None or any(map(callable, args[:1])):
            raise RuntimeError(
                "Closure use is not currently supported if GradScaler is enabled: compute the loss and its "
                "gradients before scaler.step(optimizer)."
            )
        if kwargs.get("gradients") is not None:
            raise ValueError("gradients= are not unscaled: divide them yourself, and call optimizer.step().")
        progress = self._iteration.progress_of(optimizer)
        found = self._find(optimizer, progress)
        if found:
            drop_sums(optimizer)
            progress.stage, progress.skipped = STEPPED, True
            return None
        if progress.stage == READY:
            result = optimizer._engine.unscaling(
                self._factor(), functools.partial(optimizer.step, *args, **kwargs)
            )
        else:
            result = optimizer.step(*args, **kwargs)
        progress.stage, progress.skipped = STEPPED, False
        return result

    def _find(self, optimizer: Any, progress: Progress) -> bool:
        """Whether the step must be left out, on all ranks of a process group alike.

        If not, gradients are divided here unless the update does it.
        """
        what, process_group = "GradScaler.step()", collective.group()
        if process_group is None:
            gradients = self._to_look_at(optimizer, progress, what)
            if gradients is not None:
                if progress.stage != READY or unscales_by_itself(optimizer, gradients):
                    progress.found = gradients.has_non_finite()
                else:
                    self._unscale(gradients, progress)
            if progress.found is None:
                raise AssertionError(
                    "No inf checks were recorded for this optimizer: it has no gradients. Call "
                    "scaler.scale(loss).backward() before, or leave the step out."
                )
            return progress.found

        to_divide: List[ScaledGradients] = []

        def look() -> bool:
            gradients = self._to_look_at(optimizer, progress, what)
            if gradients is not None:
                if progress.stage == READY and not unscales_by_itself(optimizer, gradients):
                    gradients.check_not_float16()
                    to_divide.append(gradients)
                progress.found = gradients.has_non_finite()
            return bool(progress.found)

        def divide() -> bool:
            for gradients in to_divide:
                self._unscale(gradients, progress)
                progress.stage = UNSCALED  # also without gradients, of which another rank has some
            return False

        progress.found = together(process_group, what, look)
        if not progress.found:
            # By all or by none, as far as can be; and before they are averaged, which might overflow.
            progress.found = together(process_group, what, divide)
        return progress.found

    def _to_look_at(self, optimizer: Any, progress: Progress, what: str) -> Optional[ScaledGradients]:
        """The gradients of the step; None if `unscale_` has looked at them."""
        self._check_used("step")
        if progress.stage == STEPPED:
            raise RuntimeError("step() has already been called since the last update().")
        if progress.stage == UNSCALED and progress.found is not None:
            check_home(optimizer, what)
            return None
        gradients = ScaledGradients(optimizer, what)
        if progress.stage == NOTHING and gradients.are_there():
            raise AssertionError(
                "No inf checks were recorded for this optimizer: it had no gradients when unscale_() was "
                "called. Call unscale_() after backward()."
            )
        return gradients

    def step_was_skipped(self, optimizer: Any) -> bool:
        """Return whether the last `step` of an optimizer was left out.

        PyTorch's class does not tell. A schedule that counts steps is not to be stepped then::

            if not scaler.step_was_skipped(optimizer):
                scheduler.step()

        Parameters
        ----------
        optimizer : Optimizer
            An optimizer that was given to `step`, before or after `update`.

        Returns
        -------
        bool
            False also where there was no step so far.
        """
        _check_optimizer(optimizer)
        return self._iteration.was_skipped(optimizer)

    def update(self, new_scale: Optional[float] = None) -> None:
        """Let the scale grow or fall. Call it once in each iteration, after the last `step`.

        Parameters
        ----------
        new_scale : float or Tensor, optional
            A scale to take, whatever was found. Range: as `init_scale`.

        Raises
        ------
        AssertionError
            If neither `step` nor `unscale_` has looked at gradients since the last call.
        ValueError, TypeError
            If `new_scale` is out of range, or no number.
        """
        if not self._enabled:
            return
        _check_not_recorded("update()")
        self._check_used("update")
        if new_scale is not None:
            self._scale = as_scale("new_scale", new_scale)
        else:
            found = self._iteration.found()
            if found is None:
                raise AssertionError(
                    "No inf checks were recorded prior to update. Call scaler.step(optimizer) before."
                )
            self._adapt(found)
        self._iteration.end()

    def _check_used(self, method: str) -> None:
        if not self._was_used:
            raise AssertionError(
                f"Attempted {method} but _scale is None.  This may indicate your script did not use "
                "scaler.scale(loss or outputs) earlier in the iteration."
            )

    def __getstate__(self) -> Dict[str, Any]:
        if self._iteration.has_begun():
            raise AssertionError(
                "A GradScaler instance may only be pickled at the beginning of an iteration, or at the end "
                "after scaler.update()."
            )
        # As PyTorch's, a copy waits for its first loss.
        return {key: value for key, value in vars(self).items() if key not in ("_iteration", "_was_used")}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        vars(self).update(state, _was_used=False, _iteration=Iteration())


def _check_optimizer(optimizer: Any) -> None:
    if not isinstance(getattr(optimizer, "param_groups", None), (list, tuple)):
        raise TypeError(f"optimizer must be an optimizer with param_groups, but got {type_name(optimizer)}")


def _check_not_recorded(what: str) -> None:
    watching = leaf_gradients.recorder(workspace.current())
    if watching is not None:
        raise watching.refuse(
            f"GradScaler.{what} inside a captured function: a replay could not follow the scale. Call it "
            "outside, and give scaler.scale(torch.ones([])) to the function, to multiply the loss by."
        )
