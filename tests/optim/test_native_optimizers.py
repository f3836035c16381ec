# SPDX-License-Identifier: BSD-2-Clause
"""`native_optimizers.RMSprop`: PyTorch's numbers for users of `dragon.optimizers`."""

from __future__ import annotations

import copy
import weakref

import dragon
import numpy as np
import pytest

import dragon_optim
from dragon_optim.native_optimizers import RMSprop
from tests import cases, exact, refusals
from tests.golden.recording import DTYPES
from tests.optim import natives, test_forms, test_golden
from tests.optim.elsewhere import in_thread, run_script
from tests.optim.memory import MEGABYTE, growth
from tests.optim.natives import FunctionRun, NativeRun, canonical, computed, gradient, variable
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


def loss_of(x):
    return dragon.math.sum(x * x * x)


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


# --- pairs ----------------------------------------------------------------------------------------


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


DEAD = """
import gc, sys
import dragon
from dragon_optim.native_optimizers import RMSprop
from tests.optim.natives import variable
home = dragon.Workspace()
with home.as_default():
    dead = variable([1.0, 2.0])
del home
gc.collect()
mine = variable([1.0, 2.0])
try:
    RMSprop().apply_gradients([(mine, dead) if sys.argv[1] == "variable" else (dead, mine)])
except RuntimeError as error:
    print(error)
assert mine.numpy().tolist() == [1.0, 2.0]
"""


@pytest.mark.parametrize("which", ["variable", "gradient"])
def test_a_tensor_of_a_dead_workspace(which):
    child = run_script(DEAD, which)
    assert child.returncode == 0, child.stderr
    assert "belongs to a Dragon workspace that is gone" in child.stdout


def test_another_workspace_or_thread():
    p, optimizer = variable([1.0]), RMSprop()
    pairs = [(canonical(p, np.ones(1, "float32")), p)]
    function = dragon.function(lambda: optimizer.apply_gradients(pairs))
    function()
    with dragon.Workspace().as_default():
        for call in (lambda: optimizer.apply_gradients(pairs), function):
            with pytest.raises(RuntimeError, match="another Dragon workspace"):
                call()
    with pytest.raises(RuntimeError, match="another Dragon workspace"):
        in_thread(lambda: optimizer.apply_gradients(pairs))
    assert optimizer.state_of(p)["step"] == 1


CLEARED = """
import dragon, numpy as np, sys
from dragon_optim.native_optimizers import RMSprop
from tests.optim.natives import canonical, variable
p, optimizer = variable([1.0, 2.0]), RMSprop()
pairs = [(canonical(p, np.ones(2, "float32")), p)]
function = dragon.function(lambda: optimizer.apply_gradients(pairs))
function(); optimizer.apply_gradients(pairs)
dragon.get_workspace().clear()
for call in (function, lambda: optimizer.apply_gradients(pairs)):
    try:
        call()
    except RuntimeError as error:
        print("RuntimeError", error)
"""


def test_a_cleared_workspace_raises():
    child = run_script(CLEARED)
    assert child.returncode == 0, child.stderr
    assert child.stdout.count("RuntimeError the Dragon workspace of this optimizer was cleared") == 2


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("give", [canonical, computed])
def test_state_is_given_back(ws, give, no_collector):
    p = variable(np.ones(1 << 18))
    grad = give(p, np.ones(1 << 18, "float32"))
    before = ws.memory_allocated()
    optimizer = RMSprop(momentum=0.9, centered=True)
    small = ws.memory_allocated() - before
    for _ in range(3):
        optimizer.apply_gradients([(grad, p)])
        assert ws.memory_allocated() - before - small == 3 * MEGABYTE
    del optimizer
    assert ws.memory_allocated() == before


def test_a_function_keeps_its_optimizer(ws, no_collector):
    p = variable([1.0])
    optimizer = RMSprop(lr=0.1)
    grad = canonical(p, np.ones(1, "float32"))
    weak = weakref.ref(optimizer)  # the function object itself holds nothing
    function = dragon.function(lambda: weak().apply_gradients([(grad, p)]))
    function()
    state = values(optimizer.state_of(p)["square_avg"])
    del optimizer
    other = RMSprop()  # would get the names of a dead one's states
    q = variable([5.0])
    other.apply_gradients([(canonical(q, np.full(1, 9.0, "float32")), q)])
    before = values(other.state_of(q)["square_avg"])
    function()
    assert values(other.state_of(q)["square_avg"]).tobytes() == before.tobytes()
    expected, _ = exact.step({"lr": 0.1, "alpha": 0.9}, *[np.ones(1, "float32")] * 2, {})
    expected, _ = exact.step(
        {"lr": 0.1, "alpha": 0.9}, expected, np.ones(1, "float32"), {"square_avg": state}
    )
    assert p.numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("give", [canonical, computed])
def test_nothing_grows_from_step_to_step(ws, give):
    pair = [variable(np.ones(100)) for _ in range(2)]
    optimizer = RMSprop(momentum=0.9)

    def step(number):
        optimizer.lr = 0.1 / (1 + number)
        optimizer.apply_gradients([(give(var, np.ones(100, "float32")), var) for var in pair])

    grown = growth(ws, step, first=300, then=2000)
    assert grown.after == grown.before
    assert grown.resident <= 1 << 20


def test_changing_sets_of_gradients_are_bounded(ws):
    """Dragon never frees a graph: only a few sets get one, and nothing is kept of the others."""
    pool = [variable(np.ones(10)) for _ in range(10)]
    optimizer = RMSprop()
    numbers = np.random.default_rng(0)

    def step(_):
        chosen = [var for var in pool if numbers.random() < 0.5]
        optimizer.apply_gradients([(canonical(var, np.ones(10, "float32")), var) for var in chosen])

    grown = growth(ws, step, first=1500, then=1500)
    assert len(grown.after["graphs"]) <= 8
    assert grown.after == grown.before
    assert grown.resident <= 2 << 20


def test_optimizers_that_come_and_go(ws):
    p = variable(np.ones(100))

    def train(_):
        optimizer = RMSprop(momentum=0.9)
        for _ in range(3):
            optimizer.apply_gradients([(canonical(p, np.ones(100, "float32")), p)])

    grown = growth(ws, train, first=100, then=300)
    assert grown.after == grown.before
    assert grown.resident <= 1 << 20


def test_new_variables_inherit_nothing():
    def run():
        p = variable([1.0])
        optimizer = RMSprop(lr=0.1, momentum=0.9)
        optimizer.apply_gradients([(canonical(p, np.full(1, 2.0, "float32")), p)])
        return p.numpy().tobytes()

    assert run() == run()


def test_clipping_twice_warns():
    optimizer = RMSprop(clip_norm=1.0)
    with pytest.warns(UserWarning, match="clip_norm wins"):
        optimizer.clip_value = 0.5
