# SPDX-License-Identifier: BSD-2-Clause
"""Global clipping with the operators for CUDA, beside the CPU's: test_on_emulated_cuda.py runs it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim._dragon import graphs, names, replay, workspace
from tests.operators import edges, emulated
from tests.operators.emulated_steps import CPU, CUDA, DTYPES, SECOND, Training, assert_same, captured_calls

ORDERS = (2.0, 1.0, 0.0, math.inf, -math.inf)


def gradients_of(training: Training) -> list:
    """The gradients; read by name, since what is read through ``.grad`` counts as a copy of Dragon's."""
    home = workspace.current()
    return [np.array(home.get_tensor(names.gradient_name(each)).ToNumpy()) for each in training.params]


def clipped(places, dtypes, clip) -> list:
    training = Training(places, dtypes)
    training.give_gradients()
    result = clip(training.params)
    return [*gradients_of(training), *([] if result is None else [result.numpy().copy()])]


def same_bits() -> None:
    """Of norms, of gradients; for all together and one by one."""
    calls = [
        lambda params, order=order, max_norm=max_norm, foreach=foreach: dragon_optim.clip_grad_norm_(
            params, max_norm, order, foreach=foreach
        )
        for order in ORDERS
        for max_norm in (0.3, 1e9)
        for foreach in (None, False)
    ]
    calls += [
        lambda params: dragon_optim.clip_grad_norm_(params, 0.1, error_if_nonfinite=True),
        lambda params: dragon_optim.clip_grad_value_(params, 0.25),
        lambda params: dragon_optim.clip_grad_value_(params, 0.25, foreach=False),
        lambda params: dragon_optim.clip_grads_with_norm_(params, 0.5, 7.0),
        lambda params: dragon_optim.get_total_norm([param.grad for param in params]),
        lambda params: dragon_optim.clip_grad_norm_(params[0], 0.1),
    ]
    for number, call in enumerate(calls):
        for dtypes in DTYPES:
            host = clipped([CPU] * 3, dtypes, call)
            emulated.launches()
            for place in (CUDA, SECOND):
                assert_same(clipped([place] * 3, dtypes, call), host)
            assert emulated.launches() > 0, number


def a_norm_that_is_given() -> None:
    """As a tensor on the device, at once and again, beside the CPU's own norm."""
    results = []
    for place in (CPU, CUDA):
        training = Training([place] * 3)
        for _ in range(2):
            training.give_gradients()
            norm = dragon_optim.get_total_norm([param.grad for param in training.params])
            assert str(norm.device) == "{}:{}".format(*place)
            emulated.counts()
            dragon_optim.clip_grads_with_norm_(training.params, 0.5, norm)
            dragon_optim.clip_grads_with_norm_(training.params, 0.5, norm, foreach=False)
            assert emulated.counts() == emulated.NOTHING
        results.append(gradients_of(training))
    assert_same(results[1], results[0])


def nothing_is_waited_for() -> None:
    """Once warm nothing is allocated, copied or filled; a norm that must be finite is read back."""
    training = Training([CUDA] * 3)
    training.give_gradients()
    grads = [names.gradient_name(param) for param in training.params]
    limit, norm = edges.Edge(np.array([0.3])), edges.Edge()

    def operators(error_if_nonfinite):
        make, place = graphs.operator, torch.device("cuda", 0)
        options = dict(order="2.0", error_if_nonfinite=error_if_nonfinite)
        return [
            make("DragonOptimTotalNorm", grads, [norm.name], place, **options),
            make("DragonOptimClipNorm", [limit.name, norm.name, *grads], grads, place, only_check=1),
            make("DragonOptimClipNorm", [limit.name, norm.name, *grads], grads, place),
            make("DragonOptimClipValue", [limit.name, *grads], grads, place),
        ]

    for error_if_nonfinite, expected in ((0, emulated.NOTHING), (1, emulated.Counts(0, 1, 0, 8))):
        made = graphs.Graph(workspace.current(), operators(error_if_nonfinite))
        for warm in (False, True):
            emulated.counts()
            emulated.launches()
            made.run()
            assert emulated.launches() > 0
            if warm:
                assert emulated.counts() == expected, error_if_nonfinite


