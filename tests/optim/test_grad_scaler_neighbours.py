# SPDX-License-Identifier: BSD-2-Clause
"""A loss scale beside hooks, interrupts, steps of a subclass, and optimizers that share parameters.

Gradients are 1 once they are divided, and a step then moves a parameter by 0.05.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim import clip_graphs
from dragon_optim.groups import WatchedGroups
from tests.optim.support import backward, feed_gradient, fresh_workspace, parameter, values

SCALE = 1024.0


def optimizer_of(*params, kind=dragon_optim.RMSprop):
    """One group for each parameter; gradient 1 moves it by 0.05."""
    return kind([{"params": [param]} for param in params], lr=0.1, alpha=0.0, eps=1.0)


def scaler_of():
    scaler = dragon_optim.GradScaler("cpu", init_scale=SCALE)
    scaler.scale(torch.ones(1))
    return scaler


def moved(param):
    """How far a parameter is from 1."""
    return round(float(1 - values(param)[0]), 5)


class Interrupt(BaseException):
    """What a signal's handler raises, which it may between any two lines."""


def interrupted_writes(call):
    """Call it again and again; each time it is interrupted one line of `_write_unscale` later."""
    code, lines = WatchedGroups._write_unscale.__code__, 0
    while True:
        lines += 1
        left = lines

        def trace(frame, event, _):
            nonlocal left
            if frame.f_code is not code:
                return None
            left -= event == "line"
            if left == 0:
                raise Interrupt
            return trace

        sys.settrace(trace)
        try:
            call()
        except Interrupt:
            yield lines
        else:
            return
        finally:
            sys.settrace(None)


def test_an_interrupt_leaves_no_factor_behind():
    """The next step, which no scaler has to do with, goes by the gradients as they are."""
    params = [parameter([1.0]) for _ in range(3)]
    optimizer, scaler = optimizer_of(*params), scaler_of()

    def scaled():
        for param in params:
            backward(param, SCALE)
        scaler.step(optimizer)

    count = 0
    for count in interrupted_writes(scaled):  # noqa: B007
        for param in params:
            param.copy_(torch.ones(1))
            backward(param, 1.0)
        optimizer.step()
        assert list(map(moved, params)) == [0.05] * 3
    assert count > len(params)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_step_inside_of_a_step(dtype):
    """A hook that does the same does not take the factor away."""
    weight = parameter([1.0], dtype)
    optimizer, scaler = optimizer_of(weight), scaler_of()
    feed_gradient(weight, np.array([SCALE], dtype))
    inner = []

    def again(*_):
        if not inner:
            inner.append(True)
            scaler.step(optimizer)

    optimizer.register_step_pre_hook(again)
    scaler.step(optimizer)
    assert moved(weight) == pytest.approx(0.1, abs=3e-4)
    assert optimizer.state[weight]["step"] == 2


def test_a_hook_that_looks_and_then_changes_a_group():
    """What was written anew for the group is written with the factor."""
    weight = parameter([1.0], "float16")
    optimizer, scaler = optimizer_of(weight), scaler_of()
    feed_gradient(weight, np.float16([SCALE]))

    def change(*_):
        optimizer.update_graph()
        optimizer.param_groups[0]["lr"] = 0.2

    optimizer.register_step_pre_hook(change)
    scaler.step(optimizer)
    assert moved(weight) == pytest.approx(0.1, abs=3e-4)


# --- who looks at the gradients -------------------------------------------------------------------


class OfItsOwn(dragon_optim.RMSprop):
    """An optimizer whose step looks at the gradients first."""

    look = staticmethod(lambda: None)

    def step(self, closure=None):
        self.look()
        return super().step(closure)


def look_in_a_hook(weight, look):
    optimizer = optimizer_of(weight)
    optimizer.register_step_pre_hook(lambda *_: look())
    return optimizer


def look_in_a_step(weight, look):
    optimizer = optimizer_of(weight, kind=OfItsOwn)
    optimizer.look = look
    return optimizer


def look_in_a_step_of_the_object(weight, look):
    optimizer = optimizer_of(weight)
    step = optimizer.step
    optimizer.step = lambda: [look(), step()]
    return optimizer


LOOKS = pytest.mark.parametrize("looking", [look_in_a_hook, look_in_a_step, look_in_a_step_of_the_object])


@LOOKS
def test_gradients_are_divided_before_somebody_looks(looking):
    """As in PyTorch: who clips there clips to what was meant."""
    weight, scaler = parameter([1.0]), scaler_of()
    optimizer = looking(weight, lambda: dragon_optim.clip_grad_value_([weight], 0.5))
    backward(weight, SCALE)
    scaler.step(optimizer)
    assert values(weight.grad).tolist() == [0.5]
    assert moved(weight) == round(0.1 * 0.5 / 1.5, 5)


@LOOKS
def test_gradients_of_float16_are_not(looking):
    weight, scaler, seen = parameter([1.0], "float16"), scaler_of(), []
    optimizer = looking(weight, lambda: seen.append(values(weight.grad)[0]))
    feed_gradient(weight, np.float16([SCALE]))
    scaler.step(optimizer)
    assert seen == [SCALE]
    assert moved(weight) == pytest.approx(0.05, abs=3e-4)


