# SPDX-License-Identifier: BSD-2-Clause
"""From results to tables, files and plots."""

import sys
import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks import goals, overview, report
from benchmarks.cases import TRAIN, Case, single, step, tiny
from benchmarks.run import as_json
from benchmarks.tables import Table, digits, milliseconds
from tests.benchmarks.results import entry, made_up

LARGE = step("1 x 10M", "plain")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1234"),
        (123.4, "123"),
        (12.34, "12.3"),
        (0.01234, "0.0123"),
        (9.999e-4, "0.00100"),
        (0, "0.00"),
    ],
)
def test_three_digits(value, text):
    assert digits(value) == text


def test_seconds_are_printed_as_milliseconds():
    assert milliseconds(0.00425) == "4.25"


TABLE = Table("Some", ["what", "a"], [["x", "10"], ["longer", ""]])


def test_a_table_as_text():
    assert TABLE.as_text().splitlines() == ["Some", "", "what     a", "------  --", "x       10", "longer"]


def test_a_table_as_markdown():
    assert TABLE.as_markdown().splitlines() == [
        "| what | a |",
        "| --- | ---: |",
        "| x | 10 |",
        "| longer |  |",
    ]


def test_a_table_as_restructured_text():
    assert TABLE.as_rst().splitlines() == [
        ".. list-table:: Some",
        "   :header-rows: 1",
        "",
        *("   * - what", "     - a", "   * - x", "     - 10", "   * - longer", "     -"),
    ]


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="2 columns"):
        Table("Some", ["what", "a"], [["x"]])


def goal(label, results, threads=2):
    rows = [each.row(results) for each in [*goals.goals(threads), goals.TRAINING]]
    (row,) = (row for row in rows if row[0] == label)
    return dict(zip(goals.HEADER, row))


@pytest.mark.parametrize(("ours", "reached"), [(4.39, "yes"), (4.41, "no")])
def test_a_goal_in_multiples_of_the_limit(ours, reached):
    row = goal("1 x 10M", made_up(entry(LARGE, limit=4, dragon_optim=ours, stock=32, torch_foreach=18)))
    assert (row["limit"], row["stock"], row["torch foreach"]) == ("4.00 ms", "8.00", "4.50")
    assert (row["torch.compile"], row["reached"]) == ("-", reached)


@pytest.mark.parametrize(("ours", "reached"), [(0.31, "yes"), (0.33, "no")])
def test_a_goal_against_the_faster_of_the_others(ours, reached):
    sides = dict(limit=0.04, dragon_optim=ours, stock=17, torch_foreach=16)
    row = goal("1000 x 100, momentum", made_up(entry(step("1000 x 100"), **sides)))
    assert row["reached"] == reached
    assert row["dragon_optim"].endswith(f"{digits(16 / ours, 2)} x")


@pytest.mark.parametrize(("ours", "reached"), [(0.0149, "yes"), (0.0151, "no")])
def test_a_goal_in_milliseconds(ours, reached):
    row = goal("1 x 100, momentum", made_up(entry(step("1 x 100"), dragon_optim=ours)))
    assert (row["limit"], row["reached"]) == ("-", reached)


@pytest.mark.parametrize(("captured", "reached"), [(0.1, "yes"), (0.13, "no")])
def test_the_goal_of_captured_training(captured, reached):
    measured = entry(TRAIN, dragon_optim=0.3, captured=captured, stock=0.5)
    assert goal("a training step, captured", made_up(measured))["reached"] == reached


def test_goals_of_one_thread_look_at_one_thread():
    results = made_up(entry(step("1 x 10M", "plain", threads=1), limit=4, dragon_optim=4))
    assert goal("1 x 10M", results, threads=1)["reached"] == "yes"
    assert goal("1 x 10M", results, threads=2)["reached"] == "not measured"


def test_a_goal_without_a_side_that_it_needs():
    assert goal("1 x 10M", made_up(entry(LARGE, dragon_optim=4)))["reached"] == "not measured"


def test_a_section_shows_bytes_and_their_speed():
    (table,) = overview.sections(made_up(entry(LARGE, limit=4, dragon_optim=5)))
    row = dict(zip(table.header, table.rows[0]))
    assert (row["milliseconds"], row["MB"], row["GB/s"]) == ("1 x 10M, plain", "200", "40.0")
    assert (row["of limit"], row["dragon_optim"]) == ("0.80", "5.00 +- 0.250")
    assert "stock" not in row


def test_labels_tell_what_is_unusual():
    results = made_up(entry(Case("clip_norm", "1 x 1K", "momentum", "float16", 1), limit=1, dragon_optim=1))
    assert results.measured[0].label == "clip_norm, 1 x 1K, momentum, float16, 1 thread"


