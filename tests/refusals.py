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


def _range_errors():
    """PyTorch's words come first, so that tests which match them still match."""
    words = {
        "lr": "Invalid learning rate: ",
        "eps": "Invalid epsilon value: ",
        "momentum": "Invalid momentum value: ",
        "weight_decay": "Invalid weight_decay value: ",
        "alpha": "Invalid alpha value: ",
        "clip_norm": "Invalid clip_norm value: ",
        "clip_value": "Invalid clip_value value: ",
        "initial_square_avg": "Invalid initial_square_avg value: ",
    }
    for option, text in words.items():
        for value in (-1, -1.0, -1e-300, float("-inf"), float("nan")):
            yield ErrorCase(f"{option}={value}", {option: value}, ValueError, f"^{text}{value}")


ERROR_CASES = [
    *_range_errors(),
    ErrorCase("grad_scale=nan", dict(grad_scale=float("nan")), ValueError, "^Invalid grad_scale value: nan"),
    ErrorCase("scale=nan", dict(scale=float("nan")), ValueError, "nan"),
    ErrorCase("unknown-keyword", dict(nesterov=True), TypeError, "nesterov"),
    ErrorCase("scale-and-grad_scale", dict(scale=0.5, grad_scale=0.5), TypeError, "scale"),
    ErrorCase("differentiable", dict(differentiable=2), ValueError, "^Invalid differentiable value: 2"),
    ErrorCase("foreach", dict(foreach=True, differentiable=True), AssertionError, "^_foreach ops don't"),
]
