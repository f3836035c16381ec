# SPDX-License-Identifier: BSD-2-Clause
"""What else a captured step may hold, and where two of them meet."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest
from dragon.core.framework import workspace
from dragon.vm import torch

import dragon_optim
from dragon_optim.graph import NotCapturableError, capture
from tests.optim.captured_steps import F, Side, batches, mlp, mse, same, two_sides
from tests.optim.support import feed_gradient, parameter, values


def test_random_tensors_are_drawn_anew():
    captured = capture(lambda: (torch.rand(64), torch.randn(64)))
    seen = {values(each).tobytes() for _ in range(6) for each in captured()}
    assert len(seen) >= 10  # the first replay may repeat those of the recording
    assert captured.replays == 5


def test_tensors_that_are_made_inside():
    @capture
    def function(x):
        made = torch.empty(2, 3)
        made.fill_(2.0)
        return (
            made * x
            + torch.ones(2, 3)
            + torch.arange(3, dtype="float32")
            + torch.full((2, 3), 4, dtype="float32")
        )

    for number in range(4):
        found = values(function(torch.ones(2, 3) * float(number)))
        np.testing.assert_array_equal(found, [[2 * number + 5, 2 * number + 6, 2 * number + 7]] * 2)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_several_targets_and_retained_gradients(level):
    def step(side, x, y):
        hidden = side.model[0](x)
        hidden.retain_grad()
        out = F.relu(hidden)
        first, second = F.mse_loss(out[:, :4], y), F.mse_loss(out[:, 4:8], y)
        torch.autograd.backward([first, second])
        side.optimizer.step()
        return hidden.grad, first

    sides = two_sides(mlp, step, level)
    for inputs in batches(6):
        same(sides[0].run(*inputs), sides[1].run(*inputs))
        same(*sides)
    assert sides[0].run.replays == 5


def test_a_learning_rate_that_is_a_tensor():
    rates = [torch.tensor(0.01, dtype="float32") for _ in range(2)]
    sides = two_sides(mlp, mse)
    for side, rate in zip(sides, rates):
        side.optimizer.param_groups[0]["lr"] = rate
    for inputs in batches(8):
        same(sides[0].run(*inputs), sides[1].run(*inputs))
        same(*sides)
        for rate in rates:
            rate.mul_(0.5)
    assert sides[0].run.replays == 7


def test_a_learning_rate_that_the_function_computes():
    def step(side, x, y):
        loss = mse(side, x, y)
        side.optimizer.param_groups[0]["lr"].mul_(0.5)
        return loss

    sides = two_sides(mlp, step)
    for side in sides:
        side.optimizer.param_groups[0]["lr"] = torch.tensor(0.01, dtype="float32")
    for number, inputs in enumerate(batches(4)):
        if number == 0:
            with pytest.warns(UserWarning, match="it changes hyper-parameters"):
                result = sides[0].run(*inputs)
        else:
            result = sides[0].run(*inputs)
        same(result, sides[1].run(*inputs))
        same(*sides)
    assert sides[0].run.replays == 0


def test_asking_for_a_gradient_before_there_is_one():
    def step(side, x, y):
        for param in side.model.parameters():
            if param.grad is not None:
                param.grad.mul_(0.5)
        F.mse_loss(side.model[0](x)[:, :4], y).backward()
        side.optimizer.step()

    sides = two_sides(mlp, step)
    for number, inputs in enumerate(batches(8)):
        for side in sides:
            if number == 3:
                F.mse_loss(side.model(inputs[0]), inputs[1]).backward()
            if number == 6:
                side.optimizer.zero_grad(set_to_none=True)
        sides[0].run(*inputs), sides[1].run(*inputs)
        same(*sides)


def test_clipping_by_hand():
    def step(side, x, y):
        loss = F.mse_loss(side.model(x), y)
        loss.backward()
        total = None
        for param in side.model.parameters():
            square = (param.grad * param.grad).sum()
            total = square if total is None else total + square
        for param in side.model.parameters():
            param.grad.mul_(0.1 / (total.sqrt() + 1e-6))
        side.optimizer.step()
        return loss, total

    sides = two_sides(mlp, step)
    for inputs in batches(8):
        same(sides[0].run(*inputs), sides[1].run(*inputs), exact=False)
    assert sides[0].run.replays == 7


def test_an_operator_that_throws_in_a_replay():
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = dragon_optim.RMSprop([param], lr=0.1)

    @capture
    def step(x):
        optimizer.step()
        return x * 2.0

    feed_gradient(param, np.ones(3, "float32"))
    for _ in range(3):
        step(torch.ones(1))
    before = values(param)
    feed_gradient(param, np.ones((2, 2), "float32"))
    with pytest.raises(ValueError, match="the gradient of parameter 0"):
        step(torch.ones(1))
    same(values(param), before)
    feed_gradient(param, np.ones(3, "float32"))
    assert values(step(torch.ones(1)))[0] == 2.0
    assert step.replays == 3
    assert optimizer.state[param]["step"] == 4


def test_two_captures_of_one_optimizer():
    def other(side, x, y):
        loss = F.mse_loss(side.model(x) * 0.5, y)
        loss.backward()
        side.optimizer.sum_grad()
        side.optimizer.step()
        return loss

    sides = two_sides(mlp, mse)
    second = Side.__new__(Side)
    second.__dict__.update(sides[0].__dict__)
    second.run = capture(lambda *inputs: other(sides[0], *inputs))
    for number, inputs in enumerate(batches(16)):
        if number % 3 == 1:
            same(second.run(*inputs), other(sides[1], *inputs))
        else:
            same(sides[0].run(*inputs), sides[1].run(*inputs))
        same(*sides)
    assert second.run.replays >= 3
    assert sides[0].run.replays >= 8


def test_a_captured_closure():
    sides = two_sides(mlp, mse)

    def evaluate(side, x, y):
        loss = F.mse_loss(side.model(x), y)
        loss.backward()
        return loss

    captured = capture(lambda x, y: evaluate(sides[0], x, y))
    for x, y in batches(8):
        one = sides[0].optimizer.step(lambda x=x, y=y: captured(x, y))
        same(one, sides[1].optimizer.step(lambda x=x, y=y: evaluate(sides[1], x, y)))
        same(*sides)
    assert captured.replays == 7


def test_stock_optimizers_that_sum_or_take_gradients_away():
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    optimizers = [torch.optim.SGD([param], lr=0.1, momentum=0.9) for param in params]

    def summing(number, x):
        for factor in (1.0, 2.0):
            (params[number] * params[number] * x * factor).sum().backward()
            optimizers[number].sum_grad()
        optimizers[number].step()

    def taking(number, x):
        (params[number] * x).sum().backward()
        optimizers[number].step()
        optimizers[number].zero_grad(set_to_none=True)

    captured = capture(lambda x: summing(0, x))
    for _ in range(5):
        captured(torch.ones(3))
        summing(1, torch.ones(3))
        same(values(params[0]), values(params[1]))
    assert captured.replays == 4
    captured = capture(lambda x: taking(0, x))
    for number in range(3):
        if number == 0:
            with pytest.warns(UserWarning, match="set_to_none"):
                captured(torch.ones(3))
        else:
            captured(torch.ones(3))
        taking(1, torch.ones(3))
        same(values(params[0]), values(params[1]))
        assert params[0].grad is None
    assert captured.replays == 0


def test_no_grad_around_the_call():
    model = mlp()
    captured = capture(lambda x: model(x))
    ((x, _),) = batches(1)
    for _ in range(3):
        same(captured(x), model(x))
        with torch.no_grad():
            same(captured(x), model(x))
    assert captured.replays == 4


def test_another_workspace_has_its_own():
    ws = workspace.Workspace()
    with ws.as_default():
        sides = two_sides(mlp, mse)
        for inputs in batches(5):
            same(sides[0].run(*inputs), sides[1].run(*inputs))
    outer = two_sides(mlp, mse)
    for inputs in batches(5):
        same(outer[0].run(*inputs), outer[1].run(*inputs))
    with ws.as_default():
        for inputs in batches(5):
            same(sides[0].run(*inputs), sides[1].run(*inputs))
        same(*sides)
        del sides


def test_threads_that_record_at_once():
    """Each in its own workspace: what is put in the place of Dragon's methods is shared by all threads."""
    barrier, failures = threading.Barrier(2), []

    def work(seed):
        try:
            for _ in range(5):
                sides = two_sides(
                    lambda: mlp(seed), lambda side, x, y: (barrier.wait(10), mse(side, x, y))[1]
                )
                sides[1].run = lambda *inputs, side=sides[1]: mse(side, *inputs)
                for number, inputs in enumerate(batches(4)):
                    if number:
                        float(inputs[0].sum())
                    same(sides[0].run(*inputs), sides[1].run(*inputs))
                same(*sides)
                assert sides[0].run.replays == 3
        except BaseException as error:
            failures.append(error)
            barrier.abort()

    before = [dict(vars(each)) for each in (torch.Tensor, torch.nn.Module)]
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [dict(vars(each)) for each in (torch.Tensor, torch.nn.Module)] == before


