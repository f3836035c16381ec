# SPDX-License-Identifier: BSD-2-Clause
"""DragonOptimCheck and DragonOptimRMSprop: what their edges mean.

The arithmetic has its own tests. Here it is which parameters are updated, from which row of hyper-parameters,
into which states; and that the check finds what is wrong before anything is written.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests import exact
from tests.operators import edges

HOW = pytest.mark.parametrize("run", [edges.run_graph, edges.run_eagerly], ids=["graph", "eager"])
STATES = ("square_avg", "momentum_buffer", "grad_avg")
ALL = dict(lr=0.1, alpha=0.9, momentum=0.9, centered=True, initial_square_avg=0.5)


def numbers(*shape, dtype="float32", seed=0):
    return np.array(np.random.RandomState(seed).standard_normal(shape), dtype)


def assert_is_oracles(segment, row, params, grads, steps=1):
    """`params` and `grads` are the arrays before the first step."""
    for place, (param, grad) in enumerate(zip(params, grads)):
        state = {}
        if grad is not None:
            for _ in range(steps):
                param, state = exact.step(row, param, grad, state)
        exact.assert_same_bits(
            [{"step": 0, "param": segment.params[place].array}],
            [{"step": 0, "param": param}],
            f"parameter {place}",
        )
        for name in segment.names:
            array = segment.states[name][place].array
            if grad is None:
                assert array is None, f"{name} of a parameter without gradient"
            else:
                exact.assert_same_bits(
                    [{"step": 0, name: array}], [{"step": 0, name: state[name]}], f"parameter {place}"
                )


@HOW
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_states(run, dtype):
    """States are made at the first gradient and used again at the next; steps are counted by slot."""
    params = [numbers(*shape, dtype=dtype, seed=7) for shape in ((3, 4), (), (70,))]
    grads = [numbers(*param.shape, dtype=dtype, seed=8) for param in params]
    segment = edges.Segment(params, grads, STATES)
    update = edges.Update([segment], [ALL])
    for _ in range(3):
        run(*update.operators())
    assert_is_oracles(segment, ALL, params, grads, steps=3)
    assert update.steps.array.tolist() == [3, 3, 3]


@HOW
def test_states_are_known_by_name(run):
    """The order of the state lists is the operator's argument, not a convention."""
    params, grads = [numbers(5)], [numbers(5, seed=1)]
    segment = edges.Segment(params, grads, tuple(reversed(STATES)))
    run(*edges.Update([segment], [ALL]).operators())
    assert_is_oracles(segment, ALL, params, grads)


def test_float16_has_master_weights():
    params = [numbers(9, dtype="float16")]
    grads = [numbers(9, dtype="float16", seed=1)]
    segment = edges.Segment(params, grads, ("square_avg", "momentum_buffer", "master_param"))
    row = dict(lr=0.1, momentum=0.9)
    update = edges.Update([segment], [row])
    edges.run_graph(*update.operators())
    assert_is_oracles(segment, row, params, grads)
    assert segment.states["master_param"][0].array.dtype == np.float32


@HOW
def test_absent_gradients_come_and_go(run):
    """A gradient without data is absent: one and the same graph serves every set of gradients."""
    params = [numbers(4, seed=place) for place in range(3)]
    grads = [numbers(4, seed=10 + place) for place in range(3)]
    segment = edges.Segment(params, [grads[0], None, grads[2]])
    update = edges.Update([segment], [{}])
    operators = update.operators()
    run(*operators)
    assert_is_oracles(segment, {}, params, [grads[0], None, grads[2]])
    assert update.steps.array.tolist() == [1, 0, 1]

    segment.grads[1].feed(grads[1])
    segment.grads[0].take_away()
    run(*operators)
    assert update.steps.array.tolist() == [1, 1, 2]
    only_once = edges.Segment([params[1]], [grads[1]])
    edges.run_graph(*edges.Update([only_once], [{}]).operators())
    assert segment.params[1].array.tolist() == only_once.params[0].array.tolist()


@HOW
def test_masked(run):
    """What the mask leaves out has a gradient, and is left alone: parameter, states, count."""
    params = [numbers(4, seed=place) for place in range(3)]
    grads = [numbers(4, seed=10 + place) for place in range(3)]
    segment = edges.Segment(params, grads, STATES)
    update = edges.Update([segment], [ALL], mask=[1, 0, 1])
    run(*update.operators())
    assert_is_oracles(segment, ALL, params, [grads[0], None, grads[2]])
    assert update.steps.array.tolist() == [1, 0, 1]


