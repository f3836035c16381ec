# SPDX-License-Identifier: BSD-2-Clause
"""`capture` as a decorator of a method."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim.graph import capture
from tests.optim.support import parameter, values


class Trainer:
    """A model of one weight, and its optimizer."""

    def __init__(self, lr=0.1):
        self.weight = parameter([1.0, 2.0])
        self.optimizer = dragon_optim.RMSprop([self.weight], lr=lr, momentum=0.9)

    def eager_step(self, x):
        """Train."""
        loss = (self.weight * x).sum()
        loss.backward()
        self.optimizer.step()
        return loss

    step = capture(eager_step)


def test_each_object_has_a_captured_function_of_its_own():
    first, second = Trainer(), Trainer(lr=0.5)
    eager = [Trainer(), Trainer(lr=0.5)]
    for number in range(5):
        x = torch.ones(2) * float(number)
        for one, other in zip((first, second), eager):
            np.testing.assert_array_equal(values(one.step(x)), values(other.eager_step(x)))
            np.testing.assert_array_equal(values(one.weight), values(other.weight))
    assert (first.step.graphs, first.step.replays, second.step.replays) == (1, 4, 4)
    assert Trainer.step.graphs == 0
    assert (first.step.__name__, first.step.__doc__, first.step.__self__) == ("eager_step", "Train.", first)


def test_a_subclass_calls_the_method_of_its_base():
    class Scaled(Trainer):
        @capture
        def step(self, x):
            return Trainer.eager_step(self, x * 2.0)

        def base_step(self, x):
            return super().step(x)

    trainer, x = Scaled(), torch.ones(2)
    assert float(trainer.step(x)) == 6.0
    expected = values(trainer.weight).sum()
    assert float(trainer.base_step(x)) == float(expected)
    assert trainer.step.graphs == 1


def test_a_method_in_hand_keeps_its_object_and_nothing_else_does():
    trainer = Trainer()
    alive, step = weakref.ref(trainer), trainer.step
    del trainer
    gc.collect()
    assert float(step(torch.ones(2))) == 3.0
    float(step(torch.ones(2)))
    assert step.replays == 1
    graph = weakref.ref(next(iter(step._captured._graphs.values())))
    del step
    gc.collect()
    assert alive() is None
    assert graph() is None


def test_an_object_without_weak_references():
    class Slotted:
        __slots__ = ("weight",)
        step = capture(lambda self: self.weight)

    with pytest.raises(TypeError, match=r"is a method of .*Slotted, .* add '__weakref__' to its __slots__"):
        Slotted().step()
