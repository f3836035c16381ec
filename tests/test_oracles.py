# SPDX-License-Identifier: BSD-2-Clause
"""The oracles are right: compared with PyTorch's recordings, the C library, and each other; only numpy."""

from __future__ import annotations

import ctypes
import ctypes.util
import math
from fractions import Fraction

import numpy as np
import pytest

from tests import cases, error_units, exact, oracle
from tests.golden.recording import DTYPES, EARLY, Recording, crc, describe, inputs_crc

RECORDED = cases.TORCH_CASES + cases.TORCH_EDGE_CASES
FORMS = cases.FORM_CASES + cases.FORM_EDGE_CASES

by_recorded_case = pytest.mark.parametrize("case", RECORDED, ids=str)
by_dtype = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(scope="module", params=DTYPES)
def recording(request):
    return Recording(request.param)


def snapshot(followers) -> list:
    return [follower.snapshot() for follower in followers]


# --- against PyTorch ------------------------------------------------------------------------------


def test_recordings_belong_to_the_cases(recording):
    assert set(recording.meta["cases"]) == {case.name for case in RECORDED}
    stale = [
        case.name for case in RECORDED if recording.inputs_crc(case) != inputs_crc(case, recording.dtype)
    ]
    assert not stale, "recorded with other inputs; record again (golden/README.md)"


@by_recorded_case
def test_exact_is_pytorch_with_correct_square_roots(case, recording):
    for step, followers in enumerate(cases.play(case, recording.dtype, exact.Stepped)):
        entries = snapshot(followers)
        if step + 1 == EARLY:
            exact.assert_same_bits(entries, recording.snapshot(case, "early"), f"step {step}")
        wrong = [i for i, entry in enumerate(entries) if crc(entry) != recording.crcs(case)[step, i]]
        assert not wrong, f"step {step}: parameters {wrong} differ from PyTorch's"
    exact.assert_same_bits(entries, recording.snapshot(case, "ieee"), "last step")


@by_recorded_case
def test_pytorch_itself_is_within_the_limit(case, recording):
    """Its own square root makes it differ from the exact recipe, by less than everyone is allowed."""
    native, ieee = recording.snapshot(case, "native"), recording.snapshot(case, "ieee")
    assert describe(native) == describe(ieee)
    assert error_units.largest(case, recording.dtype, native, ieee) <= error_units.LIMIT


class RoundedAlpha(exact.Stepped):
    """The smallest of the known mistakes: alpha goes through float32 before 1 - alpha is computed."""

    def advance(self, grad, **options):
        super().advance(grad, **dict(options, alpha=float(np.float32(options.get("alpha", 0.99)))))


class IgnoresMaximize(exact.Stepped):
    def advance(self, grad, **options):
        super().advance(grad, **dict(options, maximize=False))


class EpsInside(exact.Stepped):
    def advance(self, grad, **options):
        super().advance(grad, **dict(options, eps_inside_sqrt=True))


@pytest.mark.parametrize(
    ("mistake", "name"), [(RoundedAlpha, "plain"), (IgnoresMaximize, "maximize"), (EpsInside, "eps-1")]
)
def test_the_limit_tells_mistakes_from_roundings(mistake, name, recording):
    (case,) = [case for case in RECORDED if case.name == name]
    *_, followers = cases.play(case, recording.dtype, mistake)
    assert (
        error_units.largest(case, recording.dtype, snapshot(followers), recording.snapshot(case, "native"))
        > error_units.LIMIT
    )


# --- the oracles against each other ---------------------------------------------------------------


@by_dtype
@pytest.mark.parametrize("case", cases.TORCH_CASES + cases.FORM_CASES, ids=str)
def test_exact_agrees_with_the_textbook(case, dtype):
    *_, rounded = cases.play(case, dtype, exact.Stepped)
    *_, textbook = cases.play(case, dtype, oracle.Trajectory)
    expected = [
        {name: array for name, array in theirs.items() if name in ours}
        for ours, theirs in zip(snapshot(rounded), snapshot(textbook))
    ]
    assert error_units.largest(case, dtype, snapshot(rounded), expected) <= error_units.LIMIT


