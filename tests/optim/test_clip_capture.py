# SPDX-License-Identifier: BSD-2-Clause
"""Global clipping inside of a captured function: recorded, and replayed with the right values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from tests.optim.captured_steps import batches, mlp
from tests.optim.support import backward, feed_gradient, fresh_workspace, parameter, values

NORM, VALUE = dragon_optim.clip_grad_norm_, dragon_optim.clip_grad_value_
CAPTURE = dragon_optim.graph.capture


def two_halves(params):
    norm = dragon_optim.get_total_norm([param.grad for param in params])
    dragon_optim.clip_grads_with_norm_(params, 0.02, norm)
    return norm


CLIPS = {
    "norm": lambda params: NORM(params, 0.02),
    "largest": lambda params: NORM(params, 0.001, "inf"),
    "norm, one by one": lambda params: NORM(params, 0.02, foreach=False),
    "value": lambda params: VALUE(params, 0.002),
    "two halves": two_halves,
}


class Training:
    """A model that is trained with clipping; all bits of it."""

    def __init__(self, make, clip, sums=1, level=0):
        self.model = mlp()
        self.params = list(self.model.parameters())
        self.optimizer = make(self.params)
        self.clip, self.sums = clip, sums
        self.run = CAPTURE(self.step, optimization=level) if level else self.step

    def step(self, x, y):
        for number in range(self.sums):
            loss = torch.nn.functional.mse_loss(self.model(x * (1 + number)), y)
            loss.backward()
            if self.sums > 1:
                self.optimizer.sum_grad()
        norm = self.clip(self.params)
        self.optimizer.step()
        return loss if norm is None else norm

    def train(self, steps=8):
        results = [values(self.run(x, y)).tolist() for x, y in batches(steps)]
        return results, [values(param).tolist() for param in self.params]


MAKERS = {
    "ours": lambda params: dragon_optim.RMSprop(params, lr=0.01, momentum=0.5),
    "stock": lambda params: torch.optim.RMSprop(params, lr=0.01, momentum=0.5),
}


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("make", MAKERS)
def test_a_replay_does_what_the_function_does(make, clip, level):
    eager = Training(MAKERS[make], CLIPS[clip])
    captured = Training(MAKERS[make], CLIPS[clip], level=level)
    assert captured.train() == eager.train()
    assert captured.run.replays == 7


def test_clipping_matters_in_these_trainings():
    plain = Training(MAKERS["ours"], lambda params: None).train()[1]
    for clip in CLIPS.values():
        assert Training(MAKERS["ours"], clip).train()[1] != plain


@pytest.mark.parametrize("level", [1, 3])
@pytest.mark.parametrize("clip", ["norm", "value"])
@pytest.mark.parametrize("make", MAKERS)
def test_sums_in_a_replay(make, clip, level):
    eager = Training(MAKERS[make], CLIPS[clip], sums=3)
    captured = Training(MAKERS[make], CLIPS[clip], sums=3, level=level)
    assert captured.train() == eager.train()
    assert captured.run.replays == 7


def test_two_limits_in_one_function():
    """Each call has its own, also where an eager call comes in between."""
    first, second = parameter([0.0]), parameter([0.0])

    @CAPTURE
    def run(x):
        ((first * 3.0 + second * 4.0) * x).sum().backward()
        return NORM([first], 1.0), NORM([second], 2.0)

    one = torch.ones(1)
    for _ in range(3):
        assert [float(each) for each in run(one)] == [3, 4]
        assert [float(each.grad) for each in (first, second)] == pytest.approx([1, 2], rel=1e-5)
        NORM([first], 0.5)
        assert [float(each.grad) for each in (first, second)] == pytest.approx([0.5, 2], rel=1e-5)
    assert run.replays == 2


def test_norms_that_are_returned_are_copies():
    param = parameter([0.0])

    @CAPTURE
    def run(x):
        (param * x).sum().backward()
        return NORM([param], math.inf)

    kept = [run(torch.tensor([float(number)], dtype="float32")) for number in (1, 2, 3)]
    assert [float(each) for each in kept] == [1, 2, 3]


def test_an_error_in_a_replay():
    """Nothing after the norm has run, and the next call works."""
    param = parameter([1.0])
    optimizer = dragon_optim.RMSprop([param], lr=0.1)

    @CAPTURE
    def run(x):
        (param * x).sum().backward()
        NORM([param], 1.0, error_if_nonfinite=True)
        optimizer.step()

    run(torch.tensor([3.0], dtype="float32"))
    run(torch.tensor([3.0], dtype="float32"))
    before = values(param), optimizer.state[param]["step"]
    with pytest.raises(RuntimeError, match="non-finite"):
        run(torch.tensor([math.inf], dtype="float32"))
    assert (values(param), optimizer.state[param]["step"]) == before
    run(torch.tensor([3.0], dtype="float32"))
    assert optimizer.state[param]["step"] == 3
    assert run.replays == 2  # the one that failed does not count


def test_gradients_that_come_and_go_are_recorded_anew():
    """One that is fed from outside; one that is hidden by requires_grad."""
    param, other = parameter([0.0]), parameter([0.0])

    @CAPTURE
    def run(x):
        (param * x).sum().backward()
        return NORM([param, other], math.inf)

    three = torch.tensor([3.0], dtype="float32")
    assert [float(run(three)) for _ in range(2)] == [3, 3]
    feed_gradient(other, np.float32([4]))
    assert [float(run(three)) for _ in range(2)] == [5, 5]
    other.requires_grad = False
    assert [float(run(three)) for _ in range(2)] == [3, 3]
    other.requires_grad = True
    assert float(run(three)) == 5


@pytest.mark.parametrize("make", MAKERS)
def test_a_round_that_is_opened_and_ended_outside(make):
    """What is clipped is decided at each call, though the optimizer does nothing inside."""
    param = parameter([0.0])
    optimizer = MAKERS[make]([param])

    @CAPTURE
    def run(x):
        VALUE([param], 1.0)
        return x + 1

    one = torch.ones(1)
    for _ in range(3):
        backward(param, 4.0)
        run(one)
        assert float(param.grad) == 1
        optimizer.sum_grad()
        backward(param, 8.0)
        optimizer.sum_grad()
        run(one)
        assert float(param.grad) == 8  # the sum was clipped
        optimizer.step()
        run(one)
        assert float(param.grad) == 1


def test_a_norm_of_another_workspace_is_refused():
    """Its name means another tensor here, or none, at which Dragon would end the process."""
    norms = [torch.ones(1)]
    with fresh_workspace():
        norms.append(torch.ones(1))
        param = parameter([0.0])

        def step(x):
            (param * x).sum().backward()
            dragon_optim.clip_grads_with_norm_([param], 0.5, norms[-1])

        CAPTURE(step)(torch.ones(1))
        assert float(param.grad) == pytest.approx(0.5, rel=1e-5)
        norms.pop()
        with pytest.raises(RuntimeError, match="total_norm 0 belongs to another Dragon workspace"):
            CAPTURE(step)(torch.ones(1))


def test_a_limit_that_is_a_tensor_is_refused():
    (param,) = [parameter([0.0])]

    @CAPTURE
    def run(x):
        (param * x).sum().backward()
        NORM([param], x)

    with pytest.raises(dragon_optim.graph.NotCapturableError, match="its value is not known"):
        run(torch.ones(1))
