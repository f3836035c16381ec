# SPDX-License-Identifier: BSD-2-Clause
"""What a captured function follows of the Python around its operators, and where it stays eager instead."""

from __future__ import annotations

import copy
import warnings

import dragon
import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim.graph import NotCapturableError, capture
from tests.optim.support import parameter, values


def arrays(tensors):
    return [values(each).copy() for each in tensors]


def check(make, calls=6, between=None, warning=None):
    """Run ``step, watched = make()`` eagerly and captured; return the captured function.

    `watched` are the tensors to compare. `between(number, watched)` runs before each call.
    """
    found = []
    for wrap in (lambda step: step, capture):
        step, watched = make()
        step = wrap(step)
        history = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for number in range(calls):
                if between is not None:
                    between(number, watched)
                result = step(torch.ones(3) * float(number + 1))
                history += arrays([result, *watched])
        found.append(history)
    for eager, captured in zip(*found):
        np.testing.assert_array_equal(captured, eager)
    messages = [str(each.message) for each in caught]
    assert len(messages) == (warning is not None), messages
    if warning is not None:
        assert warning in messages[0]
    return step


def train(optimizer, weight, x):
    """One step of a loss whose gradient is x."""
    loss = (weight * x).sum()
    loss.backward()
    optimizer.step()
    return loss


KINDS = {
    "ours": lambda params, **kwargs: dragon_optim.RMSprop(params, **kwargs),
    "stock": lambda params, **kwargs: torch.optim.SGD(params, momentum=0.5, **kwargs),
}


@pytest.fixture(params=sorted(KINDS))
def kind(request):
    return KINDS[request.param]


def test_a_learning_rate_that_is_set_before_the_optimizer_is_used(kind):
    """Also where the first call sets the value that stood there."""

    def make():
        weight, calls = parameter([1.0, 2.0, 3.0]), []
        optimizer = kind([weight], lr=1.0)
        group = optimizer.param_groups[0]

        def step(x):
            group["lr"] = 0.5 ** len(calls)
            calls.append(None)
            return train(optimizer, weight, x)

        return step, [weight]

    captured = check(make, warning="it changes hyper-parameters")
    assert captured.replays == 0


def test_a_parameter_or_a_group_that_is_added_to_stock(kind):
    def make():
        first, second = parameter([1.0, 2.0, 3.0]), parameter([1.0, 1.0, 1.0])
        optimizer = kind([first], lr=0.1)
        first.optimizer = optimizer

        def step(x):
            loss = ((first + second) * x).sum()
            loss.backward()
            optimizer.step()
            return loss

        return step, [first, second]

    def between(number, watched):
        first, second = watched
        if number == 2:
            first.optimizer.add_param_group({"params": [second]})
        if number == 4:
            first.optimizer.param_groups[0] = dict(first.optimizer.param_groups[0], lr=0.0)

    assert check(make, calls=8, between=between).replays >= 4


def test_a_stock_group_that_never_has_a_gradient():
    def make():
        first, second = parameter([1.0, 2.0, 3.0]), parameter([1.0, 1.0, 1.0])
        optimizer = torch.optim.SGD([{"params": [first]}, {"params": [second]}], lr=0.1)
        return lambda x: train(optimizer, first, x), [first, second]

    assert check(make).replays == 5


def test_requires_grad_that_the_function_leaves_changed(kind):
    def make():
        first, second = parameter([1.0, 2.0, 3.0]), parameter([1.0, 1.0, 1.0])
        optimizer = kind([first, second], lr=0.1)

        def step(x):
            loss = ((first + second) * x).sum()
            loss.backward()
            optimizer.step()
            second.requires_grad = False
            return loss

        return step, [first, second]

    def thaw(number, watched):
        if number in (3, 4):
            watched[1].requires_grad = True

    assert check(make).replays == 4
    assert check(make, calls=8, between=thaw).replays >= 4


ALIASES = {
    "detach": lambda loss, hidden: loss.detach(),
    "data": lambda loss, hidden: hidden.data,
    "grad": lambda loss, hidden: hidden.grad,
}


@pytest.mark.parametrize("alias", sorted(ALIASES))
def test_tensors_that_are_kept_through_an_alias(alias):
    def make():
        weight, kept = parameter([1.0, 2.0, 3.0]), []
        optimizer = dragon_optim.RMSprop([weight])

        def step(x):
            hidden = weight * x
            hidden.retain_grad()
            loss = (hidden * hidden).sum()
            loss.backward()
            optimizer.step()
            kept.append(ALIASES[alias](loss, hidden))
            return loss * float(len(kept))

        return step, [weight]

    assert check(make, warning="it keeps a tensor").replays == 0


def test_a_state_that_is_replaced_by_a_detached_result():
    def make():
        weight, state = parameter([1.0, 2.0, 3.0]), [torch.zeros(3)]

        def step(x):
            state[0] = (state[0] * 0.5 + weight * x).detach()
            return state[0].sum()

        return step, [weight]

    assert check(make, warning="it keeps a tensor").replays == 0


