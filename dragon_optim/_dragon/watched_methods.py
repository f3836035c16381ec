# SPDX-License-Identifier: BSD-2-Clause
"""The methods of Dragon's classes whose calls go through a recorder, and what it makes of each.

Most are only noted: they decide when a replay is right, and what it must do in Python. What no replay could
do is refused.
"""

import functools
from typing import TYPE_CHECKING, Any, Dict, Iterable, Iterator, List, Tuple

import numpy
from dragon.vm.torch.core.autograd.function import Function
from dragon.vm.torch.core.nn.modules.module import Module
from dragon.vm.torch.core.optim import optimizer as stock
from dragon.vm.torch.core.optim import rmsprop, sgd
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim._dragon import graphs
from dragon_optim._dragon.interception import Wrapper

if TYPE_CHECKING:
    from dragon_optim._dragon.recording import Recorder

HAS_FORWARD_HOOKS = "a replay would not call the forward hooks of its modules"

# Dragon's optimizers whose operators keep nothing but tensors. Adam's count their steps in the operator.
_STOCK = (rmsprop.RMSprop, sgd.SGD, sgd.LARS)

_READS = "its value is not known when the function is replayed. Return the tensor, and read it outside."
_FEEDS = (
    "the data would be the same in every replay. Make the tensor outside and pass it as an argument, or use "
    "functions that fill one: torch.zeros, ones, full, arange, rand."
)
_MOVES = "a replay does not repeat it. Do it outside."
_CHANGES = "a replay does not repeat it. Call it outside, between two calls."
_REFUSED: List[Tuple[Any, str, str]] = [
    (Tensor, "numpy", _READS),
    (Tensor, "_from_array", _FEEDS),
    (Tensor, "cpu", _MOVES),
    (Tensor, "cuda", _MOVES),
    (Tensor, "mps", _MOVES),
    (Module, "load_state_dict", _CHANGES),
    (Module, "state_dict", _CHANGES),
    (stock.Optimizer, "__init__", _CHANGES),
    (stock.Optimizer, "add_param_group", _CHANGES),
]


def refuse_also(owner: Any, *methods: str) -> None:
    """Refuse methods of a class above this layer while something is recorded."""
    _REFUSED.extend((owner, method, _CHANGES) for method in methods)


def wrappers(overridden: Iterable[Tuple[Any, str]]) -> List[Wrapper]:
    """Return what is put in front of methods while something is recorded; `overridden` are users' own."""
    return [*_watched(), *_overridden(overridden)]


def _watched() -> Iterator[Wrapper]:
    yield Wrapper(Function, "forward", _forward, "static")
    yield Wrapper(Module, "__call__", _call_module)
    yield Wrapper(Module, "training", _touch_training, "attribute")
    yield Wrapper(stock.Optimizer, "_update_group", _update_stock)
    yield Wrapper(stock.Optimizer, "sum_grad", _stock_method)
    yield Wrapper(stock.Optimizer, "step", _stock_method)
    yield Wrapper(stock.Optimizer, "zero_grad", _stock_zero_grad)
    yield Wrapper(Tensor, "copy_", _copy)
    yield Wrapper(Tensor, "grad", _read_grad, "getter")
    yield Wrapper(Tensor, "requires_grad", _set_requires_grad, "setter")
    yield Wrapper(Tensor, "size", _read_size)
    yield Wrapper(Tensor, "numel", _read_size)
    for owner, method, remedy in _REFUSED:
        yield Wrapper(owner, method, functools.partial(_refuse, remedy=remedy))


def _overridden(methods: Iterable[Tuple[Any, str]]) -> Iterator[Wrapper]:
    for owner, name in methods:
        what = f"{name}() of {owner.__name__}"
        yield Wrapper(owner, name, functools.partial(_call_overridden, what=what))


# What runs in the place of a method: called with the recorder, the method, and its arguments.


def _refuse(recorder: "Recorder", original: Any, *args: Any, remedy: str, **kwargs: Any) -> Any:
    if recorder.own_work:
        return original(*args, **kwargs)
    if original.__name__ == "cpu" and args[0]._device.type == "cpu":
        return original(*args, **kwargs)
    raise recorder.refuse(f"{original.__qualname__} inside a captured function: {remedy}")


def _forward(recorder: "Recorder", original: Any, inputs: Any, run_config: Any, **kwargs: Any) -> Any:
    recorder.note_read(inputs)
    recorder.note_read([each for each in kwargs.get("outputs", ()) if isinstance(each, Tensor)])
    recorder.fed = tuple(
        (key, numpy.array(kwargs[key], dtype)) for key, dtype in run_config["feed_dict"].items()
    )
    try:
        return original(inputs, run_config, **kwargs)
    finally:
        recorder.fed = ()


def _set_requires_grad(recorder: "Recorder", original: Any, tensor: Tensor, value: Any) -> None:
    recorder.flagged.setdefault(id(tensor), (tensor, tensor._requires_grad))
    original(tensor, value)


def _read_size(recorder: "Recorder", original: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    if tensor._impl is not None and tensor._impl.name in recorder.data_sized:
        raise recorder.refuse(
            "the shape of a result of a mask, nonzero() or unique() depends on values; a number taken "
            "from it inside a captured function would stay: use operators that do not need it, as mean()."
        )
    return original(tensor, *args, **kwargs)


def _call_module(recorder: "Recorder", original: Any, module: Module, *args: Any, **kwargs: Any) -> Any:
    recorder.modules.setdefault(id(module), module)
    if module._forward_hooks:
        recorder.eager_reason = HAS_FORWARD_HOOKS
    return original(module, *args, **kwargs)


def _touch_training(recorder: "Recorder", module: Module) -> None:
    recorder.training.setdefault(id(module), (module, vars(module).get("training")))


def _call_overridden(recorder: "Recorder", original: Any, *args: Any, what: str, **kwargs: Any) -> Any:
    recorder.not_called(what)
    return original(*args, **kwargs)


def _stock_method(recorder: "Recorder", original: Any, optimizer: Any) -> Any:
    recorder.observer.updates(optimizer)
    recorder.stock.setdefault(id(optimizer), (optimizer, optimizer._sums_grad))
    if type(optimizer) not in _STOCK:
        recorder.eager_reason = f"{type(optimizer).__name__} may keep something that a replay cannot repeat"
    return original(optimizer)


def _stock_zero_grad(recorder: "Recorder", original: Any, optimizer: Any, set_to_none: bool = False) -> Any:
    if set_to_none:
        recorder.eager_reason = "zero_grad(set_to_none=True) of Dragon's optimizers is no operator"
    return original(optimizer, set_to_none)


def _read_grad(recorder: "Recorder", original: Any, tensor: Tensor) -> Any:
    gradient = original(tensor)
    if tensor.id not in recorder.sources:
        recorder.expected_gradients.setdefault(tensor.id, gradient is not None)
    return gradient


def _update_stock(recorder: "Recorder", original: Any, optimizer: Any, group: Dict[str, Any]) -> Any:
    recorder.stock_groups.append((optimizer, group))
    return original(optimizer, group)


def _copy(recorder: "Recorder", original: Any, target: Tensor, source: Tensor) -> Tensor:
    """``copy_`` bypasses operators: run it as one, so that a replay copies as well."""
    del original
    if source._impl is target._impl:
        return target
    if source._device != target._device:
        raise recorder.refuse("copy_() between devices inside a captured function: do it outside of it.")
    recorder.note_read([target, source])
    recorder.workspace.run_operator(graphs.operator("Identity", [source.id], [target.id], target._device))
    return target