def test_half_precision_keeps_float32_weights_behind_the_parameter():
    param, state = exact.step({"lr": 1e-4}, np.ones(2, "float16"), np.array([1, 1e-4], "float16"), {})
    assert param.dtype == np.float16
    assert {array.dtype.name for array in state.values()} == {"float32"}
    # The first step has length lr / sqrt(1 - alpha) whatever the gradient is, which half precision near 1
    # cannot hold.
    np.testing.assert_allclose(state["master_param"], 1 - 1e-3, rtol=1e-5)
    assert (param == state["master_param"].astype("float16")).all()


def test_an_overwritten_half_precision_parameter_renews_its_master():
    options = {"lr": 1e-4}
    param, state = exact.step(options, np.ones(2, "float16"), np.ones(2, "float16"), {})
    kept = state["master_param"][1]
    param[0] = 5
    _, state = exact.step(dict(options, lr=0.0), param, np.ones(2, "float16"), state)
    assert state["master_param"].tolist() == [5.0, kept]


# --- the parts ------------------------------------------------------------------------------------


def _hard_values(dtype, count, rng):
    """Any bit pattern, ordinary numbers, and the constants at the ends of the range."""
    unsigned = f"u{np.dtype(dtype).itemsize}"
    patterns = np.frombuffer(rng.bytes(count * np.dtype(dtype).itemsize), dtype=unsigned).view(dtype)
    ordinary = (rng.standard_normal(count) * 2.0 ** rng.integers(-40, 40, count)).astype(dtype)
    info = np.finfo(dtype)
    ends = np.array(
        [0.0, -0.0, 1, -1, info.max, -info.max, info.tiny, info.tiny * info.eps, np.inf, -np.inf, np.nan],
        dtype,
    )
    return np.choose(rng.choice(3, count, p=[0.3, 0.6, 0.1]), [patterns, ordinary, rng.choice(ends, count)])


@by_dtype
def test_fma_is_the_c_librarys(dtype):
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    function, c_type = (libm.fmaf, ctypes.c_float) if dtype == "float32" else (libm.fma, ctypes.c_double)
    function.restype, function.argtypes = c_type, [c_type] * 3
    rng = np.random.default_rng(6)
    count = 60_000
    a, b, c = (_hard_values(dtype, count, rng) for _ in range(3))
    with np.errstate(all="ignore"):
        product = a * b
        kind = rng.random(count)
        # Sums that cancel down to the rounding error of the product, and sums near a tie.
        c = np.where(
            kind < 0.4, -product * (1 + rng.integers(-3, 4, count) * np.finfo(dtype).eps).astype(dtype), c
        )
        c = np.where(kind > 0.8, product * (2.0 ** rng.integers(-60, 60, count)).astype(dtype), c)
    expected = np.array([function(*values) for values in zip(a.tolist(), b.tolist(), c.tolist())], dtype)
    wrong = np.flatnonzero(exact.bits(exact.fma(a, b, c)) != exact.bits(expected))
    assert not wrong.size, f"{wrong.size} of {count}, such as fma{tuple(x[wrong[0]] for x in (a, b, c))}"


@pytest.mark.parametrize("size", [0, 1, 9, 4095, 4096, 8205])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_squared_norm_sums_in_the_defined_order(size, dtype):
    """Against the definition, element by element."""
    grad = (np.random.default_rng(size).standard_normal(size) * 7).astype(dtype)
    total = 0.0
    for start in range(0, size, 4096):
        sums = [0.0] * 8
        for i, value in enumerate(grad[start : start + 4096].astype("float64")):
            sums[i % 8] = float(Fraction(value) * Fraction(value) + Fraction(sums[i % 8]))
        total += ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]))
    assert exact.squared_norm(grad) == total
    assert math.isclose(total, math.fsum(x * x for x in grad.tolist()), rel_tol=1e-14, abs_tol=0.0)


def test_squared_norm_rounds_the_scaled_gradient():
    grad = np.array([1.1, 2.3], "float32")
    assert (
        exact.squared_norm(grad, 0.3)
        == exact.squared_norm(grad * np.float32(0.3))
        != 0.09 * exact.squared_norm(grad)
    )


def test_accumulate_sums_half_precision_in_float32():
    grad = np.array([1.0, 2048.0], "float16")
    total = exact.accumulate(np.array([1e-3, 1.0], "float16"), exact.accumulate(grad))
    assert total.dtype == np.float32
    assert total.tolist() == [1 + float(np.float16(1e-3)), 2049.0]


def test_names_of_cases_are_unique():
    names = [case.name for case in RECORDED + FORMS]
    assert len(names) == len(set(names))
