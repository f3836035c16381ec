# SPDX-License-Identifier: BSD-2-Clause
"""`RMSpropTF` gives the numbers of timm's class, recorded on real PyTorch, as far as their roundings agree.

timm rounds the running means in another order. That nothing else differs is shown in numpy: with the two
lines exchanged the exact recipe gives timm's bits. What Dragon computes is the recipe to the bit, and within
the limit of the error units of what timm gave.
"""

from __future__ import annotations

import collections
import itertools

import numpy as np
import pytest

import dragon_optim
from tests import cases, error_units, exact, tf_cases
from tests.golden.recording import DTYPES, EARLY, Recording, crc, inputs_crc
from tests.optim.runs import INSTRUCTION_SETS, Run, using_instruction_set
from tests.optim.support import parameter
from tests.tf_cases import TF_CASES, TF_RECIPES

RECORDINGS = {dtype: Recording(dtype, "rmsprop_tf") for dtype in DTYPES}

by_case = pytest.mark.parametrize("case", TF_CASES, ids=str)
by_dtype = pytest.mark.parametrize("dtype", DTYPES)


class TFRun(Run):
    """A case on its way through `RMSpropTF`, in timm's arguments."""

    optimizer_class = dragon_optim.RMSpropTF
    arguments = staticmethod(tf_cases.timm_arguments)


def exact_snapshots(case, dtype):
    for followers in cases.play(case, dtype, exact.Stepped):
        yield [follower.snapshot() for follower in followers]


def assert_within_the_limit(case, dtype, entries):
    for run in ("native", "ieee"):
        expected = RECORDINGS[dtype].snapshot(case, run)
        assert error_units.largest(case, dtype, entries, expected) <= error_units.LIMIT, run


# --- the recordings, without Dragon ---------------------------------------------------------------


@by_dtype
def test_recordings_belong_to_the_cases(dtype):
    recording = RECORDINGS[dtype]
    assert set(recording.meta["cases"]) == {case.name for case in TF_CASES}
    stale = [case.name for case in TF_CASES if recording.inputs_crc(case) != inputs_crc(case, dtype)]
    assert not stale, "recorded with other inputs; record again (golden/README.md)"


@by_dtype
@by_case
def test_timm_is_the_recipe_with_other_running_means(case, dtype, monkeypatch):
    monkeypatch.setattr(exact, "mean_square", lambda v, g, alpha, w: exact.fma(w, g * g - v, v))
    monkeypatch.setattr(exact, "lerp", lambda mean, g, w: exact.fma(w, g - mean, mean))
    for step, entries in enumerate(exact_snapshots(case, dtype)):
        wrong = [i for i, entry in enumerate(entries) if crc(entry) != RECORDINGS[dtype].crcs(case)[step, i]]
        assert not wrong, f"step {step}: parameters {wrong} differ from timm's"


@by_dtype
def test_the_limit_tells_the_forms_apart(dtype):
    """Each thing that makes the form, left out, is a mistake that the comparison finds."""
    (case,) = [case for case in TF_CASES if case.name == "everything"]
    for mistake in ({"eps_inside_sqrt": False}, {"initial_square_avg": 0.0}, {"lr_in_momentum": False}):
        wrong = cases.Case(case.name, dict(case.options, **mistake), case.second_group, case.schedule)
        *_, entries = exact_snapshots(wrong, dtype)
        native = RECORDINGS[dtype].snapshot(case, "native")
        assert error_units.largest(case, dtype, entries, native) > error_units.LIMIT, mistake


# --- on Dragon ------------------------------------------------------------------------------------


@by_dtype
@by_case
@pytest.mark.parametrize("foreach", [None, False])
def test_the_bits_of_the_recipe_and_the_numbers_of_timm(case, dtype, foreach):
    for step, (entries, expected) in enumerate(
        zip(TFRun(case, dtype, foreach=foreach).steps(), exact_snapshots(case, dtype))
    ):
        exact.assert_same_bits(entries, expected, f"step {step}")
    assert_within_the_limit(case, dtype, entries)


@by_dtype
@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("case", TF_RECIPES, ids=str)
def test_recipes_on_each_instruction_set(case, isa, dtype):
    with using_instruction_set(isa):
        *_, expected = exact_snapshots(case, dtype)
        exact.assert_same_bits(TFRun(case, dtype).last(), expected, "last step")


# --- timm's state dicts ---------------------------------------------------------------------------


def timm_state_dict(case, dtype) -> dict:
    """What timm's `state_dict()` gave after EARLY steps."""
    recording = RECORDINGS[dtype]
    state = {}
    for number, entry in enumerate(recording.snapshot(case, "early")):
        if entry["step"]:
            tensors = {name: np.array(each) for name, each in entry.items() if name not in ("step", "param")}
            state[number] = dict(tensors, step=np.float32(entry["step"]))  # a 0-d tensor there
    return {"state": state, "param_groups": recording.meta["cases"][case.name]["early_groups"]}


@by_dtype
@by_case
def test_goes_on_with_what_timm_began(case, dtype):
    run = TFRun(case, dtype)
    run.params = [parameter(entry["param"], dtype) for entry in RECORDINGS[dtype].snapshot(case, "early")]
    places = [places for _, places in case.groups()]
    groups = [{"params": [run.params[i] for i in each]} for each in places]
    run.optimizer = dragon_optim.RMSpropTF(groups, lr=0.5, alpha=0.5, eps=0.5)
    run.optimizer.load_state_dict(timm_state_dict(case, dtype))
    *_, entries = run.steps(EARLY)
    assert_within_the_limit(case, dtype, entries)


@by_case
def test_timm_can_go_on_with_ours(case):
    """Its step reads these keys of a group; the last three it fills in itself."""
    run = TFRun(case, "float32")
    recorded = RECORDINGS["float32"].meta["cases"][case.name]
    collections.deque(itertools.islice(run.steps(), EARLY), maxlen=0)
    saved = run.optimizer.state_dict()
    for ours, theirs in zip(saved["param_groups"], recorded["early_groups"]):
        expected = {
            key: value
            for key, value in theirs.items()
            if key not in ("corrected_weight_decay", "caution", "max_lr_snapshot")
        }
        assert {key: ours[key] for key in expected} == expected
    layout = {
        number: [entry["step"], ["param", *(name for name in entry if name != "step")]]
        for number, entry in saved["state"].items()
    }
    assert layout == {number: each for number, each in enumerate(recorded["early"]) if each[0]}
