# SPDX-License-Identifier: BSD-2-Clause
"""The networks have as many parameters as their authors say."""

import pytest

from benchmarks import shapes

GPT2_SMALL, WORDS, POSITIONS, WIDTH = 124_439_808, 50_257, 1024, 768


@pytest.mark.parametrize(
    ("name", "tensors", "elements"),
    [
        ("ResNet-50", 161, 25_557_032),
        ("MobileNetV3-Large", 174, 5_483_032),
        ("transformer", 148 - 2, GPT2_SMALL - (WORDS + POSITIONS) * WIDTH),
        ("161 x 16K", 161, 161 * 16_384),
        ("10000 x 100", 10_000, 1_000_000),
        ("1 x 30M", 1, 30_000_000),
    ],
)
def test_published_numbers(name, tensors, elements):
    found = shapes.LISTS[name]()
    assert (len(found), sum(map(shapes.size, found))) == (tensors, elements)


def test_the_last_layers():
    """Where a mistake in the widths on the way would show."""
    assert shapes.resnet50()[-2:] == [(1000, 2048), (1000,)]
    assert shapes.mobilenet_v3_large()[-4:] == [(1280, 960), (1280,), (1000, 1280), (1000,)]
    assert (160, 960, 1, 1) in shapes.mobilenet_v3_large()
    assert (3072, 768) in shapes.transformer()
    assert shapes.MLP == [(64, 32), (64,), (64, 64), (64,), (10, 64), (10,)]
