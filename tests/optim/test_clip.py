# SPDX-License-Identifier: BSD-2-Clause
"""`clip_grad_norm_` and its neighbours: what they take, refuse and keep."""

from __future__ import annotations

import itertools
import math
import threading
import warnings

import numpy as np
import pytest
from dragon.core.framework import workspace
from dragon.vm import torch
from dragon.vm.torch.core.cpp import device as Device

import dragon_optim
from dragon_optim._dragon import library, names
from tests.optim.clipping import NORM, VALUE, clipped, grads_of, leaves
from tests.optim.support import feed_gradient, fresh_workspace, parameter, values

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
    # Without a bias: Dragon gets its gradient wrong where another test has had a layer of float64 before.
    model = torch.nn.Linear(2, 3, bias=False)
    model(torch.ones(4, 2)).sum().backward()
    assert float(NORM(model.parameters(), 1.0)) == pytest.approx(math.sqrt(6 * 4**2))
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
        optimizer = dragon_optim.RMSprop(params)
        optimizer.sum_grad()
        assert float(NORM(params, 1.0)) == 5
        workspace.get_workspace().clear()
        assert float(NORM(params, 1.0)) == 0
        params = leaves([3.0, 4.0])  # the round of the optimizer from before is gone, too
        assert float(NORM(params, 1.0)) == 5
        assert grads_of(params) == [clipped(3, 4)]


def test_not_under_a_trace():
    params = leaves([3.0, 4.0])
    traced = torch.jit.trace(lambda x: NORM(params, 1.0), example_inputs=[torch.ones(1)])
    with pytest.raises(RuntimeError, match=r"clip_grad_norm_\(\) cannot be traced"):
        traced(torch.ones(1))


# --- what it keeps ------------------------------------------------------------------------------------------


def test_no_graph_and_no_tensor_per_call(ws):
    params = leaves([3.0, 4.0], [1.0])

    def calls():
        for number in range(5):
            NORM(params, 1.0 + number)
            VALUE(params, 1.0 / (1 + number))
            dragon_optim.get_total_norm([param.grad for param in params])

    def kept():
        return len(ws._impl.graphs), names.tensor_pool(ws).made, ws.memory_allocated()

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


@pytest.mark.skipif("cuda" in library.devices(), reason="this Dragon has CUDA")
def test_a_device_that_there_are_no_operators_for(monkeypatch):
    params = leaves([3.0], [4.0])
    monkeypatch.setattr(params[1], "_device", Device("cuda", 1))
    for clip in (NORM, VALUE):
        with pytest.raises(RuntimeError, match="parameter 1 is on cuda:1, for which .* was not built"):
            clip(params, 1.0)
    with pytest.raises(RuntimeError, match="tensor 1 is on cuda:1, for which .* was not built"):
        dragon_optim.get_total_norm(params)
    assert [values(param.grad).tolist() for param in params] == [[3], [4]]
