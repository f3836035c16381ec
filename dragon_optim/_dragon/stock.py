# SPDX-License-Identifier: BSD-2-Clause
"""Living beside Dragon's own optimizers: on the same parameters, and knowing which there are."""

import functools
import gc
import weakref
from typing import Any, Dict, List, Optional

from dragon.vm.torch.core.optim.optimizer import Optimizer
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon import wrapping
from dragon_optim._dragon.workspace import Workspace, is_home

_LIVING = "_dragon_optim_living"  # attribute of the class: this module may be imported anew

_STEPS = "_dragon_optim_steps"  # attribute of the objects: how many steps they have done

_get_grad = Optimizer._get_grad
_init = Optimizer.__init__
_step = Optimizer.step


@functools.wraps(_get_grad)
def _get_grad_with_data(*args: Any, **kwargs: Any) -> Any:
    gradient = _get_grad(*args, **kwargs)
    return gradient if gradient is not None and gradient._impl.size > 0 else None


@functools.wraps(_init)
def _init_noted(self: Any, *args: Any, **kwargs: Any) -> None:
    _init(self, *args, **kwargs)
    note(self)


@functools.wraps(_step)
def _step_counted(self: Any, *args: Any, **kwargs: Any) -> Any:
    result = _step(self, *args, **kwargs)
    count_steps(self)
    return result


def count_steps(optimizer: Any, steps: int = 1) -> None:
    """The optimizer has done steps."""
    attributes: Dict[str, Any] = vars(optimizer)
    attributes[_STEPS] = attributes.get(_STEPS, 0) + steps


def steps_done(optimizer: Any) -> Optional[int]:
    """How many steps an optimizer has done; None where nobody counts."""
    step = getattr(type(optimizer), "step", None)
    if getattr(step, "hooked", False) or (isinstance(optimizer, Optimizer) and step is Optimizer.step):
        return int(vars(optimizer).get(_STEPS, 0))
    return None


def note(optimizer: Any) -> None:
    """There is an optimizer."""
    getattr(Optimizer, _LIVING)[id(optimizer)] = optimizer


def living() -> List[Any]:
    """Every optimizer that is alive, Dragon's own and those of this package."""
    found = [reference() for reference in getattr(Optimizer, _LIVING).valuerefs()]
    return [each for each in found if each is not None]


def has_own_step(optimizer: Any, base: Any = Optimizer) -> bool:
    """Whether an optimizer is none of a class, or has another ``step`` than the class has."""
    if not isinstance(optimizer, base):
        return True
    return type(optimizer).step is not base.step or "step" in vars(optimizer)


def end_round(optimizer: Any, home: Workspace) -> None:
    """Let one of Dragon's optimizers forget the sums that its step would have taken.

    They become 0: Dragon begins a round by multiplying what is there by 0, and makes NaN of an infinity.
    """
    if not getattr(optimizer, "_sums_grad", False):
        return
    for group in optimizer.param_groups:
        for param in group["params"]:
            total = home.get_tensor(param._impl.name + "_grad_sum")
            if total is not None and total.size > 0:
                Tensor(device=param.device, impl=total).zero_()
    optimizer._sums_grad = False


def lives_in(optimizer: Any, home: Workspace) -> bool:
    """Whether the parameters of an optimizer are tensors of this workspace."""
    for group in vars(optimizer).get("param_groups", ()):
        for param in group.get("params", ()):
            return is_home(param, home)
    return False


def install() -> None:
    """Let stock optimizers take a gradient that was taken away for none, and take note of new ones.

    ``zero_grad(set_to_none=True)``, ours as well as theirs, leaves an empty tensor; at that the next stock
    ``zero_grad()`` or ``sum_grad()`` would end the process. Their steps are counted: schedulers ask for it.
    """
    wrapping.install(Optimizer, "_get_grad", _get_grad_with_data, static=True)
    wrapping.install(Optimizer, "step", _step_counted)
    if wrapping.install(Optimizer, "__init__", _init_noted):
        setattr(Optimizer, _LIVING, weakref.WeakValueDictionary())
        for each in gc.get_objects():  # those that there are already
            if issubclass(type(each), Optimizer):
                note(each)
