# SPDX-License-Identifier: BSD-2-Clause
"""`native_optimizers.RMSprop`: PyTorch's numbers for users of `dragon.optimizers`."""

from __future__ import annotations

import copy

import dragon
import numpy as np
import pytest

import dragon_optim
from dragon_optim.native_optimizers import RMSprop
from tests import cases, exact, refusals
from tests.golden.recording import DTYPES
from tests.optim import natives, test_forms, test_golden
from tests.optim.natives import FunctionRun, NativeRun, canonical, computed, gradient, loss_of, variable
from tests.optim.support import backward, parameter, values

pytestmark = [
    pytest.mark.usefixtures("ws"),
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
]


# --- the numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", cases.TORCH_CASES, ids=str)
@pytest.mark.parametrize("run", [NativeRun, FunctionRun])
def test_pytorchs_numbers(run, case, dtype):
    test_golden.assert_is_recorded(case, dtype, run(case, dtype))


@pytest.mark.parametrize("dtype", test_forms.DTYPES)
@pytest.mark.parametrize("case", test_forms.FORMS, ids=str)
@pytest.mark.parametrize("give", [canonical, computed])
def test_all_forms(give, case, dtype):
    test_forms.assert_is_exact(case, dtype, NativeRun(case, dtype, give))


@pytest.mark.parametrize("case", test_forms.FORMS, ids=str)
def test_half_precision_in_functions(case):
    test_forms.assert_is_exact(case, "float16", FunctionRun(case, "float16"))


def trained(optimizer, function, steps=6):
    """A variable's trajectory; the learning rate changes on the way."""
    var, found = variable([1.0, -2.0, 0.5]), []

    def step():
        loss, grad = gradient(var, loss_of)
        return loss, optimizer.apply_gradients([(grad, var)])

    step = dragon.function(step) if function else step
    for number in range(steps):
        if number == 3:
            optimizer.lr = 0.01
        step()
        found.append(np.array(var.numpy()))
    return np.array(found)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9},
        {"weight_decay": 0.1},
        {"grad_scale": 0.5},
        {"clip_norm": 0.5},
        {"clip_value": 0.1},
    ],
    ids=str,
)
def test_it_agrees_with_stock(options):
    """Stock rounds otherwise, and its hyper-parameters to float32."""
    stock = trained(dragon.optimizers.RMSprop(lr=0.1, **options), function=False)
    eager, function = (trained(RMSprop(lr=0.1, **options), each) for each in (False, True))
    assert eager.tobytes() == function.tobytes()
    np.testing.assert_allclose(eager, stock, rtol=2e-6, atol=2e-7)


def test_a_function_trains_as_the_torch_class_does():
    """One call is one step, from the first on; the gradients are those of the same graph."""
    optimizer = RMSprop(lr=0.1, momentum=0.9, centered=True, alpha=0.95)
    var = variable([1.0, -2.0, 0.5])
    twin = parameter([1.0, -2.0, 0.5])
    reference = dragon_optim.RMSprop([twin], lr=0.1, momentum=0.9, centered=True, alpha=0.95)

    @dragon.function
    def step():
        loss, grad = gradient(var, loss_of)
        return loss, optimizer.apply_gradients([(grad, var)])

    for number in range(10):
        optimizer.lr = reference.param_groups[0]["lr"] = 0.1 / (1 + number)
        step()
        backward(twin, np.array(canonical(var).numpy()))
        reference.step()
        assert var.numpy().tobytes() == values(twin).tobytes()
    state = optimizer.state_of(var)
    assert state["step"] == 10
    for name in ("square_avg", "momentum_buffer", "grad_avg"):
        assert values(state[name]).tobytes() == values(reference.state[twin][name]).tobytes()


def test_vm_torch_parameters_are_taken():
    p = parameter([1.0])
    backward(p, 2.0)
    RMSprop(lr=0.1).apply_gradients([(p.grad, p)])
    expected, _ = exact.step({"lr": 0.1, "alpha": 0.9}, np.ones(1, "float32"), np.full(1, 2.0, "float32"), {})
    assert values(p).tobytes() == expected.tobytes()


# --- hyper-parameters -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*clip_norm wins")
def test_every_attribute_reaches_the_next_update_of_a_function():
    """Also those that need a state that the function's graph did not have."""
    changes = {
        "lr": 0.2, "momentum": 0.5, "alpha": 0.7, "eps": 0.1, "weight_decay": 0.1, "grad_scale": 0.5,
        "clip_value": 0.3, "clip_norm": 0.2, "centered": True, "maximize": True, "lr_in_momentum": True,
        "eps_inside_sqrt": True, "decoupled_weight_decay": True,
    }  # fmt: skip
    optimizer, var, grad = RMSprop(), variable([1.0, 2.0]), np.float32([0.5, -3])
    assert set(changes) | {"initial_square_avg"} == set(natives.native_optimizers._KEYS)
    given = canonical(var, grad)
    function = dragon.function(lambda: optimizer.apply_gradients([(given, var)]))
    options, expected, state = {"alpha": 0.9}, np.float32([1, 2]), {}
    for name, value in changes.items():
        setattr(optimizer, name, value)
        assert getattr(optimizer, name) == value
        options[name] = value
        function()
        expected, state = exact.step(options, expected, grad, state)
        assert var.numpy().tobytes() == expected.tobytes(), name
    assert optimizer.state_of(var)["step"] == len(changes)