def calls_wait_for_nothing(monkeypatch) -> None:
    """The whole calls, but for Dragon's copy of the norm for the user, which goes by the host here."""
    monkeypatch.setattr(replay, "overwrite", lambda target, source: None)
    training = Training([CUDA] * 3)
    for warm in (False, True):
        training.give_gradients()
        emulated.counts()
        dragon_optim.clip_grad_norm_(training.params, 0.3)
        dragon_optim.clip_grad_value_(training.params, 0.3)
        dragon_optim.clip_grads_with_norm_(training.params, 0.3, 5.0)
        if warm:
            assert emulated.counts() == emulated.NOTHING


def sums_of_gradients() -> None:
    """While a round is open, they are clipped."""
    results = []
    for place in (CPU, CUDA):
        training = Training([place] * 3, momentum=0.9)
        for param in training.params:
            (param * 3).sum().backward()
        training.optimizer.sum_grad()
        norm = dragon_optim.clip_grad_norm_(training.params, 0.5)
        training.optimizer.step()
        results.append([*training.arrays(), norm.numpy().copy()])
    assert_same(results[1], results[0])


def a_captured_function() -> None:
    """It holds clipping, and follows the model to the device."""

    def clip_and_step(weight, optimizer, loss):
        norm = dragon_optim.clip_grad_norm_([weight], 0.5)
        dragon_optim.clip_grads_with_norm_([weight], 0.25, norm)
        dragon_optim.clip_grad_value_([weight], 0.1)
        optimizer.step()
        return norm

    results = []
    for place in (CPU, CUDA):
        for weight, norm in captured_calls(place, clip_and_step):
            assert norm.device.type == weight.device.type
        results.append([weight.numpy().copy(), norm.numpy().copy()])
    assert_same(results[1], results[0])


def what_is_refused() -> None:
    """And nothing is changed by it."""
    mixed, training = Training([CUDA, CPU, CUDA]), Training([CUDA] * 3)
    mixed.give_gradients()
    training.give_gradients()
    before = [gradients_of(each) for each in (mixed, training)]
    for name in ("clip_grad_norm_", "clip_grad_value_"):
        message = rf"parameter 0 is on cuda:0 and parameter 1 on cpu:0, but {name}\(\) takes tensors of one"
        with pytest.raises(NotImplementedError, match=message):
            getattr(dragon_optim, name)(mixed.params, 0.1)
    for order in (3.0, 0.5, -1.0):
        message = rf"Invalid norm_type: {order}, but on cuda:0 \w+\(\) has 2, 1, 0, inf and -inf only"
        with pytest.raises(NotImplementedError, match=message):
            dragon_optim.clip_grad_norm_(training.params, 0.1, order)
        with pytest.raises(NotImplementedError, match=message):
            dragon_optim.get_total_norm(training.params, order)
        operator = graphs.operator(
            "DragonOptimTotalNorm", [], [edges.Edge().name], torch.device("cuda", 0), order=repr(order)
        )
        with pytest.raises(ValueError, match=r"Invalid order of a norm on a GPU: .* \(need 2, 1, 0, inf or"):
            graphs.run_once(workspace.current(), [operator])
    for norm in (torch.tensor([1.0, 2.0]), torch.tensor([1, 2])):
        with pytest.raises(ValueError, match="the total norm is .* must be a tensor of one float"):
            dragon_optim.clip_grads_with_norm_(training.params, 0.1, norm.cuda())
    assert_same([*gradients_of(mixed), *gradients_of(training)], [*before[0], *before[1]])


def no_memory() -> None:
    """For gradients that have to come to the device, and for the blocks of norms."""
    for clip in (dragon_optim.clip_grad_norm_, dragon_optim.clip_grad_value_):
        training = Training([CPU] * 3)
        training.give_gradients()
        before = gradients_of(training)
        training.move([CUDA] * 3)
        for free_bytes in (0, 50):
            with emulated.OutOfMemory(free_bytes), pytest.raises(MemoryError):
                clip(training.params, 0.1)
        assert_same(gradients_of(training), before)
        clip(training.params, 0.1)


def launches_that_are_refused() -> None:
    training = Training([CUDA] * 3)
    training.give_gradients()
    before = gradients_of(training)
    for good in range(4):
        with emulated.FailingLaunches(good), pytest.raises(RuntimeError, match="CUDA error at the"):
            dragon_optim.clip_grad_norm_(training.params, 0.1)
        assert_same(gradients_of(training), before)


if __name__ == "__main__":
    same_bits()
    a_norm_that_is_given()
    nothing_is_waited_for()
    with pytest.MonkeyPatch.context() as patch:
        calls_wait_for_nothing(patch)
    sums_of_gradients()
    a_captured_function()
    what_is_refused()
    no_memory()
    launches_that_are_refused()
    print("all the same")
