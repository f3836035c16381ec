# SPDX-License-Identifier: BSD-2-Clause
"""The numbers of a loss scale, and how it grows and falls."""

import math
from typing import Any, Dict

import numpy
from dragon.vm import torch
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim import clip_graphs, hyper
from dragon_optim._dragon import workspace
from dragon_optim.parameters import printable, type_name

# Below it numbers lose bits, and the reciprocal becomes infinite.
LEAST = float(numpy.finfo("float32").tiny)

_NUMBERS = {"scale": "_scale", "growth_factor": "_growth_factor", "backoff_factor": "_backoff_factor"}
_COUNTS = {"growth_interval": "_growth_interval", "_growth_tracker": "_growth_tracker"}


class LossScale:
    """The scale of a `GradScaler`, and what makes it grow and fall."""

    def __init__(
        self,
        init_scale: float,
        growth_factor: float,
        backoff_factor: float,
        growth_interval: int,
        enabled: bool,
    ) -> None:
        """See `GradScaler`."""
        self._enabled = bool(hyper.Flag("enabled").check(enabled))
        self._scale = as_scale("init_scale", init_scale)
        self._growth_factor = as_growth(growth_factor)
        self._backoff_factor = as_backoff(backoff_factor)
        self._growth_interval = as_count("growth_interval", growth_interval, 1)
        self._growth_tracker = 0

    def _adapt(self, found: bool) -> None:
        if found:
            self._scale = max(float32(self._scale * self._backoff_factor), LEAST)
            self._growth_tracker = 0
        elif self._growth_tracker + 1 < self._growth_interval:
            self._growth_tracker += 1
        else:
            grown = float32(self._scale * self._growth_factor)
            if math.isfinite(grown):
                self._scale = grown
            self._growth_tracker = 0

    def get_scale(self) -> float:
        """Return the scale; 1.0 if the scaler is disabled. It does not wait for a GPU."""
        return self._scale if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        """Return the factor by which the scale grows."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Set the factor by which the scale grows. Range: ``> 1``, else AssertionError."""
        self._growth_factor = as_growth(new_factor)

    def get_backoff_factor(self) -> float:
        """Return the factor by which the scale falls."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set the factor by which the scale falls. Range: ``> 0`` and ``< 1``, else AssertionError."""
        self._backoff_factor = as_backoff(new_factor)

    def get_growth_interval(self) -> int:
        """Return after how many steps in a row that were not left out the scale grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Set after how many steps in a row the scale grows. Range: ``>= 1``, else ValueError."""
        self._growth_interval = as_count("growth_interval", new_interval, 1)

    def _get_growth_tracker(self) -> int:
        """How many steps in a row were not left out; PyTorch's name."""
        return self._growth_tracker if self._enabled else 0

    def is_enabled(self) -> bool:
        """Return whether the scaler does anything."""
        return self._enabled

    def state_dict(self) -> Dict[str, Any]:
        """Return the scale, the factors and the counts, under PyTorch's keys; empty if it is disabled.

        Call it after `update`.
        """
        if not self._enabled:
            return {}
        return {key: getattr(self, name) for key, name in {**_NUMBERS, **_COUNTS}.items()}

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Take what `state_dict` returned, of this class or of PyTorch's. All or nothing.

        Parameters
        ----------
        state_dict : dict
            The state. A scaler that is disabled ignores it, as PyTorch's does.

        Raises
        ------
        RuntimeError
            If it is empty: it was saved by a scaler that was disabled.
        TypeError, ValueError, KeyError, AssertionError
            If it is no dict, a key is missing, or a value is out of range.
        """
        if not self._enabled:
            return
        if not isinstance(state_dict, dict):
            raise TypeError(f"state_dict must be a dict, but got {type_name(state_dict)}")
        if not state_dict:
            raise RuntimeError(
                "The source state dict is empty, possibly because it was saved from a disabled instance of "
                "GradScaler."
            )
        for key in (*_NUMBERS, *_COUNTS):
            if key not in state_dict:
                raise KeyError(f"the state dict of a GradScaler must have the key {key!r}")
        loaded = {
            "_scale": as_scale("scale", state_dict["scale"]),
            "_growth_factor": as_growth(state_dict["growth_factor"]),
            "_backoff_factor": as_backoff(state_dict["backoff_factor"]),
            "_growth_interval": as_count("growth_interval", state_dict["growth_interval"], 1),
            "_growth_tracker": as_count("_growth_tracker", state_dict["_growth_tracker"], 0),
        }
        vars(self).update(loaded)

    def __repr__(self) -> str:
        if not self._enabled:
            return "GradScaler(enabled=False)"
        return (
            f"GradScaler(scale={self._scale}, growth_factor={self._growth_factor}, "
            f"backoff_factor={self._backoff_factor}, growth_interval={self._growth_interval})"
        )


def as_device(device: Any) -> str:
    """Return the kind of a device that a scaler may be given."""
    kind = getattr(device, "type", device)
    if not isinstance(kind, str):
        raise TypeError(
            f"device must be 'cuda' or 'cpu', but got {printable(device)} of type {type_name(device)}: give "
            "init_scale by its name."
        )
    kind = kind.split(":")[0]
    if kind not in ("cuda", "cpu"):
        raise ValueError(f"Invalid device: {device!r} (need 'cuda' or 'cpu')")
    return kind


def float32(number: float) -> float:
    """Round to float32."""
    with numpy.errstate(over="ignore", under="ignore"):
        return float(numpy.float32(number))


def as_scale(key: str, value: Any) -> float:
    """Return a scale, rounded to float32. Raise where it is none."""
    number = hyper.as_number(key, value)
    if not LEAST <= float32(number) < math.inf:
        raise ValueError(
            f"Invalid {key}: {printable(value)} (need a number from {LEAST:.4g}, the smallest normal "
            "float32, to the largest)"
        )
    return float32(number)


def as_growth(value: Any) -> float:
    """Return a growth factor. Raise where it is none."""
    number = hyper.as_number("growth_factor", value)
    if not 1 < number < math.inf:
        raise AssertionError(f"The growth factor must be > 1.0. It is {printable(value)}.")
    return number


def as_backoff(value: Any) -> float:
    """Return a backoff factor. Raise where it is none."""
    number = hyper.as_number("backoff_factor", value)
    if not 0 < number < 1:
        raise AssertionError(f"The backoff factor must be < 1.0, and > 0. It is {printable(value)}.")
    return number


def as_count(key: str, value: Any, least: int) -> int:
    """Return a number of steps. Raise where it is none."""
    number = hyper.as_number(key, value)
    if not (math.isfinite(number) and number >= least and number == math.floor(number)):
        raise ValueError(f"Invalid {key}: {printable(value)} (need an integer >= {least})")
    return int(number)


def multiplied(output: Tensor, scale: float) -> Tensor:
    """Return a loss times a scale. Raise where Dragon would end the process."""
    clip_graphs.home_of([output], "output", "GradScaler.scale()")
    workspace.check_readable(output, "outputs")
    if not str(output.dtype).startswith("float"):
        raise ValueError(f"outputs must be Tensors of floats, but got one of {output.dtype}")
    # Dragon would round the scale to float16, in which the first one is infinite.
    wide = output.float() if output.dtype == "float16" else output
    # Of a number Dragon keeps a tensor for ever, one for each that it has met.
    product = wide * torch.tensor(scale, dtype=wide.dtype, device=wide.device)
    return product.half() if output.dtype == "float16" and len(output.shape) > 0 else product