def test_a_variable_brings_its_own_weight_decay():
    optimizer = RMSprop(lr=0.1, weight_decay=0.5)
    plain, own = variable([1.0]), variable([1.0])
    own._weight_decay = 0.25
    grad = np.full(1, 2.0, "float32")
    expected = {var.id: (np.ones(1, "float32"), {}) for var in (plain, own)}
    for number in range(3):
        optimizer.momentum = 0.9 * number
        optimizer.apply_gradients([(canonical(var, grad), var) for var in (own, plain)])
        for var, decay in ((plain, 0.5), (own, 0.25)):
            options = {"lr": 0.1, "alpha": 0.9, "weight_decay": decay, "momentum": 0.9 * number}
            expected[var.id] = exact.step(options, expected[var.id][0], grad, expected[var.id][1])
            assert var.numpy().tobytes() == expected[var.id][0].tobytes()


def follow(optimizer, var, grad, decay, expected):
    """One update, in the arrays of `expected` as well."""
    optimizer.apply_gradients([(grad, var)])
    options = {"lr": 0.1, "alpha": 0.9, "weight_decay": decay}
    expected[:] = exact.step(options, expected[0], values(grad), expected[1])
    assert var.numpy().tobytes() == expected[0].tobytes()


@pytest.mark.parametrize("give", [canonical, computed])
def test_a_weight_decay_of_a_variable_s_own_may_change(give):
    """Also of pairs that had a graph already, and in place: what counts is the number."""
    optimizer, var, expected = RMSprop(lr=0.1), variable([1.0]), [np.ones(1, "float32"), {}]
    grad = give(var, np.full(1, 2.0, "float32"))
    decays = [0.25, 0.25, 0.25, 0.0, None, 0.25, np.float32(0.5), 0.5, 0.125]
    for decay in decays:
        var._weight_decay = decay
        follow(optimizer, var, grad, decay or 0, expected)
    var._weight_decay = np.array(0.75)
    for decay in (0.75, 0.75, 0.75, 0.25):
        var._weight_decay[...] = decay
        follow(optimizer, var, grad, decay, expected)


def test_weight_decays_that_are_over_leave_no_rows(ws):
    """A function that was built with one keeps it."""
    optimizer, var, expected = RMSprop(lr=0.1), variable([1.0]), [np.ones(1, "float32"), {}]
    kept, others = variable([1.0]), [np.ones(1, "float32"), {}]
    kept._weight_decay = 0.5
    grad = canonical(var, np.full(1, 2.0, "float32"))

    def step():
        loss, slope = gradient(kept, lambda x: dragon.math.sum(x * 2.0))
        return loss, optimizer.apply_gradients([(slope, kept)])

    function = dragon.function(step)
    for number in range(300):
        var._weight_decay = 0.001 * number
        follow(optimizer, var, grad, 0.001 * number, expected)
        if number % 50 == 0:
            function()
            options = {"lr": 0.1, "alpha": 0.9, "weight_decay": 0.5}
            others[:] = exact.step(options, others[0], np.full(1, 2.0, "float32"), others[1])
            np.testing.assert_allclose(kept.numpy(), others[0], rtol=1e-6)
    assert optimizer._update.hyper.view.shape[0] <= 4  # the group's, the function's, the one of now


def test_defaults_and_order_are_the_native_class_s():
    stock, ours = dragon.optimizers.RMSprop(), RMSprop()
    for name in ("lr", "momentum", "alpha", "eps", "grad_scale", "weight_decay", "clip_norm", "clip_value"):
        assert getattr(ours, name) == pytest.approx(getattr(stock, name))
    optimizer = RMSprop(0.5, 0.4, 0.3, 0.2)
    assert (optimizer.lr, optimizer.momentum, optimizer.alpha, optimizer.eps) == (0.5, 0.4, 0.3, 0.2)
    assert isinstance(optimizer, dragon.optimizers.Optimizer)
    assert "lr=0.5" in repr(optimizer)


VALUE_ERRORS = [
    case
    for case in refusals.ERROR_CASES
    if case.exception is ValueError and "differentiable" not in case.options  # which the native class lacks
]


@pytest.mark.parametrize("case", VALUE_ERRORS, ids=str)
def test_refused_values(case):
    options = {("grad_scale" if key == "scale" else key): value for key, value in case.options.items()}
    optimizer = RMSprop(lr=0.25)
    before = repr(optimizer)
    with pytest.raises(ValueError, match=case.match):
        RMSprop(**options)
    for name, value in options.items():
        with pytest.raises(ValueError, match=case.match):
            setattr(optimizer, name, value)
    assert repr(optimizer) == before


def test_unknown_names():
    with pytest.raises(TypeError, match="nesterov"):
        RMSprop(nesterov=True)
    with pytest.raises(AttributeError, match="betas"):
        _ = RMSprop().betas
    with pytest.raises(TypeError, match="must be a number"):
        RMSprop(lr="fast")
    optimizer = RMSprop()
    optimizer.note = "kept"
    assert optimizer.note == "kept"
    with pytest.raises(TypeError, match="cannot copy"):
        copy.deepcopy(optimizer)


def test_clipping_twice_warns():
    optimizer = RMSprop(clip_norm=1.0)
    with pytest.warns(UserWarning, match="clip_norm wins"):
        optimizer.clip_value = 0.5
