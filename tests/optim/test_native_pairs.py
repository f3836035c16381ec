# SPDX-License-Identifier: BSD-2-Clause
"""`native_optimizers.RMSprop`: the gradients and variables that it is given."""

from __future__ import annotations

import weakref

import dragon
import numpy as np
import pytest

from dragon_optim.native_optimizers import RMSprop
from tests import exact
from tests.optim import natives
from tests.optim.natives import canonical, computed, gradient, loss_of, variable
from tests.optim.support import values

pytestmark = [
    pytest.mark.usefixtures("ws"),
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
]


def test_a_variable_without_a_gradient_stays():
    p, q, r = variable([1.0]), variable([2.0]), variable([3.0])
    optimizer = RMSprop()
    optimizer.apply_gradients([(None, p), (canonical(q), q), (canonical(r, np.ones(1, "float32")), r)])
    assert (p.numpy().tolist(), q.numpy().tolist()) == ([1.0], [2.0])
    assert r.numpy()[0] < 3
    assert optimizer.state_of(p) == optimizer.state_of(q) == {}
    optimizer.apply_gradients([])
    optimizer.apply_gradients(zip([None], [p]))
    assert optimizer.state_of(r)["step"] == 1


def test_gradients_that_come_and_go():
    """What had a graph once is not updated from a gradient that was taken away."""
    p, q = variable([1.0]), variable([2.0])
    optimizer = RMSprop()
    for _ in range(4):
        pairs = [(canonical(var, np.ones(1, "float32")), var) for var in (p, q)]
        optimizer.apply_gradients(pairs)
    pairs[1][0]._impl.Reset()
    before = np.array(q.numpy())
    optimizer.apply_gradients(pairs)
    assert q.numpy().tobytes() == before.tobytes()
    assert (optimizer.state_of(p)["step"], optimizer.state_of(q)["step"]) == (5, 4)


def test_a_gradient_of_the_program_s_own_is_not_kept(no_collector):
    p, optimizer = variable([1.0]), RMSprop()
    grad = computed(p, np.ones(1, "float32"))
    for _ in range(4):
        optimizer.apply_gradients([(grad, p)])
    watched = weakref.ref(grad)
    del grad
    assert watched() is None


def test_a_variable_that_stands_twice_is_updated_twice():
    for give in (canonical, computed):
        p, optimizer = variable([1.0]), RMSprop(lr=0.1)
        expected, state = np.ones(1, "float32"), {}
        for _ in range(3):
            grad = give(p, np.ones(1, "float32"))
            optimizer.apply_gradients([(grad, p), (grad, p)])
            for _ in range(2):
                expected, state = exact.step(
                    {"lr": 0.1, "alpha": 0.9}, expected, np.ones(1, "float32"), state
                )
        assert p.numpy().tobytes() == expected.tobytes()
        assert optimizer.state_of(p)["step"] == 6


def test_a_gradient_that_the_function_computes_must_be_returned():
    var, optimizer = variable([1.0, 2.0]), RMSprop(lr=0.1)

    def step(returned):
        loss, grad = gradient(var, loss_of)
        half = grad * 0.5
        execution = optimizer.apply_gradients([(half, var)])
        return (loss, half, execution) if returned else (loss, execution)

    with pytest.raises(RuntimeError, match="was not computed: return from the function"):
        dragon.function(step)(False)
    assert var.numpy().tolist() == [1.0, 2.0]
    dragon.function(step)(True)
    grad = np.float32([3, 12]) * np.float32(0.5)
    expected, _ = exact.step({"lr": 0.1, "alpha": 0.9}, np.float32([1, 2]), grad, {})
    np.testing.assert_allclose(var.numpy(), expected, rtol=1e-6)


