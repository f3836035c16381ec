# SPDX-License-Identifier: BSD-2-Clause
"""A captured step does what the eager one does."""

from __future__ import annotations

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from tests.optim.captured_steps import F, Side, advance, batches, conv, mlp, mse, same, two_sides
from tests.optim.support import values

LEVELS = pytest.mark.parametrize("level", [1, 2, 3])


@LEVELS
def test_mlp_over_500_steps_with_a_schedule(level):
    sides = two_sides(mlp, mse, level, weight_decay=0.01)
    for epoch in range(20):
        advance(sides, batches(25, seed=epoch))
        for side in sides:
            side.optimizer.param_groups[0]["lr"] *= 0.9
    assert sides[0].run.graphs == 1
    assert sides[0].run.replays == 499


@LEVELS
def test_convolution_and_batch_norm_over_500_steps(level):
    sides = two_sides(conv, mse, level, lr=1e-3)
    data = list(batches(20, 4, shape=(3, 8, 8), targets=10))
    for _ in range(25):
        advance(sides, data, exact=False)
        for side in sides:
            side.optimizer.param_groups[0]["lr"] *= 0.9
    assert sides[0].run.replays == 499


def accumulate(side, x, y):
    for part in (0, 1):
        loss = F.mse_loss(side.model(x[part * 3 : part * 3 + 3]), y[part * 3 : part * 3 + 3])
        loss.backward()
        side.optimizer.sum_grad()
    side.optimizer.step()
    return loss


def zero_first(side, x, y):
    side.optimizer.zero_grad()
    return mse(side, x, y)


def none_first(side, x, y):
    side.optimizer.zero_grad(set_to_none=True)
    return mse(side, x, y)


def none_last(side, x, y):
    loss = mse(side, x, y)
    side.optimizer.zero_grad(set_to_none=True)
    return loss


def dropped_sums(side, x, y):
    F.mse_loss(side.model(x), y).backward()
    side.optimizer.sum_grad()
    side.optimizer.zero_grad(drop_sums=True)
    return mse(side, x, y)


def two_steps(side, x, y):
    return mse(side, x, y), mse(side, x * 0.5, y)


def closure(side, x, y):
    def loss():
        loss = F.mse_loss(side.model(x), y)
        loss.backward()
        return loss

    return side.optimizer.step(loss)


def in_place(side, x, y):
    x *= 2.0
    with torch.no_grad():
        for param in side.model.parameters():
            param *= 0.999
    return mse(side, x, y)


def by_hand(side, x, y):
    F.mse_loss(side.model(x), y).backward()
    with torch.no_grad():
        for param in side.model.parameters():
            param -= param.grad * 0.01


def returns_much(side, x, y):
    hidden = side.model(x)
    squared = hidden * hidden
    positive = F.relu(hidden)
    loss = F.mse_loss(hidden, y)
    loss.backward()
    side.optimizer.step()
    return [hidden, squared, positive, x, side.model[0].bias, loss, loss]


def chunks(side, x, y):
    first, _ = torch.chunk(side.model(x), 2, dim=1)
    loss = F.mse_loss(first, y[:, :2])
    loss.backward()
    side.optimizer.step()
    return loss


def two_backwards(side, x, y):
    F.mse_loss(side.model(x), y).backward()
    return mse(side, x, y)


def weighted(side, x, y):
    out = side.model(x)
    out.backward(out - y)
    side.optimizer.step()


def twice_used(side, x, y):
    loss = F.mse_loss(side.model(x) + side.model(x * 2.0) + side.model(x + x), y)
    loss.backward()
    side.optimizer.step()
    return loss


STEPS = [
    mse, accumulate, zero_first, none_first, none_last, dropped_sums, two_steps, closure, in_place, by_hand,
    returns_much, chunks, two_backwards, weighted, twice_used,
]  # fmt: skip


@LEVELS
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_steps(step, level):
    sides = two_sides(mlp, step, level)
    for inputs in batches(8):
        before = [values(each) for each in inputs]
        same(sides[0].run(*inputs), sides[1].run(*(each + 0.0 for each in inputs)))
        same([values(each) for each in inputs], before)
        same(*sides)
    assert sides[0].run.graphs in (1, 2)  # zero_grad() does nothing before the first gradient
    assert sides[0].run.replays >= 6


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_alternating_with_eager_steps(step):
    sides = two_sides(mlp, step)
    for number, inputs in enumerate(batches(16)):
        run = sides[0].run if number % 3 else sides[0].eager
        expected = sides[1].run(*(each + 0.0 for each in inputs))
        same(run(*(each + 0.0 for each in inputs)), expected)
        same(*sides)
    assert sides[0].run.replays >= 4


