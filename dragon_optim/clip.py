# SPDX-License-Identifier: BSD-2-Clause
"""Clipping over the gradients of all parameters together, as ``torch.nn.utils`` has it."""

import math
import types
from typing import Any, Iterable, List, Optional, Sequence, Union

from dragon.vm.torch.core.cpp import device as Device
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim import clip_graphs, hyper
from dragon_optim._dragon import collective, leaf_gradients, tensors, workspace
from dragon_optim._warnings import warn
from dragon_optim.parameters import printable, type_name

__all__ = ["clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm"]

Tensors = Union[Tensor, Iterable[Tensor]]

_MAX_NORM = hyper.Number("max_norm", "max_norm value")
# The bits of other norms are those of the C library's powers, which a GPU rounds otherwise.
_ORDERS_ON_A_GPU = (2.0, 1.0, 0.0, math.inf, -math.inf)
_CLIP_VALUE = hyper.Number("clip_value", "clip_value value")


def clip_grad_norm_(
    parameters: Tensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: Optional[bool] = None,
) -> Tensor:
    r"""Scale all gradients down so that their norm, taken together, is at most `max_norm`.

    .. math::
        n = \lVert (\lVert g_1 \rVert_p, \lVert g_2 \rVert_p, \ldots) \rVert_p, \qquad
        g_i \leftarrow g_i \min(1, c / (n + 10^{-6})) \quad \text{for max_norm } c

    Call it between ``backward()`` and ``step()``. The gradients are modified in place.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Whose gradients are clipped; those without a gradient count for nothing. An optimizer need not hold
        them, and Dragon's own may.
    max_norm : float
        The largest norm. Range: ``>= 0``; infinity only measures.
    norm_type : float or str, optional, default=2.0
        The order *p*: any number but NaN. ``float("inf")`` or ``"inf"`` takes the largest magnitude, ``-inf``
        the smallest; 0 counts the gradients that are not zero.
    error_if_nonfinite : bool, optional, default=False
        Whether a norm that is infinite or NaN raises, instead of being scaled by: then infinity makes zeros
        of finite numbers, and NaN makes all of them NaN.
    foreach : bool, optional, default=None
        None or True scales by one operator for all gradients, False by one for each, with the same results.

    Returns
    -------
    Tensor
        The norm before clipping, without dimensions: float64 where a gradient is, else float32; 0 without
        gradients.

    Raises
    ------
    RuntimeError
        If `error_if_nonfinite` is set and the norm is not finite, if a parameter lives in another workspace
        than the current one, on a device that there are no operators for, or has sums of gradients in two
        optimizers. Nothing was changed.
    ValueError
        If `max_norm` is negative or NaN, or a gradient is no tensor of floats. Nothing was changed.
    TypeError
        If `parameters` holds something else than tensors.
    NotImplementedError
        If parameters are on several devices; or on a GPU and `norm_type` is none of 2, 1, 0, infinity and
        -infinity.

    See Also
    --------
    RMSprop : its argument ``clip_norm`` clips each tensor on its own, without changing ``.grad``.

    Notes
    -----
    After ``optimizer.sum_grad()`` the sums are clipped, as they are what ``step()`` will read; parameters
    that were not summed count for nothing then. Inside of `graph.capture` it is recorded, with this
    `max_norm`.

    Each norm is summed in float64, also of float16, in an order that no thread count and no instruction set
    changes, and rounded once. On a GPU it has the same bits, and nothing waits for the device unless
    `error_if_nonfinite` is set.

    *Differences from PyTorch*: of float16 gradients the norm is float32, so that it does not overflow at
    65504. A negative `max_norm`, which would turn the gradients around, and NaN are refused. A parameter that
    stands twice counts, and is scaled, once. Gradients without elements count for nothing in every order.

    *In a process group* the ranks average their gradients in ``step()``: here each rank clips its own before
    that, which is not what PyTorch's DistributedDataParallel does. A warning says so.

    Examples
    --------
    >>> import dragon_optim
    >>> from dragon.vm import torch
    >>> x = torch.nn.Parameter(torch.tensor([0.0, 0.0]))
    >>> (x * torch.tensor([3.0, 4.0])).sum().backward()
    >>> float(dragon_optim.clip_grad_norm_([x], max_norm=1.0))
    5.0
    >>> x.grad.numpy().round(4).tolist()
    [0.6, 0.8]
    """
    what = "clip_grad_norm_()"
    order = _order(norm_type)
    limit = _MAX_NORM.check(max_norm)
    for_all = hyper.as_mode("foreach", foreach) is not False
    params = _as_list(parameters, "parameters")
    if not params and isinstance(parameters, types.GeneratorType):
        warn("`parameters` is an empty generator, no gradient clipping will occur.")
    clipping, edges, device = _gradients(params, what)
    _check_order(order, device, what)
    with clipping.turn:
        return clipping.clip_norm(edges, device, limit, order, bool(error_if_nonfinite), for_all)


