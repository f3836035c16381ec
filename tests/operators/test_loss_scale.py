# SPDX-License-Identifier: BSD-2-Clause
"""DragonOptimFindNonFinite and DragonOptimScale."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests import exact_clip
from tests.operators import edges

HOW = pytest.mark.parametrize("run", [edges.run_graph, edges.run_eagerly], ids=["graph", "eager"])
FIND, SCALE = "DragonOptimFindNonFinite", "DragonOptimScale"
DTYPES = ["float16", "float32", "float64"]
ONES = np.ones(3, "float32")


def numbers(*shape, dtype="float32", seed=0):
    return np.array(np.random.RandomState(seed).standard_normal(shape), dtype)


GRADS = [numbers(3), numbers(2, 2, dtype="float64", seed=1), numbers(70, dtype="float16", seed=2), numbers(0)]


def operator(kind, inputs, outputs):
    names = [[each.name for each in ends] for ends in (inputs, outputs)]
    return edges.graphs.operator(kind, *names, edges.PLACE)


def find(run, grads, before=0):
    flag = edges.Edge(np.array([before], "int64"))
    run(operator(FIND, [edges.Edge(each) for each in grads], [flag]))
    return flag.array.tolist()


@HOW
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [0, 4999, 8999])
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_one_element_is_found(run, bad, place, dtype):
    grad = numbers(9000, dtype=dtype)
    assert find(run, [*GRADS, grad]) == [0]
    grad[place] = bad
    assert find(run, [*GRADS, grad]) == [1]
    assert find(run, [grad, *GRADS]) == [1]


@HOW
def test_the_largest_and_the_smallest_are_finite(run):
    for dtype in DTYPES:
        info = np.finfo(dtype)
        least = np.nextafter(np.array(0, dtype), np.array(1, dtype))
        assert find(run, [np.array([info.max, info.min, least, -0.0], dtype)]) == [0]


@HOW
def test_a_flag_that_is_raised_stays(run):
    """Operators of several devices share it."""
    assert find(run, GRADS, before=1) == [1]
    assert find(run, [], before=1) == [1]
    assert find(run, []) == [0]


@HOW
def test_what_has_no_data_or_no_elements_counts_for_nothing(run):
    flag = edges.Edge(np.array([0], "int64"))
    run(operator(FIND, [edges.Edge(), edges.Edge(np.zeros((0, 2), "float32"))], [flag]))
    assert flag.array.tolist() == [0]


@HOW
@pytest.mark.parametrize("factor", [1 / 3, 2.0**-20, 1.0, 0.0, -7.0])
def test_all_are_scaled(run, factor):
    grads = [edges.Edge(grad) for grad in GRADS] + [edges.Edge()]
    run(operator(SCALE, [edges.Edge(np.array([factor])), *grads], grads))
    for edge, grad in zip(grads, GRADS):
        assert edge.array.tobytes() == exact_clip.scale(grad, factor).tobytes()
    assert grads[-1].array is None


@HOW
def test_infinities_and_nan_are_scaled_too(run):
    grads = [edges.Edge(np.float32([math.inf, -math.inf, math.nan, 2]))]
    run(operator(SCALE, [edges.Edge(np.array([0.5])), *grads], grads))
    assert np.array_equal(grads[0].array, [math.inf, -math.inf, math.nan, 1], equal_nan=True)


def rows():
    """(operator, what is wrong, inputs, outputs or 1 for the gradients, words)."""
    flag = np.zeros(1, "int64")
    yield FIND, "no flag", [ONES], [], "needs one output"
    yield FIND, "two flags", [ONES], [flag, flag], "needs one output"
    for what, array in [("empty", None), ("float32", np.float32([0])), ("two", np.zeros(2, "int64"))]:
        yield FIND, f"a flag that is {what}", [ONES], [array], "must be int64 of one element"
    yield FIND, "integers", [ONES, np.ones(2, "int32")], [flag], "a gradient is int32 of shape (2,), but must"
    factor = np.array([0.5])
    yield SCALE, "no inputs", [], [], "the outputs must be the gradients"
    yield SCALE, "other outputs", [factor, ONES], [ONES], "the outputs must be the gradients"
    for what, array in [("empty", None), ("float32", np.float32([1])), ("two", np.ones(2))]:
        yield SCALE, f"a factor that is {what}", [array, ONES], 1, "must be float64 of one element"
    for number in (math.nan, math.inf):
        yield SCALE, f"a factor of {number}", [np.array([number]), ONES], 1, "Invalid factor"
    yield SCALE, "integers", [factor, ONES, np.ones(2, "int64")], 1, "a gradient is int64 of shape (2,)"


CASES = list(rows())


@HOW
@pytest.mark.parametrize(
    ("kind", "inputs", "outputs", "words"),
    [(kind, *rest) for kind, _, *rest in CASES],
    ids=[f"{kind[11:]}: {what}" for kind, what, *_ in CASES],
)
def test_wrong_edges_throw(kind, inputs, outputs, words, run):
    """They never end the process, and nothing is written."""

    def throws(given, results):
        run(operator(kind, given, results))

    assert words in edges.refusal(inputs, outputs, throws)


def test_a_gradient_that_stands_twice_throws():
    grad, flag = edges.Edge(ONES), edges.Edge(np.zeros(1, "int64"))
    for wrong in (
        operator(FIND, [grad, grad], [flag]),
        operator(SCALE, [edges.Edge(np.array([0.5])), grad, grad], [grad, grad]),
    ):
        with pytest.raises(ValueError, match="a gradient stands twice"):
            edges.run_graph(wrong)
    assert grad.array.tolist() == [1, 1, 1]
