# SPDX-License-Identifier: BSD-2-Clause
"""A loss scale with the operators for CUDA, beside the CPU's: test_on_emulated_cuda.py runs it."""

from __future__ import annotations

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from tests.operators import emulated
from tests.operators.emulated_clipping import gradients_of
from tests.operators.emulated_steps import CPU, CUDA, DTYPES, SECOND, Training, assert_same

PLACES = ([CUDA] * 3, [SECOND] * 3, [CUDA, CPU, SECOND])
LOSS = torch.tensor(1.0)


def scaler_of(scale=1000.0):
    """A scaler that has scaled a loss: on the CPU, for this Dragon knows of no CUDA."""
    scaler = dragon_optim.GradScaler("cpu", init_scale=scale, growth_factor=1.7, growth_interval=2)
    scaler.scale(LOSS)
    return scaler


def spoil(training: Training, number: int) -> None:
    """An infinity in one of the gradients, each time in another one."""
    param = training.params[number % len(training.params)]
    values = np.ones(param.shape, param.dtype)
    values.flat[-1] = np.inf
    emulated.give_gradient(param, values)


def trained(places, dtypes, unscale) -> list:
    training, scaler = Training(places, dtypes, momentum=0.9, grad_scale=0.5), scaler_of()
    skipped = []
    for number in range(6):
        training.give_gradients()
        if number in (1, 3, 5):
            spoil(training, number)
        if unscale:
            scaler.unscale_(training.optimizer)
        scaler.step(training.optimizer)
        skipped.append(scaler.step_was_skipped(training.optimizer))
        scaler.update()
    assert skipped == [False, True] * 3
    return [*training.arrays(), *gradients_of(training), np.array(scaler.get_scale())]


def same_bits() -> None:
    """Also where the parameters are on several devices."""
    for dtypes in DTYPES:
        for unscale in (False, True)[: 1 if "float16" in dtypes else 2]:
            host = trained([CPU] * 3, dtypes, unscale)
            for places in PLACES:
                emulated.launches()
                assert_same(trained(places, dtypes, unscale), host)
                assert emulated.launches() > 0


def one_flag_is_waited_for() -> None:
    """Once warm, four bytes for each dtype come back, and the rest of a step takes nothing."""
    training, scaler = Training([CUDA] * 3), scaler_of()  # of float32 and float64
    for warm in (False, True):
        training.give_gradients()
        emulated.counts()
        scaler.step(training.optimizer)
        scaler.update()
        if warm:
            assert emulated.counts() == emulated.Counts(0, 2, 2, 8)


def launches_that_are_refused() -> None:
    """Before anything has changed, and the scaler goes on."""
    training, scaler = Training([CUDA] * 3), scaler_of()
    training.give_gradients()
    before = gradients_of(training)
    for good in range(2):  # the two that look for infinities
        with emulated.FailingLaunches(good), pytest.raises(RuntimeError, match="CUDA error at the"):
            scaler.unscale_(training.optimizer)
        assert_same(gradients_of(training), before)
    scaler.unscale_(training.optimizer)
    scaler.step(training.optimizer)
    assert not scaler.step_was_skipped(training.optimizer)


def no_memory() -> None:
    """For gradients that have to come to the device, and for the flag."""
    training, scaler = Training([CPU] * 3), scaler_of()
    training.give_gradients()
    before = gradients_of(training)
    training.move([CUDA] * 3)
    for free_bytes in (0, 50):
        with emulated.OutOfMemory(free_bytes), pytest.raises(MemoryError):
            scaler.step(training.optimizer)
    assert_same(gradients_of(training), before)
    scaler.step(training.optimizer)


if __name__ == "__main__":
    same_bits()
    one_flag_is_waited_for()
    launches_that_are_refused()
    no_memory()
    print("all the same")
