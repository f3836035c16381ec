# SPDX-License-Identifier: BSD-2-Clause
"""The process never dies, and a failure changes nothing.

In Dragon a wrong dtype, shape, device or name ends the process. Each case of `misuse.py` happens in a process
of its own, and what is looked at is how that ended: with the expected Python exception (exit code 1) or,
where the thing is legal, without one (exit code 0), never by a signal; with parameters, gradients, states and
step counts as they were; and with an optimizer that goes on once the mistake is put right.
"""

from __future__ import annotations

import re

import pytest

from tests.optim import forked_cases, misuse


@pytest.fixture(scope="module")
def outcomes():
    return forked_cases.run_cases("tests.optim.misuse")


@pytest.mark.parametrize("case", misuse.CASES, ids=str)
def test_misuse(case, outcomes):
    outcome = outcomes[case.name]
    assert outcome["returncode"] >= 0, f"ended by signal {-outcome['returncode']}:\n{outcome['stderr']}"
    assert "type" in outcome, f"not the misuse but what followed it failed:\n{outcome['stderr']}"
    expected = "NoneType" if case.exception is None else case.exception.__name__
    assert outcome["type"] == expected, outcome["message"]
    assert re.search(case.match, outcome["message"]), outcome["message"]
    assert outcome["changed"] == []
    assert outcome["returncode"] == (0 if case.exception is None else 1), outcome["stderr"]
    assert "Exception ignored" not in outcome["stderr"], outcome["stderr"]


def test_names_are_unique():
    names = [case.name for case in misuse.CASES]
    assert len(names) == len(set(names))
