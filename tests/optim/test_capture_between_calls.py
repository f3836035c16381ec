# SPDX-License-Identifier: BSD-2-Clause
"""Captured functions: what may change between two calls, and when that makes another graph."""

from __future__ import annotations

from dragon.vm import torch

import dragon_optim
from dragon_optim.graph import capture
from tests.optim.captured_steps import F, advance, batches, mlp, mse, same, two_sides
from tests.optim.support import values


def test_sums_outside_and_inside():
    def summing(side, x, y):
        F.mse_loss(side.model(x), y).backward()
        side.optimizer.sum_grad()

    def stepping(side):
        side.optimizer.step()

    sides = two_sides(mlp, summing)
    last = dragon_optim.graph.capture(lambda: stepping(sides[0]))
    for number, inputs in enumerate(batches(30)):
        run = sides[0].eager if number % 5 == 3 else sides[0].run
        run(*inputs)
        sides[1].run(*inputs)
        if number % 3 == 2:
            last() if number % 2 else stepping(sides[0])
            stepping(sides[1])
        same(*sides)
        assert sides[0].optimizer._engine.round_open == sides[1].optimizer._engine.round_open
    assert sides[0].run.replays > 15
    assert last.replays > 2


def test_an_open_round_is_taken_along():
    sides = two_sides(mlp, mse)
    for number, inputs in enumerate(batches(12)):
        if number % 3 == 2:
            for side in sides:
                F.mse_loss(side.model(inputs[0] * 2.0), inputs[1]).backward()
                side.optimizer.sum_grad()
        same(sides[0].run(*inputs), sides[1].run(*inputs))
        same(*sides)


def test_gradients_that_wait_for_sum_grad():
    def step(side, x, y):
        F.mse_loss(side.model[0](x).sum(), y.sum()).backward()  # only the first layer
        side.optimizer.sum_grad()
        side.optimizer.step()

    sides = two_sides(mlp, step)
    for number, inputs in enumerate(batches(10)):
        if number % 3 == 1:
            for side in sides:
                F.mse_loss(side.model(inputs[0]), inputs[1]).backward()
        sides[0].run(*inputs), sides[1].run(*inputs)
        same(*sides)


def test_changed_batch_sizes_share_a_graph():
    sides = two_sides(mlp, mse)
    for rows in [6, 3, 6, 1, 3, 9, 1, 6]:
        advance(sides, batches(1, rows, seed=rows))
    assert sides[0].run.graphs == 1
    assert sides[0].run.replays == 4


def test_a_batch_size_that_stands_in_the_function_makes_another_graph():
    def step(side, x, y):
        loss = ((side.model(x) - y) * (side.model(x) - y)).sum() / float(x.shape[0])
        loss.backward()
        side.optimizer.step()
        return x.reshape((x.shape[0] * 8,))  # not the loss: the last bit of a sum depends on addresses

    sides = two_sides(mlp, step)
    for rows in [6, 3, 6, 1, 3, 9, 1, 6]:
        advance(sides, batches(1, rows, seed=rows))
    assert sides[0].run.graphs == 4


def test_hyper_parameters_are_live():
    sides = two_sides(mlp, mse)
    changes = [("lr", 0.1), ("alpha", 0.5), ("eps", 1e-3), ("momentum", 0.1), ("weight_decay", 0.3),
               ("maximize", True), ("grad_scale", 0.5), ("clip_norm", 0.1), ("centered", False)]  # fmt: skip
    for key, value in changes:
        advance(sides, batches(2))
        for side in sides:
            side.optimizer.param_groups[0][key] = value
    advance(sides, batches(2))


def test_states_and_groups_may_change_between_calls():
    sides = two_sides(mlp, mse)
    advance(sides, batches(3))
    for side in sides:
        side.optimizer.state.clear()
    advance(sides, batches(3))
    for side in sides:
        side.optimizer.load_state_dict(side.optimizer.state_dict())
    advance(sides, batches(3))
    for side in sides:
        side.model[0].weight.requires_grad = False
    advance(sides, batches(3))
    for side in sides:
        side.model[0].weight.requires_grad = True
        side.optimizer.param_groups[0]["params"].pop()
    advance(sides, batches(3))
    assert sides[0].run.replays == 10


def test_a_parameter_added_later_is_trained():
    late = [torch.nn.Parameter(torch.ones(4)) for _ in range(2)]

    def step(side, x, y):
        loss = F.mse_loss(side.model(x), y) + (late[side.number] * late[side.number]).sum()
        loss.backward()
        side.optimizer.step()
        return loss

    sides = two_sides(lambda: mlp(dtype="float32"), step)
    for number, side in enumerate(sides):
        side.number = number
    advance(sides, batches(3, dtype="float32"), exact=False)
    for number, side in enumerate(sides):
        side.optimizer.add_param_group({"params": late[number], "lr": 0.1})
    advance(sides, batches(3, dtype="float32"), exact=False)
    assert values(late[0])[0] < 0.9
    same(values(late[0]), values(late[1]), exact=False)


def test_a_buffer_of_another_shape_is_recorded_anew():
    buffer = torch.ones(4)

    @capture
    def step(x):
        return x / float(buffer.shape[0]) + buffer.sum()

    assert [float(values(step(torch.ones(1)))[0]) for _ in range(2)] == [4.25, 4.25]
    buffer.copy_(torch.ones(2))
    assert [float(values(step(torch.ones(1)))[0]) for _ in range(2)] == [2.5, 2.5]
    assert step.replays == 2
