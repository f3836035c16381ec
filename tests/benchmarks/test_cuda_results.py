# SPDX-License-Identifier: BSD-2-Clause
"""What is made of the results of a GPU: goals, tables, the site."""

import json

import pytest

from benchmarks import cuda_results, report
from benchmarks.cuda_results import COMPILED, COPY, FOR_LOOP, FOREACH, MANY, OURS
from benchmarks.summary import summary

LARGE = "1 x 64M, momentum"


def entry(name=LARGE, launches=1, absent=None, **medians):
    """A case, from microseconds of its sides."""
    names = {"ours": OURS, "copy": COPY, "foreach": FOREACH, "compiled": COMPILED, "for_loop": FOR_LOOP}
    samples = {
        names[side]: [1e-6 * median * factor for factor in (1, 0.9, 1.1)] for side, median in medians.items()
    }
    tensors, elements = (1000, 100_000) if name == MANY else (1, 1 << 26)
    return {
        "name": name,
        "tensors": tensors,
        "elements": elements,
        "bytes": 28 * elements,
        "launches": launches,
        "clocks": {"sm_mhz": 1980.0},
        "sides": {side: summary(values) for side, values in samples.items()},
        "absent": absent or {},
    }


def made_up(*cases):
    return {
        "kind": "cuda",
        "date": "2020-02-29T12:00:00+00:00",
        "commit": "0123456789abcdef+",
        "card": {"name": "an abacus", "driver": "580.10"},
        "versions": {"torch": "2.11.0"},
        "settings": {"quick": False, "rounds": 3},
        "cases": list(cases),
    }


CHECK = {
    **{name: made_up()[name] for name in ("date", "commit", "card", "versions")},
    "kind": "cuda check",
    "quick": False,
    "checks": {
        "forms": {"cases": 1944, "seconds": 3.5},
        "racing_streams": {"failed": "a bit", "seconds": 1.0},
        "beyond_32_bits": {"cases": 0, "seconds": 0.0},
    },
    "sanitizer": {"memcheck": "clean", "racecheck": "not finished in 80 s"},
}


def goals(case):
    return {row[1]: tuple(row[2:]) for row in cuda_results.goals(made_up(case)).rows}


@pytest.mark.parametrize(
    ("medians", "wanted", "said"),
    [
        (dict(ours=100, copy=90), ">= 0.9 of the copy's bandwidth", ("0.90", "yes")),
        (dict(ours=100, copy=89), ">= 0.9 of the copy's bandwidth", ("0.89", "no")),
        (dict(ours=100, foreach=300), ">= 3 x as fast as torch foreach", ("3.00", "yes")),
        (dict(ours=100, foreach=299), ">= 3 x as fast as torch foreach", ("2.99", "no")),
        (dict(ours=100, compiled=100), ">= 1 x as fast as torch.compile", ("1.00", "yes")),
        (dict(ours=100, compiled=99), ">= 1 x as fast as torch.compile", ("0.99", "no")),
        (dict(ours=100), ">= 1 x as fast as torch.compile", ("-", "not measured")),
        (dict(copy=100), ">= 0.9 of the copy's bandwidth", ("-", "not measured")),
    ],
)
def test_goals_of_a_large_tensor(medians, wanted, said):
    found = goals(entry(**medians))
    assert len(found) == 3
    assert found[wanted] == said


def test_below_the_size_of_the_caches_no_goal_asks_for_the_bandwidth():
    case = dict(entry("1 x 10M, momentum", ours=100, copy=50), elements=10_000_000)
    assert not any("bandwidth" in wanted for wanted in goals(case))
    assert len(goals(case)) == 2
    assert goals(dict(case, elements=999_999)) == {}


@pytest.mark.parametrize(
    ("launches", "for_loop", "said"),
    [(3, 2000, ("yes", "yes")), (4, 1999, ("no", "no")), (None, 2000, ("not measured", "yes"))],
)
def test_goals_of_many_tensors(launches, for_loop, said):
    found = goals(entry(MANY, launches, ours=100, for_loop=for_loop))
    assert tuple(verdict for _found, verdict in found.values()) == said


