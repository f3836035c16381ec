# SPDX-License-Identifier: BSD-2-Clause
"""Wrong edges and arguments throw; they never end the process.

An exported graph can be edited by hand, and be run after its workspace was cleared. Each case runs in a
forked child: at worst that is what ends.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.operators import edges

ROW = edges.hyper({})
ONES = np.ones(3, "float32")
MASK = np.ones(1, "int64")
HUGE = 10**9  # an index that far away is not mapped
UPDATES = ["DragonOptimCheck", "DragonOptimRMSprop"]

FITS = {
    "DragonOptimCheck": (
        [ROW, MASK, ONES],
        [ONES, None, MASK],
        dict(groups=[0], sizes=[1], num_states=[1], dtypes=[1], slots=[0], hyper_size=ROW.size, summed=0),
    ),
    "DragonOptimAccumulate": ([MASK, ONES, ONES], [None, np.zeros(1, "int64")], dict(slots=[0])),
    "DragonOptimZeroGrad": ([MASK], [ONES], {}),
    "DragonOptimPack": (
        [np.ones(2, "int64"), ONES[:2], ONES],
        [None],
        dict(dtype=1, sizes=[3, 2], indices=[1, 0], slots=[1, 0]),
    ),
    "DragonOptimPresent": ([np.ones(7, "float32")], [np.zeros(2, "int64")], dict(dtype=1, sizes=[3, 2])),
    "DragonOptimUnpack": (
        [np.ones(2, "int64"), np.ones(7, "float32"), ONES[:2], ONES],
        [None, None],
        dict(dtype=1, sizes=[3, 2], indices=[1, 0]),
    ),
}
FITS["DragonOptimRMSprop"] = (
    *FITS["DragonOptimCheck"][:2],
    dict(FITS["DragonOptimCheck"][2], states=["square_avg"]),
)

_ROW = ROW[0]
FITS["DragonOptimDifferentiableRMSprop"] = (
    [_ROW, np.float64([0.5]), ONES, ONES, None],
    [None, None],
    dict(states=["square_avg"], scalars=["lr"]),
)
# What flows back to the results comes behind the inputs.
FITS["DragonOptimDifferentiableRMSpropGradient"] = (
    [_ROW, np.float64([0.5]), ONES, ONES, ONES, ONES, None],
    [None] * 5,
    FITS["DragonOptimDifferentiableRMSprop"][2],
)
RECORDED = ["DragonOptimDifferentiableRMSprop", "DragonOptimDifferentiableRMSpropGradient"]

LEFT_OUT = object()
ANY_WORDS = ""  # only a graph written by hand comes here


def outcome(kind, inputs=None, outputs=None, run=edges.run_graph, **changes):
    """Run an operator in a child, with `changes` to its arguments and {position: array} to its edges."""
    kept_inputs, kept_outputs, arguments = FITS[kind]
    arguments = {key: value for key, value in dict(arguments, **changes).items() if value is not LEFT_OUT}

    def work():
        ends = [
            [
                edges.Edge(array)
                for array in {**dict(enumerate(kept)), **(changed or {})}.values()
                if array is not LEFT_OUT
            ]
            for kept, changed in ((kept_inputs, inputs), (kept_outputs, outputs))
        ]
        run(edges.operator(kind, *ends, **arguments))
        return "no error"

    return edges.in_child(work)


def rows():
    """(operator, what is wrong, changes, words of the message)."""
    for kind in UPDATES:
        fit, gone = f"{kind}: the inputs and outputs do not fit the arguments", f"{kind}: the tensor of"
        yield kind, "no gradient", dict(inputs={2: LEFT_OUT}), fit
        yield kind, "a gradient too many", dict(inputs={3: ONES}), fit
        yield kind, "no inputs", dict(inputs=dict.fromkeys(range(3), LEFT_OUT)), fit
        yield kind, "no outputs", dict(outputs=dict.fromkeys(range(3), LEFT_OUT)), fit
        yield kind, "a state too many", dict(outputs={3: ONES}), fit
        yield kind, "no arguments", dict.fromkeys(FITS[kind][2], LEFT_OUT), fit
        yield kind, "no slots", dict(slots=LEFT_OUT), fit
        yield kind, "no sizes", dict(sizes=LEFT_OUT), fit
        yield kind, "no groups", dict(groups=LEFT_OUT), fit
        yield kind, "slots that are no integers", dict(slots=["0"]), fit
        yield kind, "a slot beyond the mask", dict(slots=[1]), gone + " mask"
        yield kind, "a negative slot", dict(slots=[-HUGE]), ANY_WORDS
        yield (
            kind,
            "negative sizes",
            dict(sizes=[-1, 2], groups=[0, 0], num_states=[1, 1], dtypes=[1, 1]),
            ANY_WORDS,
        )
        yield kind, "negative states", dict(num_states=[-HUGE]), ANY_WORDS
        yield kind, "a negative group", dict(groups=[-HUGE]), ANY_WORDS
        yield kind, "an unknown dtype", dict(dtypes=[9]), ANY_WORDS
        yield kind, "a short table", dict(inputs={0: ROW[:, :5]}), gone + " hyper-parameters"
        yield kind, "a table of float32", dict(inputs={0: ROW.astype("float32")}), gone + " hyper-parameters"
        yield kind, "an empty table", dict(inputs={0: None}), gone + " hyper-parameters"
        yield kind, "an empty mask", dict(inputs={1: None}), gone + " mask"
        yield kind, "a mask of int32", dict(inputs={1: MASK.astype("int32")}), gone + " mask"
        yield kind, "no step counts", dict(outputs={2: None}), gone + " step counts"
        yield kind, "step counts of floats", dict(outputs={2: np.ones(1)}), gone + " step counts"

    fit_not = "the arguments of the operator do not fit each other"
    kind, of = "DragonOptimCheck", dict(update="DragonOptimRMSprop")
    yield kind, "no names of states", dict(of), fit_not
    yield kind, "too many names of states", dict(of, states=["square_avg", "grad_avg"]), fit_not
    yield kind, "another state than is needed", dict(of, states=["grad_avg"]), "is not among its edges"
    yield kind, "a group beyond the table", dict(of, states=["square_avg"], groups=[1]), fit_not
    yield kind, "no size of the table", dict(of, states=["square_avg"], hyper_size=LEFT_OUT), fit_not
    kind = "DragonOptimRMSprop"
    yield kind, "another state than is needed", dict(states=["grad_avg"]), "is not among its edges"
    yield kind, "a group beyond the table", dict(groups=[1]), fit_not
    yield kind, "a group far beyond the table", dict(groups=[2**60]), fit_not
    yield kind, "no size of the table", dict(hyper_size=LEFT_OUT), fit_not
    yield kind, "no names of states", dict(states=LEFT_OUT), fit_not
    yield kind, "too many names of states", dict(states=["square_avg", "grad_avg"]), fit_not
    yield kind, "an unknown state", dict(states=["squares"]), "no state named 'squares'"
    # A graph from which the check was left out: the kernel would read and write where nothing is.
    large = np.ones(1 << 22, "float32")
    yield kind, "a gradient that is too short", dict(outputs={0: large}), ANY_WORDS
    yield kind, "a gradient of another dtype", dict(inputs={2: ONES.astype("float64")}), ANY_WORDS
    yield kind, "a gradient of integers", dict(inputs={2: np.ones(3, "int32")}), ANY_WORDS
    yield kind, "a parameter without data", dict(outputs={0: None}), ANY_WORDS
    yield kind, "a parameter of another dtype", dict(outputs={0: ONES.astype("float16")}), ANY_WORDS
    yield kind, "a state that is too short", dict(outputs={1: ONES[:1]}), ANY_WORDS
    two = dict(sizes=[1, 1], groups=[0, 0], num_states=[0, 1], dtypes=[1, 1], slots=[0, 0])
    yield (
        kind,
        "two segments, of which it would update one",
        dict(two, states=LEFT_OUT, inputs={3: ONES}, outputs={0: ONES, 1: ONES, 2: None, 3: MASK}),
        fit_not,
    )

    for kind in RECORDED:
        fit = "the inputs and outputs do not fit the arguments of the operator"
        yield kind, "no inputs", dict(inputs=dict.fromkeys(range(7), LEFT_OUT)), ANY_WORDS
        yield kind, "no outputs", dict(outputs=dict.fromkeys(range(5), LEFT_OUT)), fit
        yield kind, "an input too few", dict(inputs={4: LEFT_OUT}), fit
        yield kind, "no arguments", dict(states=LEFT_OUT, scalars=LEFT_OUT), ANY_WORDS
        yield kind, "no names of states", dict(states=LEFT_OUT), ANY_WORDS
        yield kind, "an unknown state", dict(states=["squares"]), "no state named 'squares'"
        yield kind, "too many names of states", dict(states=["square_avg", "grad_avg"]), fit
        yield kind, "another state than is needed", dict(states=["grad_avg"]), "is not among its edges"
        yield kind, "a scalar that is none", dict(scalars=["centered"]), "centered cannot be differentiated"
        yield kind, "two scalars for one", dict(scalars=["lr", "eps"]), fit
        yield kind, "a scalar of two elements", dict(inputs={1: np.ones(2)}), "of one element"
        yield kind, "a scalar of integers", dict(inputs={1: MASK}), "must be float32 or float64"
        yield kind, "a scalar without data", dict(inputs={1: None}), "must be float32 or float64"
        yield kind, "a short row", dict(inputs={0: _ROW[:5]}), "the hyper-parameters are"
        yield kind, "a row of float32", dict(inputs={0: _ROW.astype("float32")}), "the hyper-parameters are"
        yield kind, "an empty row", dict(inputs={0: None}), "the hyper-parameters are"
        yield (
            kind,
            "a parameter of float16",
            dict(inputs={2: ONES.astype("float16")}),
            "need float32 or float64",
        )
        yield kind, "a parameter without data", dict(inputs={2: None}), "need float32 or float64"
        yield kind, "a gradient that is too short", dict(inputs={3: ONES[:2]}), "unlike the parameter"
        yield kind, "a gradient of another dtype", dict(inputs={3: np.ones(3)}), "unlike the parameter"
        yield kind, "a gradient without data", dict(inputs={3: None}), "unlike the parameter"
        yield kind, "a state that is too short", dict(inputs={4: ONES[:2]}), "unlike the parameter"
    yield kind, "a short flow", dict(inputs={5: ONES[:2]}), "what flows back to result 0"
    yield kind, "a flow of another dtype", dict(inputs={6: np.ones(3)}), "what flows back to result 1"

    kind = "DragonOptimAccumulate"
    fit, gone = "the inputs and outputs do not fit the arguments", "a tensor of flags is gone"
    yield kind, "no inputs", dict(inputs=dict.fromkeys(range(3), LEFT_OUT)), fit
    yield kind, "no slots", dict(slots=LEFT_OUT), fit
    yield kind, "no sum", dict(outputs={0: LEFT_OUT}), fit
    yield kind, "a slot beyond the flags", dict(slots=[1]), gone
    yield kind, "a negative slot", dict(slots=[-HUGE]), ANY_WORDS
    yield kind, "flags of floats", dict(inputs={0: ONES}), gone
    yield kind, "no flags", dict(inputs={0: None}), gone
    yield kind, "no flags of sums", dict(outputs={1: None}), gone

    kind = "DragonOptimZeroGrad"
    yield kind, "no mode", dict(inputs={0: LEFT_OUT}), "needs one input"
    yield kind, "two modes", dict(inputs={1: MASK}), "needs one input"
    yield kind, "an empty mode", dict(inputs={0: None}), gone
    yield kind, "a mode of floats", dict(inputs={0: ONES}), gone

    for kind in ("DragonOptimPack", "DragonOptimPresent", "DragonOptimUnpack"):
        yield kind, "no inputs", dict(inputs=dict.fromkeys(range(4), LEFT_OUT)), "the edges do not fit"
        yield kind, "no outputs", dict(outputs=dict.fromkeys(range(2), LEFT_OUT)), "the edges do not fit"
        yield kind, "an index beyond the layout", dict(indices=[1, 2]), ANY_WORDS
        yield kind, "a negative index", dict(indices=[1, -1]), ANY_WORDS
        yield kind, "a negative size", dict(sizes=[3, -HUGE]), ANY_WORDS
        yield kind, "an unknown dtype", dict(dtype=9), ANY_WORDS
        # The flags would be written as float64, beyond the end of the buffer.
        yield kind, "float16", dict(dtype=0), ANY_WORDS
    kind = "DragonOptimPack"
    yield kind, "a negative slot", dict(slots=[1, -HUGE]), ANY_WORDS
    yield kind, "a slot beyond the mask", dict(slots=[1, 2]), "the edges do not fit"
    yield kind, "an empty mask", dict(inputs={0: None}), "the edges do not fit"
    yield kind, "a gradient of another size", dict(inputs={1: ONES}), "which the buffer does not expect"
    yield (
        kind,
        "a gradient of another dtype",
        dict(inputs={2: np.ones(3)}),
        "which the buffer does not expect",
    )
    for kind, place in (("DragonOptimPresent", 0), ("DragonOptimUnpack", 1)):
        yield kind, "an empty buffer", dict(inputs={place: None}), "the edges do not fit"
        yield kind, "a short buffer", dict(inputs={place: ONES}), "the edges do not fit"
        yield kind, "a buffer of float64", dict(inputs={place: np.ones(7)}), "the edges do not fit"
    for kind, side in (("DragonOptimPresent", "outputs"), ("DragonOptimUnpack", "inputs")):
        yield kind, "no flags", {side: {0: None}}, "the edges do not fit"
        yield kind, "too few flags", {side: {0: np.zeros(1, "int64")}}, "the edges do not fit"
        yield kind, "flags of floats", {side: {0: np.zeros(2, "float32")}}, "the edges do not fit"
    kind = "DragonOptimUnpack"
    yield kind, "a parameter of another size", dict(inputs={2: ONES}), "a parameter changed its shape"


CASES = list(rows())


@pytest.mark.parametrize("run", [edges.run_graph, edges.run_eagerly], ids=["graph", "eager"])
@pytest.mark.parametrize("kind", FITS)
def test_right_edges(kind, run):
    """What every case below starts from is right."""
    assert outcome(kind, run=run) == "no error"


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [(kind, changes, words) for kind, _, changes, words in CASES],
    ids=[f"{kind[11:]}: {what}" for kind, what, _, _ in CASES],
)
def test_wrong_edges_throw(kind, changes, words):
    error = outcome(kind, **changes)
    assert error.startswith(("ValueError: ", "RuntimeError: ")), error
    assert words in error


def test_a_recorded_step_does_not_write_to_what_it_is_given():
    def work():
        row, rate, param, grad, state = (edges.Edge(array) for array in FITS[RECORDED[0]][0])
        arguments = FITS[RECORDED[0]][2]
        edges.run_eagerly(
            edges.operator(RECORDED[0], [row, rate, param, grad, state], [param, edges.Edge()], **arguments)
        )

    assert "is input and output, but the results must be new tensors" in edges.in_child(work)


def test_child_sees_a_death():
    """What the tests above would say of an operator that ends the process."""
    assert edges.in_child(lambda: __import__("os").abort()) == "signal 6"
