# SPDX-License-Identifier: BSD-2-Clause
"""A recorded step makes new tensors each time; yet nothing grows over many unrolls."""

from __future__ import annotations

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim._dragon import names
from tests.optim.memory import MEGABYTE, growth
from tests.optim.support import parameter
from tests.optim.unrolled import tensor

pytestmark = [
    pytest.mark.usefixtures("ws"),
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
]

INNER_STEPS = 3


class Learner:
    """A linear model, some inner steps of it, and the hypergradient of its learning rate."""

    def __init__(self, size=3, ends_by="backward"):
        self.layer = torch.nn.Linear(size, 1)
        self.rate = tensor(1e-4, dtype="float32")
        self.x = torch.tensor(np.random.RandomState(0).randn(8, size).astype("float32"))
        self.ends_by = ends_by
        self.optimizer = self.make()

    def make(self):
        return dragon_optim.RMSprop(
            self.layer.parameters(), lr=self.rate, momentum=0.5, centered=True, differentiable=True
        )

    def loss(self):
        y = self.layer(self.x)
        return (y * y).sum()

    def closure(self):
        loss = self.loss()
        loss.backward()
        return loss

    def unroll(self, _):
        for _ in range(INNER_STEPS):
            self.step()
        if self.ends_by == "backward":
            self.loss().backward()
        else:
            self.optimizer.detach_()

    def step(self):
        self.optimizer.step(self.closure)


class GivenGradients(Learner):
    """With gradients that are expressions."""

    def __init__(self, **options):
        super().__init__(**options)
        self.columns = torch.tensor(np.ascontiguousarray(np.array(self.x.numpy()).T))

    def step(self):
        weight = self.layer.weight
        y = torch.mm(weight, self.columns) * 2.0
        self.optimizer.step(gradients={weight: torch.mm(y, self.x)})


class Summed(Learner):
    """With sums of two micro-batches."""

    def step(self):
        self.optimizer.zero_grad()
        for _ in range(2):
            with self.optimizer.as_leaves():
                self.closure()
            self.optimizer.sum_grad()
        self.optimizer.step()


class NewOptimizers(Learner):
    """With an optimizer of its own for each unroll."""

    def unroll(self, number):
        self.optimizer = self.make()
        super().unroll(number)


class NotRecorded(Learner):
    """Under no_grad, where nothing is recorded."""

    def step(self):
        with self.optimizer.as_leaves():
            self.closure()
        with torch.no_grad():
            self.optimizer.step()


LEARNERS = [Learner, GivenGradients, Summed, NewOptimizers, NotRecorded]


# Of each of Dragon's own operators that no backward pass ever reaches, as those of the gradients given to
# steps that are then forgotten, Dragon keeps the name, and of some half a kilobyte of memory.
ENDS = [(kind, "backward") for kind in LEARNERS]
ENDS += [(kind, "detach_") for kind in LEARNERS if kind is not GivenGradients]


@pytest.mark.parametrize(("kind", "ends_by"), ENDS, ids=lambda each: getattr(each, "__name__", each))
def test_a_thousand_unrolls(ws, kind, ends_by):
    learner = kind(ends_by=ends_by)
    found = growth(ws, learner.unroll, first=100, then=1000, collect=True)
    assert found.after == found.before
    assert found.resident < MEGABYTE
    assert len(names._retired.get(ws, names._RetiredNames())._names) < 10


@pytest.mark.parametrize("kind", LEARNERS, ids=lambda kind: kind.__name__)
def test_memory_comes_back_without_the_collector(ws, no_collector, kind):
    """What an unroll of a large model holds is given back when it is over."""
    learner = kind(size=1 << 16)
    learner.unroll(0)
    learner.unroll(1)
    before = ws.memory_allocated()
    for number in range(20):
        learner.unroll(number)
    assert ws.memory_allocated() - before < MEGABYTE // 8  # half of one weight


def test_a_parameter_that_is_still_read_keeps_its_numbers(ws):
    """An alias of what a parameter was is not overwritten, nor does reading it end the process."""
    weight = parameter([1.0, 2.0])
    optimizer = dragon_optim.RMSprop([weight], lr=0.5, differentiable=True)
    aliases, gradients = [], []
    for _ in range(3):
        with optimizer.as_leaves():
            (weight * 3.0).sum().backward()
        aliases.append((weight.detach(), np.array(weight.numpy())))
        gradients.append(weight.grad)
        optimizer.step()
    weight.sum().backward()
    del optimizer
    others = [torch.zeros(2) for _ in range(50)]
    assert len(others) == 50
    for alias, numbers in aliases[1:]:
        assert alias.numpy().tolist() == numbers.tolist()
    for gradient in gradients[1:]:
        assert gradient.numpy().tolist() == [3.0, 3.0]


def test_a_new_parameter_does_not_inherit_the_gradient_of_a_version(ws):
    weight = parameter([1.0])
    optimizer = dragon_optim.RMSprop([weight], differentiable=True)
    names_seen = set()
    for _ in range(5):
        with optimizer.as_leaves():
            (weight * 3.0).sum().backward()
        names_seen.add(weight.id)
        optimizer.step()
        assert weight.grad is None
    optimizer.detach_()
    del optimizer
    fresh = []
    for _ in range(20):
        made = weight * 1.0
        made._tape = None
        fresh.append(made)
    assert all(each.grad is None for each in fresh)
    assert not names_seen & {each.id for each in fresh}
