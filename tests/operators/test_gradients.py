# SPDX-License-Identifier: BSD-2-Clause
"""DragonOptimAccumulate, ...ZeroGrad, ...Pack, ...Present and ...Unpack.

Gradients between backward passes, and on their way through a group.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests import exact
from tests.operators import edges

HOW = pytest.mark.parametrize("run", [edges.run_graph, edges.run_eagerly], ids=["graph", "eager"])


def numbers(*shape, dtype="float32", seed=0):
    return np.array(np.random.RandomState(seed).standard_normal(shape), dtype)


class Sums:
    def __init__(self, grads):
        self.grads = [edges.edge(grad) for grad in grads]
        self.params = [edges.edge(np.zeros_like(grad)) for grad in grads]
        self.sums = [edges.Edge() for _ in grads]
        self.fresh, self.summed = (edges.Edge(np.zeros(len(grads), "int64")) for _ in range(2))
        self.operator = edges.operator(
            "DragonOptimAccumulate",
            [self.fresh, *self.grads, *self.params],
            [*self.sums, self.summed],
            slots=list(range(len(grads))),
        )

    def add(self, run, *fresh):
        self.fresh.feed(np.array(fresh, "int64"))
        run(self.operator)


@HOW
def test_sums_begin_grow_and_begin_anew(run):
    """The first gradient of a round overwrites what an earlier round left; `fresh` says who takes part."""
    first = [numbers(3), numbers(2, 2, dtype="float64"), numbers(5, dtype="float16"), numbers(0)]
    second = [numbers(*grad.shape, dtype=grad.dtype, seed=1) for grad in first]
    sums = Sums(first)
    sums.add(run, 1, 1, 1, 1)
    assert sums.summed.array.tolist() == [1, 1, 1, 1]
    for grad, array in zip(sums.grads, second):
        grad.feed(array)
    sums.add(run, 1, 0, 1, 0)
    expected = [exact.accumulate(grad) for grad in first]
    expected[0], expected[2] = (
        exact.accumulate(second[0], expected[0]),
        exact.accumulate(second[2], expected[2]),
    )
    for ours, theirs in zip(sums.sums, expected):
        assert (ours.array.dtype, ours.array.tobytes()) == (theirs.dtype, theirs.tobytes())
    sums.summed.feed(np.zeros(4, "int64"))
    sums.add(run, 0, 1, 0, 1)
    assert sums.sums[1].array.tobytes() == second[1].tobytes()
    assert sums.sums[0].array.tobytes() == expected[0].tobytes()
    assert sums.summed.array.tolist() == [0, 1, 0, 1]


def test_absent_gradient_has_no_sum():
    sums = Sums([numbers(3), numbers(3)])
    sums.grads[1].take_away()
    sums.add(edges.run_graph, 1, 1)
    assert sums.summed.array.tolist() == [1, 0]
    assert sums.sums[1].array is None


BAD_SUMS = {
    "shape": (lambda s: s.grads[1].feed(np.ones((3, 1), "float32")), 0),
    "dtype": (lambda s: s.grads[1].feed(np.ones(3)), 0),
    "integers": (lambda s: (s.grads[1].feed(np.ones(3, "int32")), s.params[1].feed(np.ones(3, "int32"))), 0),
    "parameter": (lambda s: s.params[1].take_away(), 0),
    "begun sum's shape": (lambda s: s.sums[1].feed(np.ones(4, "float32")), 1),
    "begun sum's dtype": (lambda s: s.sums[1].feed(np.ones(3)), 1),
}


@pytest.mark.parametrize("what", BAD_SUMS)
def test_nothing_is_summed_where_one_does_not_fit(what):
    spoil, begun = BAD_SUMS[what]
    sums = Sums([numbers(3), numbers(3)])
    spoil(sums)
    sums.summed.feed(np.array([0, begun]))
    with pytest.raises(ValueError, match="nothing was summed"):
        sums.add(edges.run_graph, 1, 1)
    assert sums.sums[0].array is None
    assert sums.summed.array.tolist() == [0, begun]


@HOW
@pytest.mark.parametrize("mode", [0, 1], ids=["zeros", "none"])
def test_zero_grad(run, mode):
    """Of every dtype and shape; what is absent stays absent, in both modes."""
    arrays = [
        numbers(3),
        numbers(2, 2, dtype="float64"),
        np.ones(3, "float16"),
        np.ones(2, "int64"),
        np.ones((0,), "float32"),
    ]
    grads = [edges.Edge(array) for array in arrays] + [edges.Edge()]
    zero = edges.operator("DragonOptimZeroGrad", [edges.Edge(np.array([mode]))], grads)
    run(zero)
    run(zero)  # with nothing there any more, or zeros already
    if mode:
        assert [grad.array for grad in grads] == [None] * 6
    else:
        assert [grad.array.tolist() for grad in grads[:5]] == [[0] * 3, [[0, 0]] * 2, [0] * 3, [0] * 2, []]
        assert grads[5].array is None


# --- through a buffer and back ------------------------------------------------------------------------------

SHAPES = ((3,), (2, 2), (), (0,), (70,))


def pack(grads, buffer, mask=None, places=None, dtype="float32"):
    """`places` are those of the tensors in the layout, which is SHAPES on every rank."""
    places = range(len(SHAPES)) if places is None else places
    mask = [1] * len(SHAPES) if mask is None else mask
    return edges.operator(
        "DragonOptimPack",
        [edges.Edge(np.array(mask)), *[grads[place] for place in places]],
        [buffer],
        dtype=edges.DTYPE_CODES[dtype],
        sizes=[int(np.prod(shape)) for shape in SHAPES],
        indices=list(places),
        slots=list(places),
    )


def unpack(buffer, params, grads, dtype="float32"):
    """What finds the flags, and what copies the means back by them."""
    present = edges.Edge(np.full(len(SHAPES), 9))
    layout = dict(dtype=edges.DTYPE_CODES[dtype], sizes=[int(np.prod(shape)) for shape in SHAPES])
    places = list(range(len(SHAPES)))
    find = edges.operator("DragonOptimPresent", [buffer], [present], **layout)
    copy = edges.operator("DragonOptimUnpack", [present, buffer, *params], grads, indices=places, **layout)
    return present, (find, copy)


@HOW
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip(run, dtype):
    """A buffer holds a flag for each tensor, then their numbers; and back into tensors without data."""
    arrays = [numbers(*shape, dtype=dtype, seed=1 + place) for place, shape in enumerate(SHAPES)]
    buffer, params = edges.Edge(), [edges.Edge(np.zeros_like(array)) for array in arrays]
    run(pack([edges.Edge(array) for array in arrays], buffer, dtype=dtype))
    expected = np.concatenate([np.ones(len(SHAPES), dtype), *[array.ravel() for array in arrays]])
    assert buffer.array.tobytes() == expected.tobytes()
    back = [edges.Edge() for _ in arrays]
    present, operators = unpack(buffer, params, back, dtype)
    run(*operators)
    assert present.array.tolist() == [1] * len(SHAPES)
    for ours, theirs in zip(back, arrays):
        assert (ours.array.dtype, ours.array.shape, ours.array.tobytes()) == (
            theirs.dtype,
            theirs.shape,
            theirs.tobytes(),
        )


@HOW
def test_what_a_rank_lacks_is_zeros(run):
    """Masked, absent or not even an edge: flag 0 and zeros, also in a buffer that held something before."""
    arrays = [np.ones(shape, "float32") for shape in SHAPES]
    grads = [edges.Edge(array) for array in arrays]
    buffer = edges.Edge()
    run(pack(grads, buffer))
    grads[1].take_away()
    run(pack(grads, buffer, mask=[0, 1, 1, 1, 1], places=[2, 1, 0, 4]))
    present = [0, 0, 1, 0, 1]
    expected = present + [flag for flag, shape in zip(present, SHAPES) for _ in range(int(np.prod(shape)))]
    assert buffer.array.tolist() == expected


def test_unpack_writes_what_some_rank_had():
    """After a mean over two ranks a flag is 0, 0.5 or 1. Only 0 leaves a gradient alone, absent or not."""
    flags = [0, 0.5, 1, 1, 0]
    values = np.arange(sum(int(np.prod(shape)) for shape in SHAPES), dtype="float32")
    buffer = edges.Edge(np.concatenate([np.array(flags, "float32"), values]))
    grads = [edges.Edge(np.full(3, 9, "float32")), *[edges.Edge() for _ in SHAPES[1:]]]
    params = [edges.Edge(np.zeros(shape, "float32")) for shape in SHAPES]
    present, operators = unpack(buffer, params, grads)
    edges.run_graph(*operators)
    assert present.array.tolist() == [0, 1, 1, 1, 0]
    assert grads[0].array.tolist() == [9, 9, 9]
    assert grads[1].array.tolist() == [[3, 4], [5, 6]]
    assert grads[2].array.tolist() == 7
    assert grads[3].array.shape == (0,)
    assert grads[4].array is None
