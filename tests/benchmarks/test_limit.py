# SPDX-License-Identifier: BSD-2-Clause
"""The limit touches every byte that it is said to move, and no other."""

import numpy as np
import pytest

from benchmarks import inputs, shapes
from benchmarks.cases import VARIANTS, Case
from benchmarks.dragon_sides import own_workspace
from benchmarks.limit import PART_ELEMENTS, SERIAL_ELEMENTS, Limit

# Pieces that end within tensors, tensors that end within parts, and enough of them for two threads.
UNEVEN = [(3,), (PART_ELEMENTS + 1,), (7, 5), (SERIAL_ELEMENTS,), (1,), (2 * PART_ELEMENTS,)]


@pytest.fixture(autouse=True)
def uneven(monkeypatch):
    monkeypatch.setitem(shapes.LISTS, "uneven", lambda: UNEVEN)
    with own_workspace():
        yield


def unsigned(array):
    return array.view({2: np.uint16, 4: np.uint32, 8: np.uint64}[array.itemsize])


def memory(limit, case):
    """Copies of gradient, parameter and states, as integers, for each tensor."""
    arrays = [unsigned(tensor.numpy()).copy() for tensor in limit._memory]
    each = len(arrays) // len(case.shapes)
    return [arrays[begin : begin + each] for begin in range(0, len(arrays), each)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["step", "clip_norm"])
def test_a_step(kind, variant, dtype, threads):
    case = Case(kind, "uneven", variant, dtype, threads)
    limit = Limit(case)  # has run once
    once = memory(limit, case)
    for (values, gradient), (found, param, *states) in zip(inputs.pairs(case), once):
        bits, one = unsigned(gradient), unsigned(np.ones((), states[0].dtype.str.replace("u", "f")))
        assert len(states) == case.states + (dtype == "float16")
        assert (found == bits).all()
        assert (param == unsigned(values) ^ bits).all()
        assert all((state == one ^ bits.astype(state.dtype)).all() for state in states)
    limit()
    for (values, _), (_, param, *_) in zip(inputs.pairs(case), memory(limit, case)):
        assert (param == unsigned(values)).all()


@pytest.mark.parametrize("kind", ["sum_grad", "clip_grad_norm_"])
def test_two_reads_and_a_write(kind):
    case = Case(kind, "uneven")
    for (values, gradient), (found, sums) in zip(inputs.pairs(case), memory(Limit(case), case)):
        assert (found == unsigned(gradient)).all()
        assert (sums == unsigned(values) ^ unsigned(gradient)).all()


def test_a_fill():
    case = Case("zero_grad", "uneven")
    for (values, _), (found, param, *_) in zip(inputs.pairs(case), memory(Limit(case), case)):
        assert not found.any()
        assert (param == unsigned(values)).all()


def test_what_has_no_loop():
    with pytest.raises(ValueError, match=r"no loop for sum_grad, uneven, plain, float16"):
        Limit(Case("sum_grad", "uneven", dtype="float16"))
