# SPDX-License-Identifier: BSD-2-Clause
"""The table of options that must be refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ErrorCase:
    name: str
    options: dict
    exception: type
    match: str

    def __str__(self):
        return self.name


# What an error calls a hyper-parameter that must not be negative; where PyTorch has it too, PyTorch's words.
WORDS = {
    "lr": "learning rate",
    "alpha": "alpha value",
    "eps": "epsilon value",
    "weight_decay": "weight_decay value",
    "momentum": "momentum value",
    "clip_norm": "clip_norm value",
    "clip_value": "clip_value value",
    "initial_square_avg": "initial_square_avg value",
}


def _range_errors():
    """PyTorch's words come first, so that tests which match them still match."""
    for option, text in WORDS.items():
        for value in (-1, -1.0, -1e-300, float("-inf"), float("nan")):
            yield ErrorCase(f"{option}={value}", {option: value}, ValueError, f"^Invalid {text}: {value}")


ERROR_CASES = [
    *_range_errors(),
    ErrorCase("grad_scale=nan", dict(grad_scale=float("nan")), ValueError, "^Invalid grad_scale value: nan"),
    ErrorCase("scale=nan", dict(scale=float("nan")), ValueError, "nan"),
    ErrorCase("unknown-keyword", dict(nesterov=True), TypeError, "nesterov"),
    ErrorCase("scale-and-grad_scale", dict(scale=0.5, grad_scale=0.5), TypeError, "scale"),
    ErrorCase("differentiable", dict(differentiable=2), ValueError, "^Invalid differentiable value: 2"),
    ErrorCase("foreach", dict(foreach=True, differentiable=True), AssertionError, "^_foreach ops don't"),
]