def test_a_step_that_is_another_optimizers():
    """Of a class with an operator of its own, which does not run."""
    weight, scaler = parameter([1.0]), scaler_of()
    inner, optimizer = optimizer_of(weight), optimizer_of(weight, kind=OfItsOwn)
    optimizer.step = inner.step
    backward(weight, SCALE)
    scaler.step(optimizer)
    assert moved(weight) == 0.05


# --- whose sums -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [dragon_optim.RMSprop, torch.optim.RMSprop])
@pytest.mark.parametrize("unscale", [False, True])
def test_the_sums_of_another_optimizer_are_not_looked_at(kind, unscale):
    """Two optimizers share a parameter, and one accumulates while the other steps."""
    weight = parameter([1.0, 1.0])
    accumulating, optimizer, scaler = optimizer_of(weight), kind([weight], lr=0.1), scaler_of()
    backward(weight, 2 * SCALE)
    accumulating.sum_grad()
    backward(weight, [SCALE, np.inf])
    if unscale:
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    assert scaler.step_was_skipped(optimizer)
    assert values(weight).tolist() == [1, 1]
    scaler.update()
    assert values(weight.grad)[0] == (1 if unscale or kind is torch.optim.RMSprop else SCALE)
    with pytest.warns(UserWarning, match="a backward pass came after the last sum_grad"):
        scaler.step(accumulating)  # its sums are as they were
    assert not scaler.step_was_skipped(accumulating)
    assert accumulating.state[weight]["square_avg"].numpy().tolist() == [16.0, 16.0]  # the scale is half


@pytest.mark.parametrize("kind", [dragon_optim.RMSprop, torch.optim.RMSprop])
def test_infinite_sums_of_another_optimizer_are_not_looked_at(kind):
    weight = parameter([1.0])
    accumulating, optimizer, scaler = optimizer_of(weight), kind([weight], lr=0.1), scaler_of()
    backward(weight, np.inf)
    accumulating.sum_grad()
    backward(weight, SCALE)
    scaler.step(optimizer)
    assert not scaler.step_was_skipped(optimizer)
    assert np.isfinite(values(weight)).all()
    with pytest.warns(UserWarning, match="a backward pass came after the last sum_grad"):
        scaler.step(accumulating)
    assert scaler.step_was_skipped(accumulating)


def test_the_sums_of_a_stock_optimizer_are_good_again():
    """Dragon begins a round by multiplying the sums of the last by 0, which makes NaN of an infinity."""
    weight = parameter([1.0, 1.0])
    optimizer, scaler = torch.optim.SGD([weight], lr=0.1), scaler_of()
    skipped = []
    for grad in (np.inf, 512.0):
        for _ in range(2):
            backward(weight, [grad, 512.0])
            optimizer.sum_grad()
        scaler.step(optimizer)
        skipped.append(scaler.step_was_skipped(optimizer))
        scaler.update()
    assert skipped == [True, False]
    assert values(weight).tolist() == pytest.approx([0.8, 0.8])


class Wrapper:
    """An optimizer around another one, as Lookahead is."""

    def __init__(self, inner):
        self.inner = inner
        self.param_groups = inner.param_groups

    def step(self):
        return self.inner.step()


class OfNoOperator(dragon_optim.Optimizer):
    """The same as a subclass."""

    def __init__(self, inner):
        super().__init__([param for group in inner.param_groups for param in group["params"]], {})
        self.inner = inner

    def step(self):
        return self.inner.step()


@pytest.mark.parametrize("kind", [Wrapper, OfNoOperator])
@pytest.mark.parametrize("inner_kind", [dragon_optim.RMSprop, torch.optim.RMSprop])
def test_an_optimizer_around_another_one_drops_its_sums(kind, inner_kind):
    """With what was infinite in them, each later step would be left out, too."""
    weight, bystander = parameter([1.0]), parameter([1.0])
    inner = inner_kind([weight], lr=0.1)
    elsewhere = optimizer_of(bystander)
    optimizer, scaler = kind(inner), scaler_of()
    backward(bystander, 1.0)
    elsewhere.sum_grad()
    skipped = []
    for grad in (np.inf, 1.0, 1.0):
        backward(weight, grad)
        inner.sum_grad()
        scaler.step(optimizer)
        skipped.append(scaler.step_was_skipped(optimizer))
        scaler.update()
    assert skipped == [True, False, False]
    elsewhere.step()  # its round is none of the scaler's business
    assert elsewhere.state[bystander]["step"] == 1
    assert moved(bystander) == 0.05


def test_scales_leave_nothing_behind(ws):
    """Dragon keeps a tensor for each number that one was multiplied by."""
    weight = parameter([1.0])
    optimizer, scaler = optimizer_of(weight), scaler_of()

    def iterations(first):
        for number in range(first, first + 50):
            scaler.scale((weight * weight).sum()).backward()
            scaler.step(optimizer)
            scaler.update(1000.0 + number)

    iterations(0)
    before = ws.memory_allocated()
    iterations(50)
    assert ws.memory_allocated() == before


