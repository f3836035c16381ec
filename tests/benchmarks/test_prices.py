# SPDX-License-Identifier: BSD-2-Clause
"""What a step costs, from results that nobody measured."""

import pytest

from benchmarks import anatomy, cost
from benchmarks.cases import step
from tests.benchmarks.results import entry, made_up

MILLISECONDS = {"1 x 100": 0.011, "1000 x 100": 1.010, "1 x 10M": 28.0}


def results(**more):
    medians = {**MILLISECONDS, **more}
    return made_up(*(entry(step(name), dragon_optim=median) for name, median in medians.items()))


def test_prices():
    found = cost.prices(results())
    assert found.step == pytest.approx(10e-6)
    assert found.tensor == pytest.approx(1e-6)
    assert found.byte == pytest.approx(1e-10)  # 28 bytes for each of 10 M elements
    assert found.of(tensors=10, moved=10**6) == pytest.approx(10e-6 + 10e-6 + 100e-6)


def test_tables_hold_prices_against_what_was_measured():
    price, others = cost.tables(results(**{"161 x 16K": 7.5}))
    assert [row[1] for row in price.rows] == ["10.0 us", "1000 ns", "2.80 ns"]
    measured, billion = others.rows
    # 161 tensors of 16,384 elements and 28 bytes each, at 1e-10 s a byte
    assert measured == ["161 x 16K", "161", "2.64", "7.56", "7.50"]
    assert billion[3:] == ["2801", "-"]


def test_without_the_three_cases_there_are_no_prices():
    assert cost.tables(made_up(entry(step("1 x 100"), dragon_optim=1.0))) == []


def test_the_parts_of_a_step():
    found = anatomy.dissect(step("10 x 100", threads=1))
    parts = [found[name] for name in (anatomy.GRAPH, anatomy.GROUPS, anatomy.GUARDS)]
    assert all(0 < each < found[anatomy.WHOLE] for each in parts)
    assert found[anatomy.REST] == pytest.approx(max(0.0, found[anatomy.WHOLE] - sum(parts)))
    table = anatomy.table({"10 x 100": found})
    assert [row[0] for row in table.rows] == list(found)