@LEVELS
def test_nothing_around_is_overwritten(level):
    """Operators in place must not write to what they only read, nor to other tensors."""
    outside = torch.tensor(np.linspace(-1, 1, 4), dtype="float64")

    def step(side, x, y):
        positive = F.relu(outside) + F.relu(x[:, :4]) + F.relu(y)
        return positive, mse(side, F.relu(x), F.relu(y))

    sides = two_sides(mlp, step, level)
    kept = []
    for inputs in batches(8):
        scratch = [each * 3.0 + 1.0 for each in inputs]
        copies = [values(each) for each in (outside, *scratch, *inputs)]
        result = sides[0].run(*inputs)
        kept.append((result, [values(each) for each in result]))
        same(result, sides[1].run(*inputs))
        same([values(each) for each in (outside, *scratch, *inputs)], copies)
    for result, copies in kept:
        same([values(each) for each in result], copies)


@LEVELS
def test_what_is_written_once_and_read_once_keeps_its_value(level):
    """Dragon computes in place where a tensor of the graph is read once."""
    weight, kept = torch.nn.Parameter(torch.ones(4)), torch.zeros(4)

    @dragon_optim.graph.capture(optimization=level)
    def step(x):
        (F.relu(weight) * x).sum().backward()
        with torch.no_grad():
            moved = F.relu(weight.grad) * 2.0
            weight.add_(moved)
        kept.copy_(x)
        return F.relu(kept) + 1.0

    for number in range(4):
        out = step(torch.ones(4) * (number + 1.0))
        assert values(out)[0] == number + 2
        assert values(kept)[0] == values(weight.grad)[0] == number + 1
    assert values(weight)[0] == 1 + 2 * (1 + 2 + 3 + 4)


def test_dropout_draws_new_masks_and_trains():
    captured = Side(conv(dtype="float32", drop=0.5), lambda side, x: side.model(x), {})
    x = torch.ones(2, 3, 8, 8)
    seen = {values(captured.run(x)).tobytes() for _ in range(6)}
    assert len(seen) >= 5  # the operator of the graph may repeat the first mask once
    captured.model.eval()
    seen = {values(captured.run(x)).tobytes() for _ in range(3)}
    assert len(seen) == 1
    same(captured.run(x), captured.model(x), exact=False)


def test_dropout_with_backward_and_eager_work_in_between():
    """The gradient must use the mask of its own replay."""
    layer = torch.nn.Dropout(0.5)
    weight = torch.nn.Parameter(torch.ones(1000))

    @dragon_optim.graph.capture
    def step(x):
        out = layer(weight * x)
        out.sum().backward()
        return out, weight.grad

    for _ in range(6):
        (layer(weight) * 1.0).sum().backward()
        out, grad = (values(each) for each in step(torch.ones(1000)))
        np.testing.assert_array_equal(out, grad)
        assert 300 < (out == 0).sum() < 700


def test_two_optimizers_that_freeze_each_other():
    def sides():
        found = []
        for captured in (True, False):
            maker, judge = mlp(0), mlp(1, width=12)
            judge_in = torch.nn.Linear(4, 8)
            judge_in.double()
            for param in judge_in.parameters():
                param._impl.FromNumpy(np.full(tuple(param.shape), 0.1), True)
            first = dragon_optim.RMSprop(maker.parameters(), lr=0.01)
            second = dragon_optim.RMSprop(
                [*judge.parameters(), *judge_in.parameters()], lr=0.02, momentum=0.5
            )

            def step(x, y, maker=maker, judge=judge, judge_in=judge_in, first=first, second=second):
                made = maker(x)
                loss = F.mse_loss(judge(judge_in(made.detach())), y)
                loss.backward()
                second.step()
                for param in judge.parameters():
                    param.requires_grad = False
                other = F.mse_loss(judge(judge_in(made)), y * 2.0)
                other.backward()
                first.step()
                for param in judge.parameters():
                    param.requires_grad = True
                return loss, other

            run = dragon_optim.graph.capture(step) if captured else step
            found.append((run, [*maker.parameters(), *judge.parameters(), *judge_in.parameters()]))
        return found

    (captured, one), (eager, other) = sides()
    for inputs in batches(12):
        same(captured(*inputs), eager(*inputs))
        same([values(each) for each in one], [values(each) for each in other])
        same([values(each.grad) for each in one], [values(each.grad) for each in other])
    assert captured.replays >= 8


@pytest.mark.parametrize("kind", ["RMSprop", "SGD"])
def test_stock_optimizers(kind):
    runs = []
    for captured in (True, False):
        model = mlp()
        optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.01)

        def step(x, y, model=model, optimizer=optimizer):
            loss = F.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        runs.append((dragon_optim.graph.capture(step) if captured else step, optimizer))
    for number, inputs in enumerate(batches(12)):
        for _, optimizer in runs:
            optimizer.param_groups[0]["lr"] = 0.01 / (1 + number // 4)
        same(runs[0][0](*inputs), runs[1][0](*inputs))
    assert runs[0][0].replays == 11


def test_buffers_that_are_kept_by_copy():
    kept = torch.zeros(4)

    @dragon_optim.graph.capture
    def step(x):
        kept.copy_(kept * 0.5 + x)
        return kept

    for _ in range(5):
        step(torch.ones(4))
    assert values(kept)[0] == 1.9375
