# SPDX-License-Identifier: BSD-2-Clause
"""The gradients that a loss scale has scaled: what is asked of them, and who divides them."""

from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

from dragon.vm.torch.core.tensor import Tensor

from dragon_optim import clip_graphs, hooks
from dragon_optim._dragon import collective, leaf_gradients, stock, workspace
from dragon_optim.engine import Engine
from dragon_optim.optimizer import Optimizer
from dragon_optim.parameters import type_name


class ScaledGradients:
    """What the next step of an optimizer will read, by device."""

    def __init__(self, optimizer: Any, what: str) -> None:
        if isinstance(optimizer, Optimizer):  # the user may have changed its groups
            engine: Engine = optimizer._engine
            with engine.turn:
                engine.prepare(optimizer.param_groups, what)
        params = _params_of(optimizer)
        self._home = clip_graphs.home_of(params, "parameter", what)
        by_place: Dict[Any, List[Tensor]] = {}
        for param, place in zip(params, clip_graphs.places_of(params, "parameter")):
            by_place.setdefault(place, []).append(param)
        self._clipping = clip_graphs.of(self._home)
        found = [
            (
                members[0].device,
                clip_graphs.next_gradients(
                    self._home, members, self._clipping.known, what, _that_step(optimizer)
                ),
            )
            for members in by_place.values()
        ]
        self._lists = [(device, edges) for device, edges in found if edges]

    def _dtypes(self) -> Iterator[str]:
        return leaf_gradients.dtypes(self._home, (name for _, edges in self._lists for name in edges))

    def are_there(self) -> bool:
        """Whether there is one at all."""
        return any(self._dtypes())

    def has_float16(self) -> bool:
        """Whether one is float16, and must not be divided in place."""
        return "float16" in self._dtypes()

    def check_not_float16(self) -> None:
        """Raise if one is float16."""
        if self.has_float16():
            raise ValueError(
                "Attempting to unscale FP16 gradients. Small ones would become 0: leave unscale_() out, and "
                "step() of an optimizer of dragon_optim divides them in float32; its clip_norm and "
                "clip_value clip what is divided."
            )

    def has_non_finite(self) -> Optional[bool]:
        """Whether an element is infinite or NaN; None if there are no gradients."""
        if not self.are_there():
            return None
        with self._clipping.turn:
            return self._clipping.has_non_finite(self._lists)

    def unscale(self, factor: float, then: Sequence[Callable[[], Any]]) -> Optional[bool]:
        """Multiply all by `factor`, and call `then`. Return what `has_non_finite` said before.

        Without gradients nothing is done.
        """
        if not self.are_there():
            return None
        with self._clipping.turn:
            return self._clipping.unscale(self._lists, factor, then)


def check_home(optimizer: Any, what: str) -> None:
    """Raise unless the parameters of an optimizer live in the current workspace; see `ScaledGradients`."""
    clip_graphs.home_of(_params_of(optimizer), "parameter", what)


def _params_of(optimizer: Any) -> List[Tensor]:
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for position, param in enumerate(params):
        if not isinstance(param, Tensor):
            raise TypeError(f"parameter {position} must be a Tensor, but got {type_name(param)}")
    return params


def unscales_by_itself(optimizer: Any, gradients: ScaledGradients) -> bool:
    """Whether the update of an optimizer is to divide by the scale while it reads; see `ScaledGradients`.

    Not where somebody looks at the gradients before: hooks, a ``step`` of the user's, the other ranks of a
    process group. Those of float16 all the same.
    """
    if not (isinstance(optimizer, Optimizer) and optimizer._engine.can_unscale):
        return False
    seen = hooks.any_for_step(optimizer) or stock.has_own_step(optimizer, Optimizer)
    return not (seen or collective.group()) or gradients.has_float16()


def drop_sums(optimizer: Any) -> None:
    """End the round of an optimizer whose step is left out, as its step would do. After `check_home`."""
    home = workspace.current()
    if _that_step(optimizer) is None:
        clip_graphs.end_rounds(home, _params_of(optimizer))
    else:
        clip_graphs.end_round(home, optimizer)


def _that_step(optimizer: Any) -> Optional[List[Any]]:
    """The optimizers whose rounds end with a step of this one.

    None where a ``step`` of the user's may call those of others, as of one that wraps an optimizer.
    """
    if isinstance(optimizer, Optimizer):
        steps_others = not optimizer.operator_type or stock.has_own_step(optimizer, Optimizer)
    else:
        steps_others = stock.has_own_step(optimizer)
    return None if steps_others else [optimizer]