def test_a_process_group_makes_it_eager(monkeypatch):
    from dragon_optim._dragon import collective

    param = torch.nn.Parameter(torch.ones(3))

    @capture
    def step(x):
        (param * x).sum().backward()
        return x

    step(torch.ones(3))
    monkeypatch.setattr(collective, "group", lambda: object())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step(torch.ones(3))
        step(torch.ones(3))
    assert ["process group" in str(each.message) for each in caught] == [True]
    assert step.replays == 0


def test_a_differentiable_step_is_not_captured():
    """It moves the parameters to new tensors. Switched on later, the calls stay eager."""
    for switched_on_later in (False, True):
        weight = parameter(np.ones(2))
        optimizer = dragon_optim.RMSprop([weight], lr=0.5, differentiable=not switched_on_later)

        @capture
        def step(x, weight=weight, optimizer=optimizer):
            (weight * x).sum().backward()
            optimizer.step()

        x = torch.tensor(np.ones(2, "float32"))
        if switched_on_later:
            step(x)
            step(x)
            optimizer.param_groups[0]["differentiable"] = True
            with pytest.warns(UserWarning, match="differentiable"):
                step(x)
            assert optimizer.state[weight]["step"] == 3
        else:
            with pytest.raises(NotCapturableError, match="differentiable=True"):
                step(x)
            assert values(weight).tolist() == [1.0, 1.0]
            assert dict(optimizer.state) == {}