def test_what_is_missing_is_said_with_its_reason():
    cases = [entry(case, {"stock": "on holiday"}, dragon_optim=1) for case in (LARGE, step("1 x 1M"))]
    results = made_up(*cases, missing={"torch": "no Python"})
    reasons = ["torch: no Python", "stock: on holiday (1 x 10M, plain; 1 x 1M, momentum)"]
    assert overview.missing(results) == reasons
    assert "\n".join(["Not measured", "", *reasons]) in overview.everything(results)


def test_a_disturbed_case_is_marked():
    alone, disturbed = (
        entry(case, None, cpus, limit=1, dragon_optim=1)
        for case, cpus in ((LARGE, 0.04), (step("1 x 10M"), 0.75))
    )
    results = made_up(alone, disturbed)
    (table,) = overview.sections(results)
    assert [row[0] for row in table.rows] == ["1 x 10M, plain", "1 x 10M, momentum (!)"]
    assert [row[0] for row in overview.selected(results).rows][1] == "the same, momentum (!)"
    assert "(!): other programs" in results.surroundings()
    assert "other programs" not in made_up(alone).surroundings()


def test_a_case_that_was_not_measured_at_all_is_a_row_of_dashes():
    (table,) = overview.sections(
        made_up(entry(LARGE, dragon_optim=1), entry(step("1 x 30M"), {"all": "much"}))
    )
    assert set(table.rows[1][2:]) == {"-"}


def test_between_markers():
    assert report.between("a\nB\nold\nE\nz", "B", "E", "new") == "a\nB\n\nnew\n\nE\nz"
    with pytest.raises(ValueError, match="'E' must stand there once, not 2 times"):
        report.between("B\nE\nE", "B", "E", "new")


def test_files_are_stale_until_they_are_written(elsewhere):
    pytest.importorskip("matplotlib")
    cases = {case.name: case for case in [*single(), *tiny()]}
    times = dict(limit=1, dragon_optim=2, stock=3, torch_foreach=4)
    results = made_up(*(entry(case, **times) for case in cases.values()))
    plots = [f"plots/{name}.svg" for name in ("time_by_elements", "time_by_tensors")]
    assert report.stale(results) == ["README.md", "speed.rst", "cost.rst", *plots]
    report.write(results)
    assert report.stale(results) == []
    for plot in plots:
        text = (elsewhere / plot).read_text()
        assert ElementTree.fromstring(text).tag.endswith("svg")
        for label in ("stock Dragon", "PyTorch foreach", "dragon_optim", "limit"):
            assert label in text
        assert "torch.compile" not in text
    assert "an abacus" in (elsewhere / "README.md").read_text()
    changed = made_up(*(entry(case, **dict(times, dragon_optim=1.5)) for case in cases.values()))
    changed.content["date"] = "2020-03-01T12:00:00+00:00"
    assert report.stale(changed) == ["README.md", "speed.rst", "cost.rst", *plots]


def test_plots_are_the_same_bytes_each_time(tmp_path):
    plots = pytest.importorskip("benchmarks.plots")
    results = made_up(entry(LARGE, limit=1, dragon_optim=2))
    first, second = (plots.draw(results, tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_what_stands_in_the_sources_is_from_the_results_that_are_kept():
    """Where none are kept, nothing may stand there."""
    assert report.stale(report.kept()) == []


def test_nothing_is_shown_without_results(elsewhere):
    pytest.importorskip("matplotlib")
    report.write(made_up(*(entry(case, limit=1, dragon_optim=2) for case in [*single(), *tiny()])))
    assert len(report.stale(None)) == 5
    for path in report.STATIC.iterdir():
        path.unlink()
    for path, make in (
        (report.README, report.readme),
        (report.PAGE, report.page),
        (report.COST, report.cost_page),
    ):
        path.write_text(make(None))
        assert "an abacus" not in path.read_text()
    assert report.stale(None) == []


def test_keeping_the_results_of_a_run(elsewhere, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(report, "KEPT", elsewhere / "results" / "cpu.json")
    run = elsewhere / "run.json"
    run.write_text(
        as_json(made_up(*(entry(case, limit=1, dragon_optim=2) for case in [*single(), *tiny()])).content)
    )

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["report", *map(str, arguments)])
        report.main()

    for arguments, complaint in (
        ([], "results/cpu.json is not there"),
        (["--keep", run], None),
        (["--check"], None),
    ):
        if complaint is None:
            call(*arguments)
        else:
            with pytest.raises(SystemExit, match=complaint):
                call(*arguments)
    report.README.write_text(report.README.read_text().replace("an abacus", "a computer"))
    with pytest.raises(SystemExit, match=r"not from results/cpu.json: README.md"):
        call("--check")


def test_a_name_that_ends_in_an_underscore_is_no_reference():
    rst = Table("of", ["case"], [["clip_grad_norm_, 1 x 10M"], ["grad_"]]).as_rst()
    assert "clip_grad_norm\\_, 1 x 10M" in rst
    assert rst.endswith("grad\\_")
