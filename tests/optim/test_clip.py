# SPDX-License-Identifier: BSD-2-Clause
"""`clip_grad_norm_` and its neighbours: what they take, what they refuse, and which gradients they change."""

from __future__ import annotations

import itertools
import math
import threading
import warnings

import numpy as np
import pytest
from dragon.core.framework import workspace
from dragon.vm import torch

import dragon_optim
from dragon_optim._dragon import names, tape
from tests.optim.support import backward, feed_gradient, fresh_workspace, parameter, values

NORM, VALUE = dragon_optim.clip_grad_norm_, dragon_optim.clip_grad_value_


def leaves(*grads, dtype="float32"):
    """Parameters with these gradients, by a backward pass of each."""
    params = [parameter(np.zeros(len(grad)), dtype) for grad in grads]
    for param, grad in zip(params, grads):
        backward(param, grad)
    return params


def grads_of(params):
    return [None if param.grad is None else values(param.grad).tolist() for param in params]


def clipped(*numbers):
    """Numbers of norm 5, scaled to 1."""
    return [float(np.float32(number) * np.float32(1 / (5 + 1e-6))) for number in numbers]


# --- what is taken ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [list, tuple, iter, lambda params: (each for each in params), dict.fromkeys])
def test_any_iterable(form):
    params = leaves([3.0], [4.0])
    assert float(NORM(form(params), 1.0)) == 5
    assert grads_of(params) == [clipped(3), clipped(4)]
    VALUE(form(params), 0.125)
    assert grads_of(params) == [[0.125], [0.125]]


def test_a_single_tensor_and_a_model():
    (param,) = leaves([3.0, -4.0])
    assert float(NORM(param, 1.0)) == 5
    assert grads_of([param]) == [clipped(3, -4)]
    model = torch.nn.Linear(2, 1)
    model(torch.ones(4, 2)).sum().backward()
    assert float(NORM(model.parameters(), 1.0)) == pytest.approx(math.sqrt(48))
    with pytest.raises(TypeError, match=r"pass its parameters\(\)"):
        NORM(model, 1.0)


def test_the_norm_is_a_tensor_that_stays():
    """Norms that are kept, as in a log, are not overwritten; and no gradient flows to them."""
    params = leaves([3.0, 4.0])
    kept = [NORM(params, norm) for norm in (2.0, 1.0, 0.5)]
    assert [float(each) for each in kept] == pytest.approx([5, 2, 1], rel=1e-5)
    assert not kept[0].requires_grad
    assert tuple(kept[0].shape) == ()


@pytest.mark.parametrize("foreach", [None, True, False])
def test_foreach_changes_no_bit(foreach):
    grads = [np.random.RandomState(seed).standard_normal(50 + seed) for seed in range(5)]
    reference, params = leaves(*grads), leaves(*grads)
    norms = NORM(reference, 0.5), NORM(params, 0.5, foreach=foreach)
    assert float(norms[0]) == float(norms[1])
    assert grads_of(params) == grads_of(reference)
    VALUE(reference, 0.01)
    VALUE(params, 0.01, foreach=foreach)
    assert grads_of(params) == grads_of(reference)


def test_foreach_decides_how_many_operators(monkeypatch):
    made = []
    graph = dragon_optim.clip_graphs.graphs.Graph
    monkeypatch.setattr(
        dragon_optim.clip_graphs.graphs, "Graph", lambda home, ops: made.append(len(ops)) or graph(home, ops)
    )
    with fresh_workspace():
        params = leaves([1.0], [2.0], [3.0])
        for foreach in (None, True, False):
            NORM(params, 1.0, foreach=foreach)
            VALUE(params, 1.0, foreach=foreach)
            dragon_optim.clip_grads_with_norm_(params, 1.0, 1.0, foreach=foreach)
    assert made == [2, 1, 1, 5, 4, 4]  # None and True share a graph


def test_numbers_as_tensors_and_arrays():
    for number in (np.float32(1), np.array([1.0]), torch.tensor(1.0), 1, True):
        params = leaves([3.0, 4.0])
        assert float(NORM(params, number)) == 5
        assert grads_of(params) == [clipped(3, 4)]


