# SPDX-License-Identifier: BSD-2-Clause
"""Derivatives of recorded steps, by every input, in every form: against those of an oracle."""

from __future__ import annotations

import itertools

import pytest

from tests.optim import unrolled

MOMENTUM = [{}, {"momentum": 0.8}, {"momentum": 0.8, "lr_in_momentum": True}]
CENTERED = [{}, {"centered": True, "alpha": 0.9}, {"centered": True, "alpha": 0.3}]
DECAY = [{}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled_weight_decay": True}]
FORMS = [
    {name: value for part in parts for name, value in part.items()}
    for parts in itertools.product(MOMENTUM, CENTERED, DECAY)
]
EXTRAS = [
    {name: value for part in parts for name, value in part.items()}
    for parts in itertools.product(
        [{}, {"maximize": True}],
        [{}, {"eps_inside_sqrt": True}],
        [{}, {"clip_norm": 0.7}, {"clip_norm": 100.0}, {"clip_value": 0.75}],
        [{}, {"grad_scale": -1.3}],
    )
]
LIMIT = 1e-7

# Of workspaces of their own: the names of leaves with gradients are used again only after very many of them.
pytestmark = pytest.mark.usefixtures("ws")


def words(options):
    return ",".join(f"{name}={value}" for name, value in options.items()) or "plain"


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("form", FORMS, ids=words)
def test_every_input_in_every_form(form, steps):
    for extras in EXTRAS:
        options = dict(form, **extras)
        values = unrolled.inputs(options)
        actual = unrolled.gradients(options, values, steps)
        expected = unrolled.derivatives(options, values, steps)
        assert set(actual) == set(expected)
        for name in expected:
            error = unrolled.relative_error(actual[name], expected[name])
            assert error < LIMIT, f"{words(options)}: by {name}: {actual[name]}, expected {expected[name]}"