def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: Optional[bool] = None) -> None:
    r"""Bring every element of all gradients between ``-clip_value`` and ``clip_value``.

    .. math::
        g_i \leftarrow \min(\max(g_i, -c), c) \quad \text{for clip_value } c

    Call it between ``backward()`` and ``step()``. The gradients are modified in place. NaN stays NaN.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        As in `clip_grad_norm_`.
    clip_value : float
        The largest magnitude. Range: ``>= 0``.
    foreach : bool, optional, default=None
        None or True clips by one operator for all gradients, False by one for each, with the same results.

    Raises
    ------
    ValueError
        If `clip_value` is negative or NaN, or a gradient is no tensor of floats. Nothing was changed.
    RuntimeError, TypeError, NotImplementedError
        As in `clip_grad_norm_`.

    See Also
    --------
    RMSprop : its argument ``clip_value`` does the same without changing ``.grad``.

    Notes
    -----
    What is said in `clip_grad_norm_` of sums and of captured functions holds here, too.

    *Differences from PyTorch*: a negative `clip_value`, which would set all elements to it, and NaN are
    refused. Without gradients nothing happens, where PyTorch 2.13 raises an error.

    Examples
    --------
    >>> import dragon_optim
    >>> from dragon.vm import torch
    >>> x = torch.nn.Parameter(torch.tensor([0.0, 0.0]))
    >>> (x * torch.tensor([3.0, -0.25])).sum().backward()
    >>> dragon_optim.clip_grad_value_([x], clip_value=0.5)
    >>> x.grad.numpy().tolist()
    [0.5, -0.25]
    """
    what = "clip_grad_value_()"
    limit = _CLIP_VALUE.check(clip_value)
    for_all = hyper.as_mode("foreach", foreach) is not False
    clipping, edges, device = _gradients(_as_list(parameters, "parameters"), what)
    with clipping.turn:
        clipping.clip_value(edges, device, limit, for_all)


def get_total_norm(tensors: Tensors, norm_type: float = 2.0, error_if_nonfinite: bool = False) -> Tensor:
    """Return the norm of some tensors taken together, which `clip_grad_norm_` takes of gradients.

    Parameters
    ----------
    tensors : Tensor or iterable of Tensor
        The tensors themselves: ``[p.grad for p in parameters if p.grad is not None]`` for gradients.
    norm_type, error_if_nonfinite
        As in `clip_grad_norm_`.

    Returns
    -------
    Tensor
        The norm, as from `clip_grad_norm_`.

    Raises
    ------
    RuntimeError, TypeError, ValueError, NotImplementedError
        As in `clip_grad_norm_`.

    Notes
    -----
    PyTorch's argument ``foreach`` is missing: there is one operator for all tensors.

    Examples
    --------
    >>> import dragon_optim
    >>> from dragon.vm import torch
    >>> float(dragon_optim.get_total_norm([torch.tensor([3.0]), torch.tensor([4.0])]))
    5.0
    """
    what = "get_total_norm()"
    order = _order(norm_type)
    measured = _as_list(tensors, "tensors")
    home = clip_graphs.home_of(measured, "tensor", what)
    device = _device(measured, "tensor", what)
    _check_order(order, device, what)
    for position, tensor in enumerate(measured):
        workspace.check_readable(tensor, f"tensor {position}")
    clipping = clip_graphs.of(home)
    with clipping.turn:
        edges = leaf_gradients.names_of(home, measured)
        return clipping.total_norm(edges, device, order, bool(error_if_nonfinite))