def test_an_argument_that_is_kept():
    def make():
        kept = [torch.zeros(3)]

        def step(x):
            result = kept[0] + x
            kept[0] = x
            return result

        return step, []

    assert check(make, warning="it keeps a tensor").replays == 0


def test_aliases_of_an_abandoned_recording_stay_readable():
    kept, weight = [], parameter([1.0, 2.0, 3.0])

    @capture
    def step(x):
        loss = (weight * x).sum()
        kept.append(loss.detach())
        return loss

    with pytest.warns(UserWarning, match="it keeps a tensor"):
        step(torch.ones(3))
    step(torch.ones(2, 3))
    assert [float(each) for each in kept] == [6.0, 12.0]


def test_what_the_first_call_makes_for_the_later_ones():
    def make():
        weight, mask = parameter([1.0, 2.0, 3.0]), []
        optimizer = dragon_optim.RMSprop([weight])

        def step(x):
            if not mask:
                mask.append(torch.ones(3) * 0.5)
            return train(optimizer, weight, x * mask[0])

        return step, [weight]

    assert check(make, warning="it keeps a tensor").replays == 4


def test_forward_hooks_of_modules_are_called():
    def make():
        module, calls = torch.nn.Linear(3, 1), []
        for param in module.parameters():
            torch.nn.init.constant_(param, 0.5)
        module.calls = calls
        make.module = module
        return lambda x: module(x.reshape((1, 3))).sum() * 1.0, []

    def hook(module, inputs, output):
        module.calls.append(None)
        return output * 2.0

    def between(number, watched):
        if number == 2:
            between.handle = make.module.register_forward_hook(hook)
        if number == 4:
            between.handle.remove()

    captured = check(make, calls=7, between=between, warning="the forward hooks of its modules")
    assert (captured.replays, len(make.module.calls)) == (4, 2)


def test_a_module_that_is_asked_whether_it_trains():
    """Also one that is not called itself."""

    class Model(torch.nn.Module):
        def loss(self, x):
            return x.sum() * (2.0 if self.training else 5.0)

    def make():
        make.model = Model()
        return make.model.loss, []

    captured = check(make, calls=8, between=lambda number, _: make.model.train(number % 4 < 2))
    assert captured.replays == 6


def test_train_and_eval_inside():
    def make():
        dropout = torch.nn.Dropout(0.5)
        make.module = dropout

        def step(x):
            dropout.eval()
            first = dropout(x).sum()
            dropout.train()
            return first

        return step, []

    captured = check(make, calls=8, between=lambda number, _: make.module.train(number % 4 < 2))
    assert captured.replays == 6
    make.module.eval()
    captured(torch.ones(3))
    assert make.module.training


class EverySecond(dragon_optim.RMSprop):
    """Steps in every second call."""

    calls = 0

    def step(self, closure=None):
        self.calls += 1
        return super().step(closure) if self.calls % 2 == 0 else None


def test_a_step_of_a_subclass_is_called():
    def make():
        weight = parameter([1.0, 2.0, 3.0])
        optimizer = EverySecond([weight])
        return lambda x: train(optimizer, weight, x), [weight]

    assert check(make, warning="would not call step() of EverySecond").replays == 0


def test_shapes_that_depend_on_values():
    @capture
    def mean_of_positive(x):
        chosen = x[x > 0.0]
        return chosen.sum() / float(chosen.shape[0])

    with pytest.raises(NotCapturableError, match="depends on values"):
        mean_of_positive(torch.ones(3))

    @capture
    def sum_of_positive(x):
        return x[x > 0.0].sum()

    for number in range(4):
        x = torch.arange(6, dtype="float32") - float(number)
        assert float(sum_of_positive(x)) == float(np.maximum(np.arange(6) - number, 0).sum())
    assert sum_of_positive.replays == 3


def test_a_native_operator_that_is_fed():
    with pytest.raises(NotCapturableError, match=r"Reshape of Dragon's native interface"):
        capture(lambda x: dragon.reshape(x, (3, 1)))(torch.ones(3))


def test_many_loads_make_no_new_graphs():
    weight = parameter([1.0, 2.0, 3.0])
    optimizer = dragon_optim.RMSprop([weight], momentum=0.9)
    step = capture(lambda x: train(optimizer, weight, x))
    step(torch.ones(3))
    saved = copy.deepcopy(optimizer.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(40):
            optimizer.load_state_dict(copy.deepcopy(saved))
            step(torch.ones(3))
            step(torch.ones(3))
    assert step.replays >= 40
    assert step.graphs <= 10
    assert optimizer.state[weight]["step"] == 3


def test_calls_beyond_the_allowed_graphs_still_find_those_that_there_are():
    step = capture(lambda x: x * float(x.shape[0] % 2), max_graphs=1)
    step(torch.ones(1))
    with pytest.warns(UserWarning, match="max_graphs=1"):
        step(torch.ones(2))
    step(torch.ones(3))
    step(torch.ones(3))
    assert (step.graphs, step.replays) == (1, 1)
