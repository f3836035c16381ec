# SPDX-License-Identifier: BSD-2-Clause
"""Learning rates and momenta as they stand in an optimizer's groups, and writing them all at once."""

import contextlib
import math
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from dragon_optim._dragon import tensors
from dragon_optim.lr_scheduler.arguments import plain

_Groups = Sequence[Dict[str, Any]]


def read(optimizer: Any, key: str = "lr") -> List[Any]:
    """Return the number under a key of each group."""
    found = []
    for place, group in enumerate(optimizer.param_groups):
        if key not in group:
            raise KeyError(f"param_groups[{place}] lacks {key!r}; set it, or load the optimizer's state dict")
        found.append(plain(key, group[key]))
    return found


def write(scheduler: Any, values: Sequence[Any]) -> None:
    """Give each group its learning rate. A tensor stays the tensor that it is, and is overwritten."""
    groups = scheduler.optimizer.param_groups
    check_count(scheduler, len(values))
    numbers = [plain("lr", value) for value in values]
    for place, value in enumerate(numbers):
        if isinstance(value, float) and math.isnan(value):
            raise ValueError(
                f"Invalid learning rate: nan (of param_groups[{place}], by {type(scheduler).__name__} at "
                f"epoch {getattr(scheduler, 'last_epoch', '?')})"
            )
    for group in groups:
        if tensors.is_tensor(group["lr"]):
            tensors.check_overwritable(group["lr"], "the tensor given as lr")
    for group, value in zip(groups, numbers):
        _set(group, value)


def _set(group: Dict[str, Any], value: Any) -> None:
    if tensors.is_tensor(group["lr"]):
        tensors.overwrite(group["lr"], value)
    else:
        group["lr"] = value


def check_count(scheduler: Any, count: int) -> None:
    """Raise unless there is one value for each group."""
    groups = len(scheduler.optimizer.param_groups)
    if count != groups:
        raise ValueError(
            f"{type(scheduler).__name__} has learning rates for {count} groups, and the optimizer has "
            f"{groups}: make the scheduler anew after add_param_group(), with last_epoch= where it stood"
        )


# Momentum, which optimizers keep under different names.


def has_beta1(optimizer: Any) -> bool:
    """Whether momentum is Adam's first beta, ``betas`` or Dragon's ``beta1``. Raises where there is none."""
    known = getattr(optimizer, "defaults", None) or (optimizer.param_groups or [{}])[0]
    key = next((key for key in ("betas", "beta1", "momentum") if key in known), None)
    if key is None:
        raise ValueError(
            "optimizer must support momentum or beta1 with `cycle_momentum` option enabled, and "
            f"{type(optimizer).__name__} has neither: give cycle_momentum=False"
        )
    return key != "momentum"


def write_momenta(scheduler: Any, values: Sequence[Any]) -> None:
    """Give each group its momentum."""
    for group, value in zip(scheduler.optimizer.param_groups, values):
        if not scheduler.use_beta1:
            group["momentum"] = value
        elif "betas" in group:
            group["betas"] = (value, *group["betas"][1:])
        else:
            group["beta1"] = value


# All or nothing.


@contextlib.contextmanager
def all_or_nothing(scheduler: Any, optimizer: Any) -> Iterator[None]:
    """Put groups and schedulers back as they were if the block raises."""
    groups = [(group, dict(group)) for group in optimizer.param_groups]
    in_place = [
        (group["lr"], plain("lr", group["lr"])) for group, _ in groups if tensors.is_tensor(group.get("lr"))
    ]
    attributes = _attributes(scheduler)
    try:
        yield
    except BaseException:
        for group, before in groups:
            group.clear()
            group.update(before)
        for tensor, value in in_place:
            tensors.overwrite(tensor, value)
        for each, values in attributes:
            vars(each).clear()
            vars(each).update(values)
        raise


def _attributes(scheduler: Any) -> List[Tuple[Any, Dict[str, Any]]]:
    """Those of a scheduler, and of the schedulers that it steps."""
    found = [(scheduler, dict(vars(scheduler)))]
    for each in vars(scheduler).get("_schedulers", ()):
        found += _attributes(each)
    return found