def test_slots_need_not_be_dense():
    """A segment may hold any slots of an optimizer: the mask and the counts are looked at there."""
    params, grads = [numbers(4), numbers(4, seed=1)], [numbers(4, seed=2), numbers(4, seed=3)]
    segment = edges.Segment(params, grads)
    segment.slots = [5, 2]
    update = edges.Update([segment], [{}], slots=7, mask=[0, 0, 1, 0, 0, 1, 0])
    edges.run_graph(*update.operators())
    assert_is_oracles(segment, {}, params, grads)
    assert update.steps.array.tolist() == [0, 0, 1, 0, 0, 1, 0]


@HOW
def test_segments_have_their_own_rows(run):
    """Two groups and two dtypes behind one check; each update reads the row of its group."""
    rows = [dict(lr=0.1, alpha=0.5), dict(lr=0.01, momentum=0.9)]
    arrays = [
        ([numbers(3)], [numbers(3, seed=1)]),
        ([numbers(2, 2, dtype="float64")] * 2, [np.ones((2, 2)), None]),
    ]
    segments = [
        edges.Segment(*arrays[0], group=0, first_slot=0),
        edges.Segment(*arrays[1], states=("square_avg", "momentum_buffer"), group=1, first_slot=1),
    ]
    update = edges.Update(segments, rows)
    run(*update.operators())
    for segment, row, (params, grads) in zip(segments, rows, arrays):
        assert_is_oracles(segment, row, params, grads)
    assert update.steps.array.tolist() == [1, 1, 0]


def test_sums_of_float16_are_float32():
    """`summed` says that the gradients are sums: of the dtype of the arithmetic, not of the parameter."""
    for summed, error in ((1, None), (0, "float32 of shape .*, but the parameter is float16")):
        segment = edges.Segment([numbers(3, dtype="float16")], [numbers(3)])
        update = edges.Update([segment], [{}])
        check = update.check()
        next(argument for argument in check.arg if argument.name == "summed").i = summed
        if error is None:
            edges.run_graph(check)
        else:
            with pytest.raises(ValueError, match=error):
                edges.run_graph(check)


# What is wrong with the second of two segments, and what the check says of it.
BAD = {
    "shape": (
        lambda s: s.grads[1].feed(np.ones(5, "float32")),
        ValueError,
        "parameter 3 of group 1 is float32 of shape",
    ),
    "count": (lambda s: s.grads[1].feed(np.ones((2, 2, 1), "float32")), ValueError, r"shape \(2, 2, 1\)"),
    "dtype": (lambda s: s.grads[1].feed(np.ones((2, 2))), ValueError, "is float64 of shape"),
    "integers": (lambda s: s.grads[1].feed(np.ones((2, 2), "int64")), ValueError, "is int64 of shape"),
    "no parameter": (lambda s: s.params[1].take_away(), RuntimeError, "has no data"),
    "other parameter": (
        lambda s: s.params[1].feed(np.ones((2, 2))),
        RuntimeError,
        "is float64 .* now, but was float32",
    ),
    "state's shape": (
        lambda s: s.states["square_avg"][1].feed(np.ones(4, "float32")),
        ValueError,
        "a state of parameter 3",
    ),
    "state's dtype": (
        lambda s: s.states["square_avg"][1].feed(np.ones((2, 2))),
        ValueError,
        "a state of parameter 3",
    ),
}


@HOW
@pytest.mark.parametrize("what", BAD)
def test_check_finds_everything_before_anything_is_written(run, what):
    """The first segment is fine, and so is the first parameter of the second.

    Neither has moved, no state was made.
    """
    spoil, exception, words = BAD[what]
    first = edges.Segment([numbers(3)] * 2, [numbers(3, seed=1)] * 2, first_slot=0)
    second = edges.Segment([numbers(2, 2)] * 2, [numbers(2, 2, seed=1)] * 2, group=1, first_slot=2)
    spoil(second)
    update = edges.Update([first, second], [{}, {}])
    before = update.arrays()
    with pytest.raises(exception, match=words):
        run(*update.operators())
    after = update.arrays()
    assert [None if a is None else a.tobytes() for a in before] == [
        None if a is None else a.tobytes() for a in after
    ]
    assert all(state.array is None for state in first.states["square_avg"])


def test_absent_gradient_hides_what_is_wrong():
    """What takes no part is not looked at.

    A parameter without gradient cannot keep the others from training.
    """
    segment = edges.Segment([numbers(3), numbers(3)], [numbers(3), None])
    segment.states["square_avg"][1].feed(np.ones(7))
    update = edges.Update([segment], [{}])
    edges.run_graph(*update.operators())
    assert update.steps.array.tolist() == [1, 0]


@pytest.mark.parametrize("key", edges.FIELDS)
def test_check_refuses_nan(key):
    """The ranges are Python's business; a NaN can only come from a graph that was fed by hand."""
    segment = edges.Segment([numbers(3)], [numbers(3)])
    update = edges.Update([segment], [{key: np.nan}])
    with pytest.raises(ValueError, match="NaN; nothing was changed"):
        edges.run_graph(*update.operators())
    assert segment.arrays()[1] is None
