# SPDX-License-Identifier: BSD-2-Clause
"""dragon_optim gives PyTorch's numbers: every recorded trajectory is run again, on Dragon.

Bit for bit those of PyTorch with correctly rounded square roots, with every instruction set, thread count
and value of foreach; and those of PyTorch as it is within the error that its own square root may make.
"""

from __future__ import annotations

import dragon
import pytest

from tests import cases, error_units, exact
from tests.golden.recording import DTYPES, EARLY, Recording, crc
from tests.optim.runs import INSTRUCTION_SETS, Run, backward_gradients, using_instruction_set

RECORDED = cases.TORCH_CASES + cases.TORCH_EDGE_CASES
RECORDINGS = {dtype: Recording(dtype) for dtype in DTYPES}

by_case = pytest.mark.parametrize("case", RECORDED, ids=str)
by_dtype = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture
def threads():
    former = dragon.get_num_threads()
    yield dragon.set_num_threads
    dragon.set_num_threads(former)


def assert_is_recorded(case, dtype, run) -> list:
    """Run all steps and compare each with the recording; return the last snapshot."""
    recording = RECORDINGS[dtype]
    for step, entries in enumerate(run.steps()):
        if step + 1 == EARLY:
            exact.assert_same_bits(entries, recording.snapshot(case, "early"), f"step {step}")
        wrong = [i for i, entry in enumerate(entries) if crc(entry) != recording.crcs(case)[step, i]]
        assert not wrong, f"step {step}: parameters {wrong} (or their states) leave PyTorch's trajectory"
    exact.assert_same_bits(entries, recording.snapshot(case, "ieee"), "last step")
    return entries


@by_dtype
@by_case
def test_real_backward(case, dtype):
    entries = assert_is_recorded(case, dtype, Run(case, dtype, backward_gradients))
    native = RECORDINGS[dtype].snapshot(case, "native")
    assert error_units.largest(case, dtype, entries, native) <= error_units.LIMIT


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@by_dtype
@by_case
def test_instruction_sets(case, dtype, isa):
    with using_instruction_set(isa):
        assert_is_recorded(case, dtype, Run(case, dtype))


@pytest.mark.parametrize(("number", "foreach"), [(1, False), (2, True)])
@by_dtype
@by_case
def test_threads_and_foreach(case, dtype, number, foreach, threads):
    threads(number)
    assert_is_recorded(case, dtype, Run(case, dtype, foreach=foreach))
