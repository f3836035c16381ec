# SPDX-License-Identifier: BSD-2-Clause
"""The update against the bit-exact oracle: forms, lengths, alignments, threads, lists, special values."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest

from tests import exact
from tests.kernels import forms, library
from tests.kernels.forms import RICH
from tests.kernels.library import Parameters, assert_all_same_bits

# (dtype of the parameters, dtype of the gradients)
DTYPES = [("float32", "float32"), ("float64", "float64"), ("float16", "float16"), ("float16", "float32")]

# TensorFlow begins at 1 where it has eps inside the root.
FORMS = [dict(form, initial_square_avg=1.0) if "eps_inside_sqrt" in form else form for form in forms.FORMS]

LENGTHS = list(range(71)) + [127, 128, 129, 511, 512, 513, 4095, 4096, 4097, 16383, 16384, 16385, 100003]


def random_arrays(size: int, dtypes, seed: int = 0):
    """A parameter, and gradients over six orders of magnitude."""
    rng = np.random.RandomState(seed)
    grad = rng.randn(size) * 10.0 ** rng.uniform(-4, 2, size)
    return rng.randn(size).astype(dtypes[0]), grad.astype(dtypes[1])


def oracle(options: dict, param, grad, state=None) -> dict:
    param, state = exact.step(options, param, grad, {} if state is None else state)
    return dict(state, param=param)


@functools.lru_cache(maxsize=None)
def two_steps(form: int, dtypes):
    """Start and both results for an entry of FORMS, in the oracle."""
    param, grad = random_arrays(133, dtypes, seed=form)
    first = oracle(FORMS[form], param, grad)
    state = {name: value for name, value in first.items() if name != "param"}
    return param, grad, first, oracle(FORMS[form], first["param"], grad[::-1], state)


@pytest.mark.parametrize("dtypes", DTYPES, ids="/".join)
def test_every_form(dtypes, forced_isa):
    for form, options in enumerate(FORMS):
        param, grad, first, second = two_steps(form, dtypes)
        tensors = Parameters([param], [grad], options)
        tensors.update()
        assert_all_same_bits(tensors.arrays(), first, f"{options} step 1")
        tensors.grads[0].array[...] = grad[::-1]
        tensors.update()
        assert_all_same_bits(tensors.arrays(), second, f"{options} step 2")


@pytest.mark.parametrize("dtypes", DTYPES, ids="/".join)
def test_lengths_and_alignments(dtypes, forced_isa):
    param, grad = random_arrays(max(LENGTHS), dtypes)
    expected = long_run(dtypes)
    for size, offset in itertools.product(LENGTHS, range(4)):
        if size > 5000 and offset == 2:
            continue  # nothing that offset 1 does not show; saves a third of the time
        tensors = Parameters([param[:size]], [grad[:size]], RICH, offset)
        tensors.update()
        arrays = {name: value[:size] for name, value in expected.items()}
        assert_all_same_bits(tensors.arrays(), arrays, f"size {size} offset {offset}")


@functools.lru_cache(maxsize=None)
def long_run(dtypes) -> dict:
    return oracle(RICH, *random_arrays(max(LENGTHS), dtypes))


@pytest.mark.parametrize("threads", [-1, 1, 2, 3, 1000])
@pytest.mark.parametrize("dtypes", DTYPES, ids="/".join)
def test_threads(dtypes, threads, forced_isa):
    tensors = Parameters(*[[array] for array in random_arrays(max(LENGTHS), dtypes)], RICH, offset=1)
    tensors.update(threads)
    assert_all_same_bits(tensors.arrays(), long_run(dtypes), f"{threads} threads")


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtypes", DTYPES, ids="/".join)
def test_clip_norm_over_threads(dtypes, threads):
    options = {"clip_norm": 0.5, "grad_scale": 3.0}
    pairs = [random_arrays(size, dtypes, size) for size in (0, 40000, 4097, 4096, 70001, 1)]
    params, grads = zip(*pairs)
    tensors = Parameters(params, grads, options)
    tensors.update(threads)
    for index, (param, grad) in enumerate(pairs):
        assert_all_same_bits(tensors.arrays(index), oracle(options, param, grad), f"tensor {index}")


@pytest.mark.parametrize("dtypes", DTYPES, ids="/".join)
def test_a_long_list_of_tiny_tensors(dtypes):
    """8193 of them, every 23rd empty, and a large one among them: like one tensor of that size."""
    sizes = [size % 23 for size in range(8191)] + [50000, 0]
    param, grad = random_arrays(sum(sizes), dtypes)
    expected = oracle(RICH, param, grad)
    for threads in (1, 2, 3):
        tensors = Parameters([param], [grad], RICH, offset=1)
        tensors.update(threads, sizes)
        assert_all_same_bits(tensors.arrays(), expected, f"{threads} threads")


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtypes", DTYPES, ids="/".join)
def test_a_list_equals_its_tensors_one_by_one(dtypes, threads):
    options = dict(RICH, clip_norm=1.0)
    pairs = [random_arrays(size % 29, dtypes, size) for size in range(100)]
    pairs[50:50] = [random_arrays(size, dtypes, size) for size in (90000, 0, 4096)]
    listed = Parameters(*zip(*pairs), options)
    listed.update(threads)
    for index, (param, grad) in enumerate(pairs):
        alone = Parameters([param], [grad], options)
        alone.update()
        assert_all_same_bits(listed.arrays(index), alone.arrays(), f"tensor {index}")


@pytest.mark.parametrize("dtypes", DTYPES, ids="/".join)
def test_clip_norm_begins_above_the_norm(dtypes):
    param, grad = random_arrays(3, dtypes)
    grad[:] = 3, 0, 4  # of norm 5
    for clip_norm in (4.999, 5.0, 5.001):
        tensors = Parameters([param], [grad], {"clip_norm": clip_norm, "eps": 1.0})
        tensors.update()
        assert_all_same_bits(tensors.arrays(), oracle({"clip_norm": clip_norm, "eps": 1.0}, param, grad))


def test_an_empty_list_is_no_error():
    library.call_update(1, 1, {}, (library.Tensor * 0)(), threads=2)


SPECIAL = [0.0, 1.0, 1e-3, 3e4, np.inf, np.nan]
EXTREME = {
    "float16": [6e-8, 6.1e-5],
    "float32": [1e-45, 1.2e-38, 1e-20, 3e38],
    "float64": [5e-324, 2.3e-308, 1e-160, 1e308],
}
SPECIAL_OPTIONS = [
    {},
    {"eps": 0.0},
    {"momentum": 0.9, "weight_decay": 0.1},
    {"momentum": 0.9, "centered": True, "maximize": True},
    {"momentum": 0.9, "centered": True, "alpha": 0.2, "lr_in_momentum": True},
    {"eps_inside_sqrt": True, "grad_scale": 1e3, "clip_value": 100.0},
    {"eps_inside_sqrt": True, "eps": 0.0, "grad_scale": 0.0},
    {"clip_norm": 1.0},
    {"decoupled_weight_decay": True, "weight_decay": 0.5, "grad_scale": 1e-30},
    {"lr": 0.0, "alpha": 1.0, "weight_decay": float("inf")},
    {"lr": float("inf"), "alpha": 1.5, "centered": True},
    {"alpha": 2.0, "centered": True, "momentum": 0.5},
    {"lr": 1e300, "eps": 1e-300, "alpha": 0.5},
    {"lr": float("inf"), "weight_decay": 0.0, "decoupled_weight_decay": True},
    # A negative weight and a tiny gradient make a square_avg of -0, which an eps of -0 leaves as it is.
    {"alpha": 1.5, "eps": -0.0},
    {"alpha": 1.5, "eps": -0.0, "eps_inside_sqrt": True},
]


@pytest.mark.parametrize("dtypes", DTYPES, ids="/".join)
@pytest.mark.parametrize("options", SPECIAL_OPTIONS, ids=str)
def test_special_values(options, dtypes, forced_isa):
    """NaN, infinities, denormals and zeros of both signs meet each other in gradient, parameter and state."""
    grads, params = (
        np.array([sign * value for value in SPECIAL + EXTREME[name] for sign in (1, -1)]).astype(name)
        for name in (dtypes[1], dtypes[0])
    )
    averages = np.array([0.0, -0.0, 1.0, np.inf, np.nan] + EXTREME[dtypes[0]])
    averages = averages.astype(exact.arithmetic_dtype(dtypes[0]))
    grad, param, average = (array.ravel() for array in np.meshgrid(grads, params, averages))
    state = {"square_avg": average}
    if "momentum" in options:
        state["momentum_buffer"] = -average[::-1]
    if "centered" in options:
        state["grad_avg"] = np.sqrt(average)
    if dtypes[0] == "float16":
        state["master_param"] = param.astype(np.float32)
    tensors = Parameters([param], [grad], options, states=[state])
    tensors.update()
    assert_all_same_bits(tensors.arrays(), oracle(options, param, grad, state), str(options))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtypes", DTYPES, ids="/".join)
def test_clip_norm_of_gradients_that_are_not_finite(dtypes, bad):
    """A NaN norm clips nothing; an infinite one makes the factor 0, and 0 * infinity is NaN."""
    param, grad = random_arrays(100, dtypes)
    grad[17] = bad
    tensors = Parameters([param], [grad], {"clip_norm": 1.0})
    tensors.update()
    assert_all_same_bits(tensors.arrays(), oracle({"clip_norm": 1.0}, param, grad))


@pytest.mark.parametrize("grad_dtype", ["float16", "float32"])
def test_a_master_is_refreshed_where_its_parameter_was_overwritten(grad_dtype, forced_isa):
    param, grad = random_arrays(1500, ("float16", grad_dtype))
    master = param.astype(np.float32) * np.float32(1.0001)
    state = {"square_avg": np.zeros(1500, np.float32), "master_param": master}
    param[::3] = np.float16(2.0)
    param[5], param[7], param[11] = np.nan, -0.0, np.inf
    tensors = Parameters([param], [grad], {}, states=[state])
    tensors.update()
    expected = oracle({}, param, grad, state)
    assert_all_same_bits(tensors.arrays(), expected)
    assert abs(expected["master_param"][3] - 2.0) < 0.2


@pytest.mark.parametrize("codes", [(1, 2), (2, 1), (1, 0), (0, 2), (1, 3), (3, 0), (3, 2), (4, 4), (-1, 1)])
def test_wrong_dtypes_are_errors(codes):
    with pytest.raises(ValueError, match="Invalid dtype"):
        library.call_update(*codes, {}, (library.Tensor * 0)(), threads=1)


CHANGES = [
    {},
    {"lr": 0.1},
    {"alpha": 0.5},
    {"eps": 0.1},
    {"eps": 0.1, "eps_inside_sqrt": True},
    {"momentum": 0.9},
    {"momentum": 0.9, "lr_in_momentum": True},
    {"centered": True},
    {"maximize": True},
    {"weight_decay": 0.1},
    {"weight_decay": 0.1, "decoupled_weight_decay": True},
    {"grad_scale": 0.5, "eps": 0.1},
    {"clip_norm": 0.1, "eps": 0.1},
    {"clip_value": 0.1},
]


def test_each_option_changes_the_result():
    """Guards the tests above: kernels that ignore an option agree with an oracle that ignores it too."""
    param, grad = random_arrays(64, ("float32", "float32"))
    results = set()
    for options in CHANGES:
        tensors = Parameters([param], [grad], options)
        tensors.update()
        tensors.update(lr=0.5)
        results.add(tensors.arrays()["param"].tobytes())
    assert len(results) == len(CHANGES)