ERRORS = {
    "a-tensor": (lambda g, p: g, TypeError, "iterable of pairs"),
    "a-number": (lambda g, p: 3, TypeError, "iterable of pairs"),
    "no-pair": (lambda g, p: [g], TypeError, r"grads_and_vars\[0\] must be a pair"),
    "three": (lambda g, p: [(g, p, p)], TypeError, "must be a pair"),
    "an-array": (lambda g, p: [(np.ones(2, "float32"), p)], TypeError, "gradient of .*must be a Dragon"),
    "no-variable": (lambda g, p: [(g, None)], TypeError, "variable of .*must be a Dragon"),
    "shape": (lambda g, p: [(variable([1.0]), p)], ValueError, r"gradient of variable 0 .*shape \(1,\)"),
    "dtype": (lambda g, p: [(variable([1.0, 2.0], "float64"), p)], ValueError, "variable 0 is float64"),
    "integers": (lambda g, p: [(g, variable([1, 2], "int64"))], TypeError, "parameter 0 is int64"),
    "the-second": (lambda g, p: [(g, p), (variable([1.0]), variable([1.0, 2.0]))], ValueError, "variable 1"),
    "weight-decay": (lambda g, p: [(g, with_decay(p, -1))], ValueError, "Invalid weight_decay value: -1"),
    "weight-decay-nan": (lambda g, p: [(g, with_decay(p, np.nan))], ValueError, "Invalid weight_decay value"),
    "weight-decay-word": (
        lambda g, p: [(g, with_decay(p, "abc"))],
        TypeError,
        "weight_decay of variable 0 must be a number, but got 'abc'",
    ),
    "weight-decay-list": (
        lambda g, p: [(g, with_decay(p, [1]))],
        TypeError,
        r"weight_decay of variable 0 must be a number, but got \[1\]",
    ),
    "weight-decay-array": (
        lambda g, p: [(variable([1.0]), variable([1.0])), (g, with_decay(p, np.ones(2)))],
        ValueError,
        "weight_decay of variable 1 must be 1-element",
    ),
    "empty-variable": (lambda g, p: [(g, emptied())], RuntimeError, "variable 0 has no data"),
    "another-workspace": (lambda g, p: [(g, elsewhere())], RuntimeError, "another Dragon workspace"),
    "gradient-of-another": (lambda g, p: [(elsewhere(), p)], RuntimeError, "another Dragon workspace"),
}  # fmt: skip


def with_decay(var, number):
    var._weight_decay = number
    return var


def emptied():
    var = variable([1.0, 2.0])
    var._impl.Reset()
    return var


HOMES = []


def elsewhere():
    HOMES.append(dragon.Workspace())
    with HOMES[-1].as_default():
        for _ in range(9):
            var = variable([1.0, 2.0])
        return var


@pytest.mark.parametrize("give", [canonical, computed])
@pytest.mark.parametrize("error", ERRORS)
def test_wrong_pairs_raise_and_change_nothing(error, give):
    make, exception, match = ERRORS[error]
    p, optimizer = variable([1.0, 2.0]), RMSprop(momentum=0.9)
    for _ in range(3):
        optimizer.apply_gradients([(give(p, np.float32([1, 2])), p)])
    before = [p.numpy().tobytes(), optimizer.state_of(p)["step"]]
    before += [values(optimizer.state_of(p)[name]).tobytes() for name in ("square_avg", "momentum_buffer")]
    with pytest.raises(exception, match=match):
        optimizer.apply_gradients(make(give(p, np.float32([1, 2])), p))
    if hasattr(p, "_weight_decay"):
        del p._weight_decay
    after = [p.numpy().tobytes(), optimizer.state_of(p)["step"]]
    after += [values(optimizer.state_of(p)[name]).tobytes() for name in ("square_avg", "momentum_buffer")]
    assert after == before
    optimizer.apply_gradients([(give(p, np.float32([1, 2])), p)])
    assert optimizer.state_of(p)["step"] == 4