def test_norms_known_already():
    """The two halves do what the whole does, to the last bit; a number is taken, too."""
    grads = [np.random.RandomState(seed).standard_normal(20) for seed in range(3)]
    whole, halves, number = leaves(*grads), leaves(*grads), leaves(*grads)
    norm = NORM(whole, 0.3, 3.0)
    total = dragon_optim.get_total_norm([param.grad for param in halves], 3.0)
    assert float(norm) == float(total)
    dragon_optim.clip_grads_with_norm_(halves, 0.3, total)
    dragon_optim.clip_grads_with_norm_(number, 0.3, float(total), foreach=False)
    assert grads_of(whole) == grads_of(halves) == grads_of(number)
    (grad,) = [param.grad for param in leaves([3.0, 4.0])]
    assert float(dragon_optim.get_total_norm([grad, grad])) == 5
    with pytest.raises(RuntimeError, match="non-finite"):
        dragon_optim.get_total_norm(torch.tensor([math.inf]), error_if_nonfinite=True)
    dragon_optim.clip_grads_with_norm_(number, 0.3, math.nan)
    assert np.isnan(grads_of(number)).all()


def test_nothing_to_clip():
    """No gradients are norm 0, without a warning but for an empty generator: PyTorch's."""
    frozen = parameter([1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for params in ([], [frozen], [], iter([])):
            norm = NORM(params, 1.0)
            assert (float(norm), norm.dtype) == (0, "float32")
            VALUE(params, 1.0)
        VALUE((each for each in ()), 1.0)
        assert float(dragon_optim.get_total_norm([])) == 0
    with pytest.warns(UserWarning, match="`parameters` is an empty generator") as caught:
        assert float(NORM((each for each in ()), 1.0)) == 0
    assert caught[0].filename == __file__


# --- which gradients ----------------------------------------------------------------------------------------


def test_absent_gradients_count_for_nothing():
    params = leaves([3.0], [100.0], [4.0], [100.0])
    optimizer = dragon_optim.RMSprop(params[1:2])
    optimizer.zero_grad(set_to_none=True)
    params[3].requires_grad = False
    assert float(NORM(params, 1.0)) == 5
    assert grads_of(params) == [clipped(3), None, clipped(4), None]
    params[3].requires_grad = True
    assert grads_of(params[3:]) == [[100]]
    backward(params[1], [12.0])
    assert float(NORM(params[:3], math.inf)) == pytest.approx(math.sqrt(145), rel=1e-5)


def test_a_parameter_that_stands_twice_counts_once():
    (param,) = leaves([3.0, 4.0])
    alias = torch.nn.Parameter(param.data)
    assert float(NORM([param, param, alias], 1.0)) == 5
    assert grads_of([param]) == [clipped(3, 4)]


def test_gradients_of_what_no_optimizer_holds_and_of_stock_optimizers():
    ours, theirs, nobodys = leaves([2.0], [4.0], [4.0])
    stock = torch.optim.SGD([theirs], lr=1.0)
    optimizer = dragon_optim.RMSprop([ours], lr=1.0, alpha=0, eps=1)
    assert float(NORM([ours, theirs, nobodys], 3.0)) == 6
    stock.step()
    assert float(theirs) == pytest.approx(-2, rel=1e-6)
    optimizer.step()
    assert float(ours) == pytest.approx(-0.5, rel=1e-6)
    assert float(nobodys) == 0


def test_a_dead_parameters_gradient_is_not_inherited():
    with fresh_workspace():
        for _ in range(3):
            (param,) = leaves([30.0])
            assert float(NORM([param], 1.0)) == 30
            del param
            assert float(NORM([parameter([1.0])], 1.0)) == 0


def test_sums_are_clipped_as_the_step_will_read_them():
    """Not ``.grad``; and what was not summed in this round is not clipped, for it will not be read."""
    one, two, left_out = parameter([0.0]), parameter([0.0]), parameter([0.0])
    optimizer = dragon_optim.RMSprop([one, two, left_out], lr=1.0, alpha=0, eps=1)
    backward(left_out, 100.0)
    optimizer.zero_grad()
    optimizer.sum_grad()
    optimizer.step()
    for part in (1.0, 2.0):
        backward(one, part, two, 2 * part - 1)
        optimizer.sum_grad()
    assert float(NORM([one, two, left_out], 1.0)) == 5
    assert grads_of([one, two, left_out]) == [[2], [3], [0]]
    optimizer.step()
    moved = [float(each) for each in (one, two, left_out)]
    assert moved[0] == pytest.approx(-0.6 / 1.6, rel=1e-5)
    assert moved[1] == pytest.approx(-0.8 / 1.8, rel=1e-5)
    assert moved[2] == 0
    backward(one, 3.0, two, 4.0)
    assert float(NORM([one, two], 1.0)) == 5  # the round is over
    assert grads_of([one, two]) == [clipped(3), clipped(4)]


def test_sums_of_an_earlier_round_do_not_count():
    first, second = parameter([0.0]), parameter([0.0])
    optimizer = dragon_optim.RMSprop([first, second])
    backward(first, 3.0, second, 4.0)
    optimizer.sum_grad()
    assert float(NORM([first, second], 1.0)) == 5
    optimizer.step()
    backward(first, 3.0)
    optimizer.sum_grad()
    assert float(NORM([first, second], 1.0)) == 3


def test_sums_count_though_the_gradient_was_taken_away():
    """As by a script that takes gradients away before each pass; what requires_grad hides is not read."""
    params = parameter([0.0]), parameter([0.0])
    optimizer = dragon_optim.RMSprop(params, lr=1.0, alpha=0, eps=1)
    backward(params[0], 3.0, params[1], 4.0)
    optimizer.sum_grad()
    optimizer.zero_grad(set_to_none=True)
    assert float(NORM(params, math.inf)) == 5
    run = dragon_optim.graph.capture(lambda: NORM(params, 1.0))
    assert float(run()) == 5
    params[0].requires_grad = False
    assert float(NORM(params, 0.5)) == pytest.approx(0.8, rel=1e-5)
    params[0].requires_grad = True
    optimizer.step()
    assert [float(each) for each in params] == pytest.approx([-0.6 / 1.6, -0.5 / 1.5], rel=1e-5)


def test_values_of_sums_are_clipped_too():
    param = parameter([0.0, 0.0])
    optimizer = dragon_optim.RMSprop([param], lr=1.0, alpha=0, eps=1)
    for _ in range(2):
        backward(param, [2.0, 0.25])
        optimizer.sum_grad()
    VALUE([param], 1.0)
    optimizer.step()
    assert values(param).tolist() == [-0.5, pytest.approx(-0.5 / 1.5)]
    assert grads_of([param]) == [[2, 0.25]]


def test_sums_that_are_dropped_are_not_clipped():
    param = parameter([0.0])
    optimizer = dragon_optim.RMSprop([param])
    backward(param, 5.0)
    optimizer.sum_grad()
    optimizer.zero_grad(drop_sums=True)
    backward(param, 5.0)
    NORM([param], 1.0)
    assert grads_of([param]) == [clipped(5)]


def test_a_process_group_averages_later(monkeypatch):
    monkeypatch.setattr(dragon_optim.clip.collective, "group", lambda: object())
    params = leaves([3.0, 4.0])
    for clip in (NORM, VALUE):
        with pytest.warns(UserWarning, match="each rank clips its own gradients") as caught:
            clip(params, 1.0)
        assert caught[0].filename == __file__
    assert grads_of(params) == [clipped(3, 4)]


def test_sums_of_float16_are_float32():
    param = parameter([0.0, 0.0], "float16")
    optimizer = dragon_optim.RMSprop([param], lr=1.0, alpha=0, eps=1)
    for grad in ([3.0, 0.0], [0.0, 4.0]):
        feed_gradient(param, np.array(grad, "float16"))
        tape.mark(workspace.get_workspace(), [param.id])
        optimizer.sum_grad()
    norm = NORM([param], 1.0)
    assert (float(norm), norm.dtype) == (5, "float32")
    optimizer.step()
    assert values(param) == pytest.approx(np.array([-0.6 / 1.6, -0.8 / 1.8]), rel=1e-3)


def test_a_pass_after_the_last_sum_is_warned_of():
    """The sums are clipped, as the step will go by them."""
    param = parameter([0.0])
    optimizer = dragon_optim.RMSprop([param], lr=1.0, alpha=0, eps=1)
    backward(param, 4.0)
    optimizer.sum_grad()
    backward(param, 100.0)
    with pytest.warns(UserWarning, match=r"a backward pass came after the last sum_grad\(\)"):
        assert float(NORM([param], 1.0)) == 4
    assert grads_of([param]) == [[100]]
    optimizer.step()
    assert float(param) == pytest.approx(-0.5, rel=1e-5)


@pytest.mark.parametrize("rest", [(), (0,)], ids=["one", "with another"])
def test_sums_of_stock_optimizers(rest):
    param, others = parameter([0.0, 0.0]), [parameter([0.0]) for _ in rest]
    optimizer = torch.optim.SGD([param, *others], lr=1.0)
    for grad in ([3.0, 0.0], [0.0, 4.0]):
        backward(param, grad)
        optimizer.sum_grad()
    assert float(NORM([param, *others], 1.0)) == 5
    assert grads_of([param]) == [[0, 4]]
    optimizer.step()
    assert values(param) == pytest.approx(np.array([-0.6, -0.8]), rel=1e-6)
    backward(param, [3.0, 4.0])
    NORM([param], 1.0)
    optimizer.step()
    assert values(param) == pytest.approx(np.array([-1.2, -1.6]), rel=1e-6)


def test_sums_in_two_optimizers_are_refused():
    param = parameter([0.0])
    optimizers = [dragon_optim.RMSprop([param]), torch.optim.SGD([param], lr=1.0)]
    backward(param, 5.0)
    for optimizer in optimizers:
        optimizer.sum_grad()
    for clip in (NORM, VALUE):
        with pytest.raises(RuntimeError, match="parameter 0 has sums of gradients in two optimizers"):
            clip([param], 1.0)
    optimizers[0].step()
    NORM([param], 1.0)
    optimizers[1].step()
    assert float(param) < -0.9


@pytest.mark.parametrize("order", [1, -1], ids=["as made", "in reverse"])
def test_a_sum_in_one_of_two_optimizers_that_are_in_a_round(order):
    """Each has summed another parameter of the two that both hold."""
    params = parameter([0.0]), parameter([0.0])
    optimizers = [dragon_optim.RMSprop(params) for _ in range(2)][::order]
    for param, grad, optimizer in zip(params, (3.0, 4.0), optimizers):
        backward(param, grad)
        optimizer.sum_grad()
        optimizer.zero_grad(set_to_none=True)
    with pytest.warns(UserWarning, match="a backward pass came after"):  # the second, after the first's sum
        assert float(NORM(params, 1.0)) == 5


def test_with_a_recorded_step():
    """The parameter is another tensor after it, with that one's gradient; nothing flows through a norm."""
    param = parameter([1.0], "float64")
    optimizer = dragon_optim.RMSprop([param], lr=0.1, differentiable=True)
    backward(param, 8.0)
    NORM([param], 2.0)
    optimizer.step()
    with optimizer.as_leaves():
        backward(param, 6.0)
    norm = NORM([param], 2.0)
    assert float(norm) == 6
    assert not norm.requires_grad
    assert grads_of([param])[0][0] == pytest.approx(2, rel=1e-6)
    optimizer.detach_()


# --- what is refused, and changes nothing -------------------------------------------------------------------

REFUSED = {
    "negative max_norm": (
        lambda p: NORM(p, -1.0),
        ValueError,
        r"Invalid max_norm value: -1.0 \(need max_norm",
    ),
    "NaN as max_norm": (lambda p: NORM(p, math.nan), ValueError, "Invalid max_norm value: nan"),
    "a string as max_norm": (lambda p: NORM(p, "1"), TypeError, "max_norm must be a number, but got '1'"),
    "no max_norm": (lambda p: NORM(p, None), TypeError, "max_norm must be a number"),
    "negative clip_value": (lambda p: VALUE(p, -1), ValueError, "Invalid clip_value value: -1"),
    "NaN as clip_value": (lambda p: VALUE(p, math.nan), ValueError, "Invalid clip_value value: nan"),
    "NaN as order": (lambda p: NORM(p, 1.0, math.nan), ValueError, "Invalid norm_type: nan"),
    "a word as order": (lambda p: NORM(p, 1.0, "two"), ValueError, "Invalid norm_type: two"),
    "no order": (lambda p: NORM(p, 1.0, None), TypeError, "norm_type must be a number"),
    "foreach": (lambda p: NORM(p, 1.0, foreach="no"), ValueError, "Invalid foreach value: no"),
    "foreach of values": (lambda p: VALUE(p, 1.0, 3), ValueError, "Invalid foreach value: 3"),
    "no tensors": (lambda p: NORM([*p, 1.0], 1.0), TypeError, "number 2 is builtins.float"),
    "names": (
        lambda p: VALUE([("a", p[0])], 1.0),
        TypeError,
        "number 0 is builtins.tuple: leave the names away",
    ),
    "None": (lambda p: NORM(None, 1.0), TypeError, "must be a Tensor or an iterable of Tensors"),
    "a string": (lambda p: VALUE("ab", 1.0), TypeError, "must be a Tensor or an iterable of Tensors"),
    "a norm of two": (
        lambda p: dragon_optim.clip_grads_with_norm_(p, 1.0, torch.ones(2)),
        ValueError,
        "Tensor total_norm must be 1-element",
    ),
    "a tensor that was never filled": (
        lambda p: NORM([*p, torch.Tensor()], 1.0),
        RuntimeError,
        "has no data",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what):
    call, error, words = REFUSED[what]
    params = leaves([3.0], [4.0])
    with pytest.raises(error, match=words):
        call(params)
    assert grads_of(params) == [[3], [4]]


@pytest.mark.parametrize("foreach", [None, False])
def test_integers_are_refused_and_nothing_changes(foreach):
    params = leaves([30.0], [40.0])
    feed_gradient(params[1], np.array([4], "int64"))
    for call in (
        lambda: NORM(params, 1.0, foreach=foreach),
        lambda: VALUE(params, 1.0, foreach=foreach),
        lambda: dragon_optim.clip_grads_with_norm_(params, 1.0, 50.0, foreach=foreach),
    ):
        with pytest.raises(ValueError, match=r"a gradient is int64 of shape \(1,\).*nothing was changed"):
            call()
        assert grads_of(params) == [[30], [4]]


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("order", [2.0, 1.0, math.inf, 3.0])
def test_error_if_nonfinite(bad, order):
    params = leaves([3.0, bad], [4.0])
    words = f"The total norm of order {order} for gradients from `parameters` is non-finite, so it cannot be"
    with pytest.raises(RuntimeError, match=words):
        NORM(params, 1.0, order, error_if_nonfinite=True)
    assert grads_of(params[1:]) == [[4]]
    assert values(params[0].grad)[0] == 3
    assert not math.isfinite(float(NORM(params, 1.0, order)))
    params[0].requires_grad = False
    assert math.isfinite(float(NORM(leaves([3.0]), 1.0, order, error_if_nonfinite=True)))


def test_other_workspaces():
    home = workspace.get_workspace()
    params = leaves([3.0, 4.0])
    with fresh_workspace():
        mine = leaves([3.0, 4.0])
        with pytest.raises(RuntimeError, match="parameter 1 belongs to another Dragon workspace"):
            NORM([*mine, *params], 1.0)
        assert grads_of(mine) == [[3, 4]]
        assert float(NORM(mine, 1.0)) == 5
    caught = []

    def elsewhere():
        try:
            NORM(params, 1.0)
        except RuntimeError as error:
            caught.append(str(error))
        with home.as_default():
            caught.append(float(NORM(params, 1.0)))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "parameter 0 belongs to another Dragon workspace" in caught[0]
    assert caught[1] == 5
    assert grads_of(params) == [clipped(3, 4)]


def test_a_tensor_that_was_taken_away():
    (param,) = leaves([3.0])
    grad = param.grad
    dragon_optim.RMSprop([param]).zero_grad(set_to_none=True)
    with pytest.raises(RuntimeError, match="tensor 0 has no data"):
        dragon_optim.get_total_norm([grad])


def test_after_the_workspace_was_cleared():
    with fresh_workspace():
        params = leaves([3.0, 4.0])
        assert float(NORM(params, 1.0)) == 5
        workspace.get_workspace().clear()
        assert float(NORM(params, 1.0)) == 0
        params = leaves([3.0, 4.0])
        assert float(NORM(params, 1.0)) == 5
        assert grads_of(params) == [clipped(3, 4)]


def test_not_under_a_trace():
    params = leaves([3.0, 4.0])
    traced = torch.jit.trace(lambda x: NORM(params, 1.0), example_inputs=[torch.ones(1)])
    with pytest.raises(RuntimeError, match=r"clip_grad_norm_\(\) cannot be traced"):
        traced(torch.ones(1))


# --- what it keeps ------------------------------------------------------------------------------------------


def test_no_graph_and_no_tensor_per_call():
    home = workspace.get_workspace()
    params = leaves([3.0, 4.0], [1.0])

    def calls():
        for number in range(5):
            NORM(params, 1.0 + number)
            VALUE(params, 1.0 / (1 + number))
            dragon_optim.get_total_norm([param.grad for param in params])

    def kept():
        return len(home._impl.graphs), names.tensor_pool(home).made, home.memory_allocated()

    calls()
    before = kept()
    calls()
    assert kept() == before


def test_other_parameters_in_each_call_do_not_pile_up_graphs(monkeypatch):
    """Beyond a bound they run without one, with the same results."""
    monkeypatch.setattr(dragon_optim.clip_graphs, "_MAX_EDGES", 30)
    with fresh_workspace():
        home = workspace.get_workspace()
        params = leaves(*[[3.0, 4.0]] * 12)
        before = len(home._impl.graphs)
        for first, last in itertools.combinations(range(13), 2):
            chosen = params[first:last]
            for param in chosen:
                feed_gradient(param, np.float32([3, 4]))
            assert float(NORM(chosen, 1.0)) == pytest.approx(5 * math.sqrt(len(chosen)))
            assert values(params[first].grad)[0] == pytest.approx(0.6 / math.sqrt(len(chosen)), rel=1e-5)
        assert 1 < len(home._impl.graphs) - before <= 30
