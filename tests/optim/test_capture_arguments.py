# SPDX-License-Identifier: BSD-2-Clause
"""Captured functions: what goes in and what comes out."""

from __future__ import annotations

import collections
import copy
import pickle

import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim.graph import capture
from tests.optim.support import feed_gradient, parameter, values


def test_inputs_outputs_and_names():
    @dragon_optim.graph.capture
    def function(x, *, scale):
        """Words."""
        return {"double": x * scale, "same": x}

    assert (function.__name__, function.__doc__) == ("function", "Words.")
    x = torch.ones(2, 3)
    for _ in range(4):
        out = function(x, scale=torch.tensor(2.0, dtype="float32"))
        assert list(out) == ["double", "same"]
        assert not out["double"].requires_grad
        x = out["double"]  # fed back
    assert values(x)[0, 0] == 16
    assert values(function(scale=x, x=x)["double"])[0, 0] == 256
    assert values(function(torch.tensor([3]), scale=torch.tensor([2]))["double"])[0] == 6
    assert "2 graphs" in repr(function)


def test_what_may_be_returned():
    pair = collections.namedtuple("pair", "first second")
    forms = [
        lambda x: None,
        lambda x: (x, None),
        lambda x: pair(x, x * 2.0),
        lambda x: {"a": [x, {"b": x + 1.0}], "c": None},
        lambda x: collections.OrderedDict(a=x),
        lambda x: (),
    ]
    for form in forms:
        captured, x = capture(form), torch.ones(2)
        for _ in range(3):
            found, expected = captured(x), form(x)
            assert repr(found) == repr(expected)
            assert type(found) is type(expected)
        assert captured.replays == 2


def test_a_gradient_that_was_taken_away_is_returned_empty():
    weight = parameter([1.0, 2.0])
    optimizer = dragon_optim.RMSprop([weight])

    @capture
    def step(x):
        (weight * x).sum().backward()
        gradient = weight.grad
        optimizer.zero_grad(set_to_none=True)
        return gradient

    for _ in range(3):
        assert tuple(step(torch.ones(2)).shape) == ()


def test_arguments_that_are_constants():
    @capture
    def step(x, scale=None, *, negative=False, mode="sum"):
        result = x if scale is None else x * float(scale)
        return getattr(-result if negative else result, mode)()

    x = torch.ones(3)
    for _ in range(2):
        assert float(step(x)) == 3.0
        assert float(step(x, 2)) == 6.0
        assert float(step(x, 2, negative=True)) == -6.0
        assert float(step(x, 1)) == 3.0
        assert float(step(x, True, mode="mean")) == 1.0
    assert step.replays == 5


@pytest.mark.parametrize("make_copy", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_captured_function_is_not_copied(make_copy):
    with pytest.raises(TypeError, match="capture the function anew"):
        make_copy(capture(feed_gradient))