def clip_grads_with_norm_(
    parameters: Tensors, max_norm: float, total_norm: Any, foreach: Optional[bool] = None
) -> None:
    """Scale all gradients by a norm that is known already.

    ``clip_grads_with_norm_(parameters, max_norm, get_total_norm(gradients))`` does what `clip_grad_norm_`
    does, to the last bit.

    Parameters
    ----------
    parameters, max_norm, foreach
        As in `clip_grad_norm_`.
    total_norm : Tensor or float
        The norm, of one element. NaN makes all gradients NaN.

    Raises
    ------
    RuntimeError, TypeError, ValueError, NotImplementedError
        As in `clip_grad_norm_`.

    Examples
    --------
    >>> import dragon_optim
    >>> from dragon.vm import torch
    >>> x = torch.nn.Parameter(torch.tensor([0.0]))
    >>> (x * 3.0).sum().backward()
    >>> norm = dragon_optim.get_total_norm([x.grad])
    >>> dragon_optim.clip_grads_with_norm_([x], max_norm=1.0, total_norm=norm)
    >>> x.grad.numpy().round(4).tolist()
    [1.0]
    """
    what = "clip_grads_with_norm_()"
    limit = _MAX_NORM.check(max_norm)
    for_all = hyper.as_mode("foreach", foreach) is not False
    clipping, edges, device = _gradients(_as_list(parameters, "parameters"), what)
    norm: Any
    if isinstance(total_norm, Tensor) and _stays(total_norm, device, clipping.home):
        clip_graphs.home_of([total_norm], "total_norm", what)
        norm = leaf_gradients.names_of(clipping.home, [total_norm])[0]
    else:
        norm = hyper.as_number("total_norm", total_norm)
    with clipping.turn:
        clipping.clip_by_norm(edges, device, limit, norm, for_all)


def _order(norm_type: Any) -> float:
    """Return the order of a norm: a number, or a string that is one."""
    try:
        order = float(norm_type) if isinstance(norm_type, str) else hyper.as_number("norm_type", norm_type)
    except ValueError as error:
        raise ValueError(f"Invalid norm_type: {printable(norm_type)} (need a number, or 'inf')") from error
    if math.isnan(order):
        raise ValueError("Invalid norm_type: nan (need a number, or 'inf')")
    return order


def _as_list(given: Any, what: str) -> List[Tensor]:
    if isinstance(given, Tensor):
        return [given]
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        remedy = ": pass its parameters()" if hasattr(given, "parameters") else ""
        raise TypeError(
            f"{what} must be a Tensor or an iterable of Tensors, but got {type_name(given)}{remedy}"
        )
    found = list(given)
    for position, each in enumerate(found):
        if not isinstance(each, Tensor):
            remedy = ": leave the names away" if isinstance(each, tuple) else ""
            raise TypeError(f"{what} must be Tensors, but number {position} is {type_name(each)}{remedy}")
    return found


def _device(given: Sequence[Tensor], name: str, what: str) -> Device:
    """Return the device of all tensors, the CPU without any. Raise unless we have operators for it."""
    places = clip_graphs.places_of(given, name)
    if not places:
        return Device("cpu")
    for place in dict.fromkeys(places):
        position = places.index(place)
        if position > 0:
            raise NotImplementedError(
                f"{name} 0 is on {given[0].device} and {name} {position} on {given[position].device}, but "
                f"{what} takes tensors of one device: use clip_norm or clip_value of the optimizer, or move "
                "the model to one device."
            )
    return given[0].device


def _check_order(order: float, device: Device, what: str) -> None:
    if device.type == "cpu" or order in _ORDERS_ON_A_GPU:
        return
    raise NotImplementedError(
        f"Invalid norm_type: {order}, but on {device} {what} has 2, 1, 0, inf and -inf only: use one of "
        "them, or move the model by `model.cpu()`."
    )


def _stays(norm: Tensor, device: Device, home: workspace.Workspace) -> bool:
    """Whether a norm is handed on as it is: a recording needs its tensor, and a GPU is not waited for."""
    if leaf_gradients.recorder(home) is not None:
        return True
    return device.type != "cpu" and tensors.place(norm) == (device.type, device.index)


def _gradients(params: Sequence[Tensor], what: str) -> "tuple[clip_graphs.Clipping, List[str], Device]":
    """Return what clips in the current workspace, the names of what it has to clip, and where that is."""
    home = clip_graphs.home_of(params, "parameter", what)
    device = _device(params, "parameter", what)
    if collective.group() is not None:
        warn(
            f"in a process group step() averages the gradients of the ranks, and {what} comes before that: "
            "each rank clips its own gradients."
        )
    clipping = clip_graphs.of(home)
    return clipping, clip_graphs.next_gradients(home, params, clipping.known, what), device