def test_the_times():
    table = cuda_results.times(made_up(entry(ours=1000, copy=900), entry(MANY, foreach=77)))
    first, second = (dict(zip(table.header, row)) for row in table.rows)
    assert (first["microseconds"], first["MB"], first["GB/s"]) == (LARGE, "1879", "1879")
    assert (first[OURS], first["of the copy"]) == ("1000", "0.90")
    assert (second[OURS], second["of the copy"], second["GB/s"], second[FOREACH]) == ("-", "-", "-", "77.0")


def test_what_is_missing_stands_at_the_end():
    case = entry(ours=1, absent={COMPILED: "no compiler"})
    text = cuda_results.as_text(made_up(case, dict(case, name="another")))
    assert f"Not measured\n\ntorch.compile: no compiler ({LARGE}; another)" in text
    assert "an abacus, driver 580.10; torch 2.11.0. Run on 2020-02-29 at commit 012345678+." in text
    assert "1980 to 1980 MHz" in text


def test_what_the_checks_found():
    table = cuda_results.checks(CHECK)
    assert table.title == "Against the CPU's kernels"
    assert table.rows == [
        ["forms", "1944", "the same bits"],
        ["racing streams", "-", "FAILED"],
        ["beyond 32 bits", "0", "left out"],
        ["compute-sanitizer memcheck", "-", "clean"],
        ["compute-sanitizer racecheck", "-", "not finished in 80 s"],
    ]
    assert cuda_results.checks(dict(CHECK, quick=True)).title.endswith(", a short selection")


def test_without_results_the_site_says_that_nothing_was_run():
    assert cuda_results.as_rst(None, None).count("so far") == 2
    assert cuda_results.as_rst(made_up(entry(ours=1)), None).count("so far") == 1
    assert "so far" not in cuda_results.as_rst(made_up(entry(ours=1)), CHECK)


@pytest.fixture
def nothing_kept(elsewhere, monkeypatch):
    """The same folder, with no results kept in it."""
    monkeypatch.setattr(report, "KEPT", elsewhere / "kept" / "cpu.json")
    kept = {kind: elsewhere / "kept" / path.name for kind, path in report.KEPT_OF_GPU.items()}
    monkeypatch.setattr(report, "KEPT_OF_GPU", kept)
    return elsewhere


def test_keeping_the_results_of_a_gpu(nothing_kept, monkeypatch):
    """Each goes to its place, and onto the page; those of the CPU need not be there."""
    pytest.importorskip("matplotlib")
    runs = ((made_up(entry(ours=1)), "cuda", "Goals on a GPU"), (CHECK, "cuda_check", "1944"))
    for content, name, shown in runs:
        run = nothing_kept / "run.json"
        run.write_text(json.dumps(content))
        monkeypatch.setattr("sys.argv", ["report", "--keep", str(run)])
        assert shown not in report.PAGE.read_text()
        report.main()
        assert json.loads((nothing_kept / "kept" / f"{name}.json").read_text()) == content
        assert shown in report.PAGE.read_text()
    monkeypatch.setattr("sys.argv", ["report", "--check"])
    report.main()
    (nothing_kept / "kept" / "cuda.json").unlink()
    with pytest.raises(SystemExit, match="speed.rst"):
        report.main()


def test_results_of_another_kind_are_not_kept(nothing_kept):
    (nothing_kept / "run.json").write_text(json.dumps(dict(CHECK, kind="weather")))
    with pytest.raises(ValueError, match="'weather'"):
        report.keep(nothing_kept / "run.json")
    assert not (nothing_kept / "kept").exists()


def test_results_in_the_wrong_place_are_refused(nothing_kept):
    (nothing_kept / "run.json").write_text(json.dumps(CHECK))
    with pytest.raises(ValueError, match="its kind is 'cuda check', not 'cuda'"):
        cuda_results.read(nothing_kept / "run.json", "cuda")
