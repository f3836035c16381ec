# SPDX-License-Identifier: BSD-2-Clause
"""Every recorded training with PyTorch's gradient scaler, on Dragon: the same bits, scales and decisions."""

from __future__ import annotations

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from tests import exact
from tests.golden import scaling
from tests.golden.recording import DTYPES
from tests.optim.runs import STATES
from tests.optim.support import feed_gradient, parameter, values

by_name = pytest.mark.parametrize("name", scaling.CASES)
by_dtype = pytest.mark.parametrize("dtype", DTYPES)


class Dragon:
    """Dragon's side of a case."""

    def __init__(self, scaler=None, **arguments):
        self.arguments = arguments
        self.scaler = scaler or dragon_optim.GradScaler

    clip = staticmethod(dragon_optim.clip_grad_norm_)
    values = staticmethod(values)

    def optimizer(self, params, **options):
        return dragon_optim.RMSprop(params, **options, **self.arguments)

    @staticmethod
    def skipped(scaler, optimizer):
        return scaler.step_was_skipped(optimizer)

    @staticmethod
    def parameter(array):
        return parameter(array, array.dtype)

    @staticmethod
    def tensor(array):
        return torch.tensor(array, dtype=str(array.dtype))

    @staticmethod
    def give(params, grads):
        for param, grad in zip(params, grads):
            if grad is not None:
                feed_gradient(param, grad)
            elif param.grad is not None:
                param.grad._impl.Reset()

    @staticmethod
    def snapshot(optimizer, params):
        entries = []
        for param in params:
            state = optimizer.state.get(param, {})
            entry = {name: values(state[name]) for name in STATES if name in state}
            entries.append(dict(entry, param=values(param), step=state.get("step", 0)))
        return entries


@pytest.fixture(scope="module")
def recorded():
    return scaling.Recorded()


def assert_as_recorded(training, recorded, name, dtype):
    about = recorded.about(name, dtype)
    for key, found in training.found.items():
        assert found == about[key], key
    assert [list(each) for each in training.found["state_dicts"]] == [list(d) for d in about["state_dicts"]]
    kinds = [[type(value) for value in each.values()] for each in training.found["state_dicts"]]
    assert kinds == [[type(value) for value in each.values()] for each in about["state_dicts"]]
    arrays = training.arrays()
    outputs = recorded.array(name, dtype, "outputs")
    assert arrays["outputs"].dtype == outputs.dtype
    assert np.array_equal(exact.bits(arrays["outputs"]), exact.bits(outputs))
    wrong = np.argwhere(arrays["crcs"] != recorded.array(name, dtype, "crcs"))
    assert not wrong.size, f"(iteration, parameter) that leave PyTorch's trajectory: {wrong.tolist()}"
    exact.assert_same_bits(training.snapshots[-1], recorded.last(name, dtype), "last iteration")


def test_the_recording_is_of_these_cases(recorded):
    found = {
        f"{dtype}/{name}": scaling.inputs_crc(scaling.CASES[name], dtype)
        for name in scaling.CASES
        for dtype in DTYPES
    }
    assert {name: about["inputs"] for name, about in recorded.meta["cases"].items()} == found, "record again"


@by_dtype
@by_name
def test_trajectory(name, dtype, recorded):
    assert_as_recorded(scaling.run(scaling.CASES[name], dtype, Dragon()), recorded, name, dtype)


@by_dtype
@by_name
def test_with_an_operator_for_each_parameter(name, dtype, recorded):
    training = scaling.run(scaling.CASES[name], dtype, Dragon(foreach=False))
    assert_as_recorded(training, recorded, name, dtype)


@by_name
def test_each_iteration_resumed_from_pytorchs_state_dict(name, recorded):
    """Where the case itself sets what a state dict does not hold, it is no longer the same training."""
    before = repr(recorded.about(name, "float32")["state_dicts"])
    dicts = recorded.about(name, "float32")["state_dicts"]
    training = scaling.run(scaling.CASES[name], "float32", Dragon(), dicts)
    assert_as_recorded(training, recorded, name, "float32")
    assert repr(dicts) == before  # what was given is not written to


def test_the_recording_tells_mistakes_apart(recorded):
    """Both kinds of steps and of scales are in it, and last bits that another rounding would not give."""
    skips = [each for about in recorded.meta["cases"].values() for row in about["skipped"] for each in row]
    assert {-1, 0, 1} == set(skips)
    about = recorded.about("last-bits", "float32")
    scales = np.array(about["scales"])
    assert np.array_equal(scales, scales.astype("float32"))
    assert np.count_nonzero(np.float32(0.3) * scales.astype("float32") != (0.3 * scales).astype("float32"))