@pytest.mark.parametrize("watched", [False, True])
def test_more_gradients_than_graphs_are_made_for(watched, monkeypatch):
    """Dragon never frees a graph: beyond a number of edges there is none, and all is as before."""
    monkeypatch.setattr(clip_graphs, "_MAX_EDGES", 1)
    with fresh_workspace() as home:
        if watched:  # somebody stands in front of Dragon's methods, as a recorder does
            home.run_operator = home.run_operator
        weights = [parameter([1.0]) for _ in range(3)]
        scaler = scaler_of()
        for number, weight in enumerate(weights):
            optimizer = optimizer_of(weight)
            for expected in (0.05, 0.1):
                backward(weight, SCALE)
                scaler.unscale_(optimizer)
                with pytest.raises(RuntimeError, match="has already been called"):
                    scaler.unscale_(optimizer)
                assert values(weight.grad).tolist() == [1.0]
                scaler.step(optimizer)
                scaler.update(SCALE)
                assert moved(weight) == expected
            graphs = [name for name in home._impl.graphs if "DragonOptim" in name]
            assert len(graphs) == number + 2  # one of the first gradient, and one for each update


def test_a_loss_has_the_scale_that_it_was_given():
    weight, scaler = parameter([1.0]), scaler_of()
    loss = scaler.scale(weight.sum())
    scaler.update(2.0)
    scaler.scale(weight.sum())
    loss.backward()
    assert values(weight.grad).tolist() == [SCALE]


# --- what an optimizer is asked for ---------------------------------------------------------------


def test_gradients_that_come_after_unscale_are_refused():
    """They would not be divided."""
    weight = parameter([1.0])
    optimizer, scaler = optimizer_of(weight), scaler_of()
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="has already been called"):
        scaler.unscale_(optimizer)
    with pytest.raises(AssertionError, match="it has no gradients"):
        scaler.step(optimizer)
    backward(weight, SCALE)
    with pytest.raises(AssertionError, match=r"it had no gradients when unscale_\(\) was called"):
        scaler.step(optimizer)
    assert moved(weight) == 0
    scaler.update(SCALE)
    scaler.step(optimizer)
    assert moved(weight) == 0.05


@pytest.mark.parametrize("kind", [dragon_optim.RMSprop, torch.optim.RMSprop])
@pytest.mark.parametrize("grad", [SCALE, np.inf])
def test_a_step_under_another_workspace_than_unscale(kind, grad):
    """There names are those of other tensors: nothing of theirs, nor of the step, is touched."""
    scaler = scaler_of()
    with fresh_workspace() as home:
        weight = parameter([1.0])
        optimizer = kind([weight], lr=0.1)
        backward(weight, grad)
        optimizer.sum_grad()
        scaler.unscale_(optimizer)
    with fresh_workspace():
        other = parameter([1.0])
        assert other.id == weight.id
        others = kind([other], lr=0.1)
        backward(other, 1.0)
        others.sum_grad()
        with pytest.raises(RuntimeError, match="belongs to another Dragon workspace"):
            scaler.step(optimizer)
        others.step()
        assert values(other)[0] < 1
    with home.as_default():
        scaler.step(optimizer)
        assert scaler.step_was_skipped(optimizer) == np.isinf(grad)


@pytest.mark.parametrize("around", [lambda optimizer: optimizer, Wrapper])
def test_what_an_optimizer_found_outlives_it(around):
    """Its scale was too large for it; and a wrapper may be made for each step."""
    weight, scaler = parameter([1.0]), scaler_of()
    backward(weight, np.inf)
    optimizer = optimizer_of(weight)
    scaler.step(around(optimizer))
    del optimizer
    scaler.update()
    assert scaler.get_scale() == SCALE / 2


@pytest.mark.parametrize("unscale", [False, True])
def test_arguments_of_a_step(unscale):
    class Faster(dragon_optim.RMSprop):
        def step(self, factor, closure=None, *, minus=0.0):
            self.param_groups[0]["lr"] = 0.1 * factor - minus
            return super().step(closure)

    weight, scaler = parameter([1.0]), scaler_of()
    optimizer = optimizer_of(weight, kind=Faster)
    backward(weight, SCALE)
    if unscale:
        scaler.unscale_(optimizer)
    scaler.step(optimizer, 3.0, minus=0.1)
    assert moved(weight) == 0.1


@pytest.mark.parametrize("arguments", [((lambda: 1.0,), {}), ((), {"closure": lambda: 1.0})])
def test_closures_are_refused(arguments):
    weight, scaler = parameter([1.0]), scaler_of()
    optimizer = optimizer_of(weight)
    backward(weight, SCALE)
    args, kwargs = arguments
    with pytest.raises(RuntimeError, match="Closure use is not currently supported"):
        scaler.step(optimizer, *args, **kwargs)
    scaler.step(optimizer, None)
    assert moved(weight) == 0.05
