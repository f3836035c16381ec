# SPDX-License-Identifier: BSD-2-Clause
"""Which cases a run takes."""

import pytest

from benchmarks import cases, goals, overview, shapes


@pytest.mark.parametrize("selection", cases.SELECTIONS)
def test_names_are_unique(selection):
    names = [case.name for case in cases.SELECTIONS[selection]()]
    assert len(set(names)) == len(names)


def test_default_covers_every_axis():
    chosen = cases.default()
    for axis, values in {
        "kind": cases.KINDS,
        "parameters": {*shapes.LISTS, "MLP"},
        "variant": cases.VARIANTS,
        "dtype": cases.DTYPES,
        "threads": cases.THREADS,
    }.items():
        assert {getattr(case, axis) for case in chosen} == set(values)


def test_quick_has_every_kind_variant_and_dtype():
    chosen = cases.quick()
    assert {case.kind for case in chosen} == set(cases.KINDS)
    assert {case.variant for case in chosen} == set(cases.VARIANTS)
    assert {case.dtype for case in chosen} == set(cases.DTYPES)


def test_full_has_every_combination_of_a_step():
    steps = [case for case in cases.full() if case.kind == "step"]
    assert len(steps) == len(shapes.LISTS) * len(cases.VARIANTS) * len(cases.DTYPES) * len(cases.THREADS)


def test_full_has_what_the_default_has():
    assert {case.name for case in cases.default()} <= {case.name for case in cases.full()}


def test_what_is_reported_is_measured_by_default():
    measured = {case.name for case in cases.default()}
    wanted = [goal.case for threads in cases.THREADS for goal in goals.goals(threads)]
    assert {case.name for case in [*wanted, *overview.SELECTED.values()]} <= measured


def test_long_lists_are_not_compiled_by_default():
    compiled = [case for case in cases.default() if case.compiled]
    assert compiled
    assert all(case.kind == "step" and case.tensors <= cases.COMPILED_TENSORS for case in compiled)
