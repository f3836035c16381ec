# SPDX-License-Identifier: BSD-2-Clause
"""The lists of parameters that are measured, as shapes of tensors.

Networks are those of torchvision and of the GPT-2 paper, with their published numbers of parameters;
normalization layers have a factor and an offset. `tests/benchmarks/test_shapes.py` counts them.
"""

from __future__ import annotations

import math
from typing import Callable, Tuple

Shape = Tuple[int, ...]


def size(shape: Shape) -> int:
    """The number of elements."""
    return math.prod(shape)


def _norm(channels: int) -> list[Shape]:
    return [(channels,), (channels,)]


def _linear(inputs: int, outputs: int) -> list[Shape]:
    return [(outputs, inputs), (outputs,)]


def _conv(inputs: int, outputs: int, kernel: int, groups: int = 1) -> list[Shape]:
    """A convolution without offset, and its normalization."""
    return [(outputs, inputs // groups, kernel, kernel), *_norm(outputs)]


# --- ResNet-50 (He and others, 2015) ------------------------------------------------------------------------

_RESNET_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # width, blocks


def resnet50() -> list[Shape]:
    """Bottleneck blocks, four times as wide at their end, for 1000 classes."""
    shapes, channels = _conv(3, 64, 7), 64
    for width, blocks in _RESNET_STAGES:
        for block in range(blocks):
            shapes += _conv(channels, width, 1) + _conv(width, width, 3) + _conv(width, 4 * width, 1)
            if block == 0:
                shapes += _conv(channels, 4 * width, 1)  # the shortcut
            channels = 4 * width
    return shapes + _linear(channels, 1000)


# --- MobileNetV3-Large (Howard and others, 2019) ------------------------------------------------------------

# kernel, hidden channels, output channels, whether it has squeeze and excitation
_MOBILENET_BLOCKS = (
    (3, 16, 16, False),
    (3, 64, 24, False),
    (3, 72, 24, False),
    (5, 72, 40, True),
    (5, 120, 40, True),
    (5, 120, 40, True),
    (3, 240, 80, False),
    (3, 200, 80, False),
    (3, 184, 80, False),
    (3, 184, 80, False),
    (3, 480, 112, True),
    (3, 672, 112, True),
    (5, 672, 160, True),
    (5, 960, 160, True),
    (5, 960, 160, True),
)


def _multiple_of_8(channels: int) -> int:
    """The nearest multiple of 8, unless that takes more than a tenth away."""
    rounded = max(8, (channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


def _squeeze_excitation(channels: int) -> list[Shape]:
    squeezed = _multiple_of_8(channels // 4)
    return [(squeezed, channels, 1, 1), (squeezed,), (channels, squeezed, 1, 1), (channels,)]


def mobilenet_v3_large() -> list[Shape]:
    """Inverted residuals: widen, filter each channel by itself, squeeze and excite, narrow."""
    shapes, channels = _conv(3, 16, 3), 16
    for kernel, hidden, outputs, squeezes in _MOBILENET_BLOCKS:
        if hidden != channels:
            shapes += _conv(channels, hidden, 1)
        shapes += _conv(hidden, hidden, kernel, groups=hidden)
        if squeezes:
            shapes += _squeeze_excitation(hidden)
        shapes += _conv(hidden, outputs, 1)
        channels = outputs
    return shapes + _conv(channels, 960, 1) + _linear(960, 1280) + _linear(1280, 1000)


# --- a transformer (Radford and others, 2019) ---------------------------------------------------------------


def transformer(layers: int = 12, width: int = 768) -> list[Shape]:
    """GPT-2 small without its embeddings: attention and a feed-forward network of four times the width."""
    shapes: list[Shape] = []
    for _ in range(layers):
        shapes += _norm(width) + _linear(width, 3 * width) + _linear(width, width)
        shapes += _norm(width) + _linear(width, 4 * width) + _linear(4 * width, width)
    return shapes + _norm(width)


# --- all of them --------------------------------------------------------------------------------------------


def _equal(count: int, elements: int) -> Callable[[], list[Shape]]:
    return lambda: [(elements,)] * count


# One tensor, by its number of elements.
SINGLE: dict[str, int] = {
    "1 x 1K": 1_000,
    "1 x 10K": 10_000,
    "1 x 100K": 100_000,
    "1 x 1M": 1_000_000,
    "1 x 10M": 10_000_000,
    "1 x 30M": 30_000_000,
}
# Tensors of 100 elements, by their number.
TINY: dict[str, int] = {f"{count} x 100": count for count in (1, 10, 100, 1000, 10_000)}
NETWORKS: dict[str, Callable[[], list[Shape]]] = {
    "ResNet-50": resnet50,
    "MobileNetV3-Large": mobilenet_v3_large,
    "transformer": transformer,
}
# What the medium layers of a network come to: 161 tensors, as many as ResNet-50 has.
MEDIUM = "161 x 16K"

# A perceptron for training steps: 32-64-64-10.
MLP: list[Shape] = [*_linear(32, 64), *_linear(64, 64), *_linear(64, 10)]

LISTS: dict[str, Callable[[], list[Shape]]] = {
    **{name: _equal(1, elements) for name, elements in SINGLE.items()},
    **{name: _equal(count, 100) for name, count in TINY.items()},
    **NETWORKS,
    MEDIUM: _equal(161, 16 * 1024),
}
