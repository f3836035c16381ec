# SPDX-License-Identifier: BSD-2-Clause
"""DragonOptimTotalNorm, DragonOptimClipNorm and DragonOptimClipValue."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests import exact_clip
from tests.operators import edges

HOW = pytest.mark.parametrize("run", [edges.run_graph, edges.run_eagerly], ids=["graph", "eager"])
KINDS = ["DragonOptimClipNorm", "DragonOptimClipValue"]
ONES = np.ones(3, "float32")
OTHER_ORDERS = ["3.5", "-1.0"]  # a GPU has none of them
ORDERS = ["2.0", "1.0", "0", "inf", "-inf", *(OTHER_ORDERS if edges.PLACE.type == "cpu" else [])]


def numbers(*shape, dtype="float32", seed=0):
    return np.array(np.random.RandomState(seed).standard_normal(shape), dtype)


GRADS = [numbers(3), numbers(2, 2, dtype="float64", seed=1), numbers(70, dtype="float16", seed=2), numbers(0)]


def operator(kind, inputs, outputs, **arguments):
    names = [[each.name for each in ends] for ends in (inputs, outputs)]
    return edges.graphs.operator(kind, *names, edges.PLACE, **arguments)


def total_norm(grads, norm, order="2.0", **arguments):
    return operator("DragonOptimTotalNorm", grads, [norm], order=order, **arguments)


def clip(kind, limit, grads, norm=5.0, **arguments):
    steering = [edges.edge(np.array([limit], "float64"))]
    if kind == "DragonOptimClipNorm":
        steering.append(edges.edge(norm if isinstance(norm, edges.Edge) else np.array(norm, "float32")))
    return operator(kind, steering + grads, grads, **arguments)


@HOW
@pytest.mark.parametrize("order", ORDERS)
def test_norm_of_all_dtypes_together(run, order):
    """In the order of the edges, whatever their dtypes; without data or elements they count for nothing."""
    grads, norm = [edges.Edge(grad) for grad in GRADS] + [edges.Edge()], edges.Edge()
    run(total_norm(grads, norm, order))
    terms = [exact_clip.norm_term(grad, float(order)) for grad in GRADS[:3]]
    assert norm.array.dtype == np.float64
    assert norm.array.shape == ()
    assert norm.array == exact_clip.norm_of_terms(float(order), terms)
    grads[1].take_away()
    run(total_norm(grads, norm, order))
    assert norm.array.dtype == np.float32
    assert norm.array == np.float32(exact_clip.norm_of_terms(float(order), [terms[0], terms[2]]))


@HOW
@pytest.mark.parametrize("order", ORDERS)
def test_norm_of_nothing_is_0(run, order):
    norm = edges.Edge()
    for grads in ([], [edges.Edge()], [edges.Edge(np.zeros((0,), "float32"))]):
        run(total_norm(grads, norm, order))
        assert (norm.array.dtype, norm.array.shape, float(norm.array)) == (np.float32, (), 0.0)


@HOW
def test_clip_by_the_norm_before_it(run):
    grads, norm = [edges.Edge(grad) for grad in GRADS], edges.Edge()
    run(total_norm(grads, norm), clip("DragonOptimClipNorm", 0.5, grads, norm))
    factor = 0.5 / (float(norm.array) + 1e-6)
    for edge, grad in zip(grads, GRADS):
        assert edge.array.tobytes() == exact_clip.scale(grad, factor).tobytes()


@HOW
@pytest.mark.parametrize(("limit", "norm"), [(5.1, 5.0), (math.inf, 5.0), (1.0, 0.0)])
def test_nothing_is_written_where_the_norm_is_small(run, limit, norm):
    """To the last bit: a signalling NaN, which any multiplication would change, stays one."""
    odd = np.array([0x7FA00000, 0xFFA00001, 1], np.uint32).view(np.float32)
    grads = [edges.Edge(odd)]
    run(clip("DragonOptimClipNorm", limit, grads, norm))
    assert grads[0].array.tobytes() == odd.tobytes()


@HOW
def test_nothing_is_written_where_the_norm_before_it_is_small(run):
    odd, norm = np.array([0x7FA00000, 1], np.uint32).view(np.float32), edges.Edge()
    measured, grads = [edges.Edge(ONES)], [edges.Edge(odd)]
    run(total_norm(measured, norm), clip("DragonOptimClipNorm", 2.0, grads, norm))
    assert grads[0].array.tobytes() == odd.tobytes()


@HOW
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_norm_before_it_that_is_not_finite(run, bad):
    """Infinity makes zeros of finite numbers; NaN makes all NaN."""
    grads, norm = [edges.Edge(ONES), edges.Edge(np.array([bad]))], edges.Edge()
    run(total_norm(grads, norm), clip("DragonOptimClipNorm", 2.0, grads, norm))
    assert np.array_equal(grads[0].array, [0.0 if np.isinf(bad) else np.nan] * 3, equal_nan=True)
    assert np.isnan(grads[1].array).all()


@HOW
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_norm_of_any_dtype_is_taken(run, dtype):
    grads = [edges.Edge(ONES)]
    run(clip("DragonOptimClipNorm", 1.0, grads, edges.Edge(np.array([4], dtype))))
    assert grads[0].array.tolist() == [float(np.float32(1 / (4 + 1e-6)))] * 3


@HOW
def test_clip_value(run):
    grads = [edges.Edge(grad) for grad in GRADS] + [edges.Edge()]
    run(clip("DragonOptimClipValue", 0.1, grads))
    for edge, grad in zip(grads, GRADS):
        assert edge.array.tobytes() == exact_clip.clamp(grad, 0.1).tobytes()
    assert grads[-1].array is None


@HOW
@pytest.mark.parametrize("kind", KINDS)
def test_a_check_writes_nothing(run, kind):
    grads = [edges.Edge(grad) for grad in GRADS]
    run(clip(kind, 0.1, grads, only_check=1))
    assert [edge.array.tobytes() for edge in grads] == [grad.tobytes() for grad in GRADS]


@pytest.mark.parametrize("bad", [np.inf, np.nan])
@pytest.mark.parametrize("order", ["2.0", "inf"])
def test_error_if_nonfinite(bad, order):
    """Nothing after it runs, and the norm from before stays."""
    grads, norm = [edges.Edge(ONES), edges.Edge(np.float32([bad, 1]))], edges.Edge(np.float32([7]))
    measure = total_norm(grads, norm, order, error_if_nonfinite=1)
    with pytest.raises(RuntimeError, match=f"The total norm of order {order} for gradients .* is non-finite"):
        edges.run_graph(measure, clip("DragonOptimClipNorm", 0.5, grads, norm))
    assert grads[0].array.tolist() == [1, 1, 1]
    assert norm.array.tolist() == [7]


def rows():
    """(what is wrong, inputs, outputs or None for the gradients, arguments, words)."""
    limit, norm, grad = np.array([0.1]), np.float32([5]), ONES
    for kind in KINDS:
        steering = [limit, norm] if kind == "DragonOptimClipNorm" else [limit]
        first = len(steering)
        must_be = "the outputs must be the gradients"
        yield kind, "no inputs", [], [], {}, must_be
        yield kind, "no gradients among the outputs", [*steering, grad], [], {}, must_be
        yield kind, "other outputs", [*steering, grad], [grad], {}, must_be
        yield kind, "an output too many", steering, [grad], {}, must_be
        for what, array in [
            ("no limit", None),
            ("a limit of float32", np.float32([1])),
            ("two limits", np.ones(2)),
        ]:
            yield kind, what, [array, *steering[1:], grad], first, {}, "must be float64 of one element"
        for number in (-1.0, math.nan):
            yield (
                kind,
                f"a limit of {number}",
                [np.array([number]), *steering[1:], grad],
                first,
                {},
                "need >= 0",
            )
        integers = "a gradient is int32 of shape (2,), but must be float16, float32 or float64"
        yield kind, "integers", [*steering, grad, np.ones(2, "int32")], first, {}, integers
    kind = "DragonOptimClipNorm"
    for what, array in [
        ("no norm", None),
        ("two norms", np.ones(2)),
        ("a norm of int64", np.ones(1, "int64")),
    ]:
        yield kind, what, [limit, array, grad], 2, {}, "must be a tensor of one float"
    kind = "DragonOptimTotalNorm"
    yield kind, "no output", [grad], [], dict(order="2"), "needs one output"
    yield kind, "two outputs", [grad], [grad, grad], dict(order="2"), "needs one output"
    yield (
        kind,
        "integers",
        [np.ones(2, "int64")],
        [None],
        dict(order="2"),
        "a gradient is int64 of shape (2,)",
    )
    for order in ("", "x", "2.0x", "nan"):
        yield kind, f"order {order!r}", [grad], [None], dict(order=order), "Invalid order of a norm"
    yield kind, "an order that is no string", [grad], [None], dict(order=2), "Invalid order of a norm"
    yield kind, "no order", [grad], [None], {}, "Invalid order of a norm"


CASES = list(rows())


@pytest.mark.parametrize(
    ("kind", "inputs", "outputs", "arguments", "words"),
    [(kind, *rest) for kind, _, *rest in CASES],
    ids=[f"{kind[11:]}: {what}" for kind, what, *_ in CASES],
)
@HOW
def test_wrong_edges_throw(kind, inputs, outputs, arguments, words, run):
    """They never end the process, and nothing is written."""

    def throws(given, results):
        run(operator(kind, given, results, **arguments))

    assert words in edges.refusal(inputs, outputs, throws)


@pytest.mark.parametrize("kind", [*KINDS, "DragonOptimTotalNorm"])
def test_a_gradient_that_stands_twice_throws(kind):
    grad = edges.Edge(ONES)
    if kind == "DragonOptimTotalNorm":
        wrong = total_norm([grad, grad], edges.Edge())
    else:
        wrong = clip(kind, 0.1, [grad, grad])
    with pytest.raises(ValueError, match="a gradient stands twice"):
        edges.run_graph(wrong)
    assert grad.array.tolist() == [1, 1, 1]
