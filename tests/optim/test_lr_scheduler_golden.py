# SPDX-License-Identifier: BSD-2-Clause
"""Every recorded schedule of PyTorch: the same float64 bits, the same state dicts, resumed from PyTorch's."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from dragon_optim import lr_scheduler
from tests.golden import schedules
from tests.optim.schedulers import KINDS, STOCK, optimizer_of


@pytest.fixture(scope="module")
def recorded():
    return schedules.load()["cases"]


def same_dict(ours, theirs, name=""):
    """Equal, also in which keys there are and in the types of the numbers; every NaN counts as the same."""
    assert repr(schedules.encode(dict(sorted(ours.items())))) == repr(
        schedules.encode(dict(sorted(theirs.items())))
    ), name


def test_the_recording_is_of_these_cases(recorded):
    assert list(recorded) == list(schedules.CASES)


def test_every_class_is_recorded():
    made = set()
    for case in schedules.CASES.values():
        scheduler = case.make(lr_scheduler, optimizer_of(case))
        made |= {type(scheduler).__name__}
    assert made | {"LRScheduler", "_LRScheduler"} == set(lr_scheduler.__all__)


@pytest.mark.parametrize("name", schedules.CASES)
@pytest.mark.parametrize("kinds", [KINDS, STOCK], ids=["ours", "stock"])
def test_trajectory(name, kinds, recorded):
    found = schedules.run(schedules.CASES[name], functools.partial(optimizer_of, kinds=kinds), lr_scheduler)
    np.testing.assert_array_equal(found["lr"], recorded[name]["lr"])
    np.testing.assert_array_equal(found["momentum"], recorded[name]["momentum"])
    same_dict(found["middle"]["state"], recorded[name]["middle"]["state"], "in the middle")
    same_dict(found["end"], recorded[name]["end"], "at the end")
    for ours, theirs in zip(found["middle"]["groups"], recorded[name]["middle"]["groups"]):
        same_dict({key: each for key, each in ours.items() if key != "beta1"}, theirs, "groups")


@pytest.mark.parametrize("name", schedules.CASES)
def test_resumed_from_the_middle_of_pytorchs(name, recorded):
    case, middle = schedules.CASES[name], recorded[name]["middle"]
    before = repr(middle)
    found = schedules.run(case, optimizer_of, lr_scheduler, start=middle)
    first = case.steps // 2
    np.testing.assert_array_equal(found["lr"], recorded[name]["lr"][first:])
    np.testing.assert_array_equal(found["momentum"][1:], recorded[name]["momentum"][first + 1 :])
    same_dict(found["end"], recorded[name]["end"])
    assert repr(middle) == before  # what was given is not written to