@pytest.mark.parametrize("wrong", [np.ones(3, "float32"), np.ones(2, "float64")], ids=["shape", "dtype"])
@pytest.mark.parametrize("function", [False, True])
def test_a_gradient_that_goes_wrong_later(function, wrong):
    """Under the same name as the good one before it, so that the graph is there already."""
    p, optimizer = variable([1.0, 2.0]), RMSprop()
    grad = canonical(p, np.float32([1, 2]))
    step = lambda: optimizer.apply_gradients([(grad, p)])  # noqa: E731
    step = dragon.function(step) if function else step
    for _ in range(4):
        step()
    before = p.numpy().tobytes()
    canonical(p, wrong)
    with pytest.raises(ValueError, match="gradient of parameter 0 of group 0"):
        step()
    assert (p.numpy().tobytes(), optimizer.state_of(p)["step"]) == (before, 4)
    canonical(p, np.float32([1, 2]))
    step()
    assert optimizer.state_of(p)["step"] == 5


@pytest.mark.parametrize("held", [None, "square_avg"])
@pytest.mark.parametrize("function", [False, True])
def test_a_forgotten_variable_starts_anew(function, held):
    """Also in another shape and dtype, and where somebody holds a state of it still."""
    p, optimizer = variable([1.0, 2.0]), RMSprop(lr=0.1)
    grad = canonical(p, np.float32([1, 2]))
    step = lambda: optimizer.apply_gradients([(grad, p)])  # noqa: E731
    step = dragon.function(step) if function else step
    for _ in range(4):
        step()
    tensor = optimizer.state_of(p)[held] if held else None
    old = values(tensor).tobytes() if held else None
    natives.feed(p, np.ones(3))
    canonical(p, np.full(3, 2.0))
    with pytest.raises(ValueError, match="a state of parameter 0"):
        step()
    optimizer.forget(p)
    assert optimizer.state_of(p) == {}
    expected, state = np.ones(3), {}
    for _ in range(4):
        step()
        expected, state = exact.step({"lr": 0.1, "alpha": 0.9}, expected, np.full(3, 2.0), state)
        assert p.numpy().tobytes() == expected.tobytes()
    assert optimizer.state_of(p)["step"] == 4
    if held:
        assert values(tensor).tobytes() == old
    optimizer.forget(variable([1.0]))


@pytest.mark.parametrize("shape", [(), (1,), (2, 0), (0,), (2, 3, 4)], ids=str)
def test_odd_shapes(shape):
    numbers = np.ones(shape, "float32")
    p, optimizer = variable(numbers), RMSprop(lr=0.1)
    grad = np.full(shape, 2.0, "float32")
    expected, state = numbers, {}
    for number in range(5):
        given = (computed if number == 3 else canonical)(p, grad)
        optimizer.apply_gradients([(given, p)])
        expected, state = exact.step({"lr": 0.1, "alpha": 0.9}, expected, grad, state)
        assert p.numpy().shape == expected.shape
        assert p.numpy().tobytes() == expected.tobytes()


def test_the_input_of_a_function_may_be_the_gradient():
    p, optimizer = variable([1.0, 2.0]), RMSprop(lr=0.1)

    @dragon.function(input_signature=[dragon.Tensor(shape=[2], dtype="float32", symbolic=True)])
    def step(grad):
        return optimizer.apply_gradients([(grad, p), (None, p)])

    step(np.float32([1, 2]))
    expected, state = exact.step({"lr": 0.1, "alpha": 0.9}, np.float32([1, 2]), np.float32([1, 2]), {})
    assert p.numpy().tobytes() == expected.tobytes()
    for wrong in (np.ones(3, "float32"), np.ones(2)):
        with pytest.raises(ValueError, match="gradient of parameter 0"):
            step(wrong)
    step(np.float32([-1, 2]))
    expected, _ = exact.step({"lr": 0.1, "alpha": 0.9}, expected, np.float32([-1, 2]), state)
    assert p.numpy().tobytes() == expected.tobytes()
