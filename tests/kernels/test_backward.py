# SPDX-License-Identifier: BSD-2-Clause
"""The way back through an update: lengths, alignments, threads, lists, missing buffers, memory around them.

Its numbers are compared with a reverse pass written here, over whole arrays; `tests/optim/` compares them
with differences of values besides.
"""

from __future__ import annotations

import ctypes
import itertools

import numpy as np
import pytest

from tests.kernels import library
from tests.kernels.forms import RICH
from tests.kernels.library import DTYPE_CODES, NUMBERS, Guarded

GIVEN = ("grad", "param", "square_avg", "momentum_buffer", "grad_avg")
FROM = ("from_param", "from_square_avg", "from_momentum_buffer", "from_grad_avg")
TO = ("to_grad", "to_param", "to_square_avg", "to_momentum_buffer", "to_grad_avg")
DTYPES = ("float32", "float64")
LIMITS = {"float32": 2e-5, "float64": 1e-13}

FORMS = [
    {name: value for part in parts for name, value in part.items()}
    for parts in itertools.product(
        [{}, {"momentum": 0.9}, {"momentum": 0.9, "lr_in_momentum": True}],
        [{}, {"centered": True, "alpha": 0.9}, {"centered": True, "alpha": 0.3}],
        [{}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled_weight_decay": True}],
        [{}, {"eps_inside_sqrt": True}],
        [{}, {"grad_scale": 0.3}, {"clip_norm": 0.7}, {"clip_value": 0.6}, {"maximize": True}],
    )
]
LENGTHS = [*range(36), 63, 64, 65, 127, 128, 129, 511, 512, 513, 1025, 4097, 20001]


class BackwardTensor(ctypes.Structure):
    _fields_ = (("size", ctypes.c_int64), *((name, ctypes.c_void_p) for name in GIVEN + FROM + TO))


def random_arrays(size, dtype, seed=0):
    rng = np.random.RandomState(seed)
    arrays = {name: rng.uniform(-1, 1, size).astype(dtype) for name in GIVEN + FROM}
    arrays["square_avg"] = rng.uniform(1, 2, size).astype(dtype)
    arrays["grad"] = (np.sign(arrays["grad"]) * (0.25 + np.abs(arrays["grad"]))).astype(dtype)
    return arrays


class Tensors:
    """Arrays between guards, for one call of the kernel."""

    def __init__(self, arrays: list, offset=0, left_out=()):
        self.buffers = []
        self.tensors = (BackwardTensor * len(arrays))()
        for tensor, each in zip(self.tensors, arrays):
            empty = {name: np.full(each["grad"].size, 7, each["grad"].dtype) for name in TO}
            guarded = {
                name: Guarded(array, offset)
                for name, array in {**each, **empty}.items()
                if name not in left_out
            }
            tensor.size = each["grad"].size
            for name, buffer in guarded.items():
                setattr(tensor, name, buffer.pointer)
            self.buffers.append(guarded)
        self.dtype = DTYPE_CODES[arrays[0]["grad"].dtype.name]

    def run(self, options, threads=1, by_options=True):
        """Return the derivatives by the options, or None; the arrays hold the others."""
        before = [buffer.array.tobytes() for each in self.buffers for buffer in each.values()]
        sums = (ctypes.c_double * len(NUMBERS))()
        library.call(
            "rmsprop_backward",
            self.dtype,
            ctypes.byref(library.make_options(options)),
            self.tensors,
            ctypes.c_int64(len(self.tensors)),
            threads,
            sums if by_options else None,
        )
        for each, (name, buffer) in zip(before, [pair for one in self.buffers for pair in one.items()]):
            buffer.check()
            assert name in TO or buffer.array.tobytes() == each, f"{name} was changed"
        return dict(zip(NUMBERS, sums)) if by_options else None

    def results(self, index=0):
        return {name: self.buffers[index][name].array.copy() for name in TO if name in self.buffers[index]}


def backward(options, arrays):
    """The same in float64 and over whole arrays: every line of the step, then the lines in reverse."""
    o = dict(lr=0.01, alpha=0.99, eps=1e-8, weight_decay=0, momentum=0, grad_scale=1, clip_norm=0)
    o = {**o, "clip_value": 0, **options}
    a = {name: array.astype("float64") for name, array in arrays.items()}
    flag = {name: bool(options.get(name)) for name in library.FLAGS}
    by = dict.fromkeys(NUMBERS, 0.0)

    scaled = a["grad"] * o["grad_scale"]
    norm = np.sqrt((scaled**2).sum())
    shrunk = o["clip_norm"] > 0 and norm > o["clip_norm"]
    clipped = scaled * (o["clip_norm"] / norm) if shrunk else scaled
    by_value = o["clip_value"] > 0 and not o["clip_norm"]
    bounded = np.clip(clipped, -o["clip_value"], o["clip_value"]) if by_value else clipped
    sign = -1 if flag["maximize"] else 1
    l2 = 0 if flag["decoupled_weight_decay"] else o["weight_decay"]
    keep = 1 - o["lr"] * o["weight_decay"] if flag["decoupled_weight_decay"] else 1
    g = sign * bounded + l2 * a["param"]
    square = o["alpha"] * a["square_avg"] + (1 - o["alpha"]) * g**2
    mean = o["alpha"] * a["grad_avg"] + (1 - o["alpha"]) * g
    spread = square - mean**2 if flag["centered"] else square
    inside = flag["eps_inside_sqrt"]
    root = np.sqrt(spread + o["eps"]) if inside else np.sqrt(spread)
    divisor = root if inside else root + o["eps"]
    q = g / divisor

    d_param, d_mean, d_square = a["from_param"], a["from_grad_avg"], a["from_square_avg"]
    to = {"to_param": keep * d_param}
    if o["momentum"] and flag["lr_in_momentum"]:
        d_buffer = a["from_momentum_buffer"] - d_param
        d_q, by["lr"] = o["lr"] * d_buffer, (d_buffer * q).sum()
    elif o["momentum"]:
        d_buffer = a["from_momentum_buffer"] - o["lr"] * d_param
        d_q, by["lr"] = d_buffer, -(d_param * (o["momentum"] * a["momentum_buffer"] + q)).sum()
    else:
        d_buffer = np.zeros_like(g)
        d_q, by["lr"] = -o["lr"] * d_param, -(d_param * q).sum()
    to["to_momentum_buffer"] = o["momentum"] * d_buffer
    by["momentum"] = (d_buffer * a["momentum_buffer"]).sum() if o["momentum"] else 0.0
    d_divisor = -d_q * q / divisor
    d_spread = d_divisor / (2 * root)
    by["eps"] = (d_spread if inside else d_divisor).sum()
    if flag["centered"]:
        d_mean = d_mean - 2 * mean * d_spread
        to["to_grad_avg"] = o["alpha"] * d_mean
    else:
        d_mean = np.zeros_like(g)
    d_square = d_square + d_spread
    to["to_square_avg"] = o["alpha"] * d_square
    by["alpha"] = (d_square * (a["square_avg"] - g**2) + d_mean * (a["grad_avg"] - g)).sum()
    d_g = d_q / divisor + (1 - o["alpha"]) * (2 * g * d_square + d_mean)
    to["to_param"] = to["to_param"] + l2 * d_g
    by["weight_decay"] = (d_g * a["param"]).sum()
    if flag["decoupled_weight_decay"]:
        by["weight_decay"] = -o["lr"] * (d_param * a["param"]).sum()
        by["lr"] -= o["weight_decay"] * (d_param * a["param"]).sum()
    d_bounded = sign * d_g
    outside = np.abs(clipped) > o["clip_value"] if by_value else np.zeros(g.shape, bool)
    by["clip_value"] = (d_bounded * np.sign(clipped))[outside].sum()
    d_clipped = np.where(outside, 0, d_bounded)
    if shrunk:
        along = (d_clipped * scaled).sum()
        by["clip_norm"] = along / norm
        d_scaled = o["clip_norm"] / norm * (d_clipped - along / norm**2 * scaled)
    else:
        d_scaled = d_clipped
        by["grad_scale"] = (d_scaled * a["grad"]).sum()
    to["to_grad"] = o["grad_scale"] * d_scaled
    return to, by


def assert_close(actual, expected, dtype, what):
    error = np.abs(np.asarray(actual, "float64") - expected).max(initial=0)
    assert error <= LIMITS[dtype] * max(1.0, np.abs(expected).max(initial=0)), f"{what}: off by {error}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_form(dtype, forced_isa):
    for seed, options in enumerate(FORMS):
        options = dict(options, eps=1e-3)
        arrays = random_arrays(133, dtype, seed)
        tensors = Tensors([arrays])
        by = tensors.run(options)
        expected, expected_by = backward(options, arrays)
        for name, array in expected.items():
            if name != "to_momentum_buffer" or options.get("momentum"):
                assert_close(tensors.results()[name], array, dtype, f"{options} {name}")
        for name, number in expected_by.items():
            assert_close(by[name], number * 1.0, dtype, f"{options} by {name}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_lengths_and_alignments(dtype, forced_isa):
    """The bits of an element do not depend on where it stands, those of a sum on where the memory lies."""
    arrays = random_arrays(max(LENGTHS), dtype)
    whole = Tensors([arrays])
    whole.run(RICH)
    for size in LENGTHS:
        part = {name: array[:size] for name, array in arrays.items()}
        sums = []
        for offset in range(4):
            tensors = Tensors([part], offset)
            sums.append(tensors.run(RICH))
            for name, array in tensors.results().items():
                library.assert_same_bits(array, whole.results()[name][:size], f"{name} {size} {offset}")
        assert sums.count(sums[0]) == len(sums)
        _, expected = backward(RICH, part)
        for name, number in expected.items():
            assert_close(sums[0][name], number * 1.0, dtype, f"size {size} by {name}")


@pytest.mark.parametrize("options", [RICH, {"clip_norm": 0.5, "momentum": 0.9}], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits_for_threads_and_instruction_sets(dtype, options):
    sizes = (0, 70001, 1, 512, 513, 40000, 17)
    listed = [random_arrays(size, dtype, size) for size in sizes]
    before, found = library.isa(), []
    for isa, threads in itertools.product(library.supported_isas(), (1, 2, 3, 1000)):
        library.set_isa(isa)
        tensors = Tensors(listed, offset=1)
        by = tensors.run(options, threads)
        found.append((by, [tensors.results(i) for i in range(len(sizes))]))
    library.set_isa(before)
    for by, results in found[1:]:
        assert by == found[0][0]
        for each, first in zip(results, found[0][1]):
            library.assert_all_same_bits(each, first)


def test_a_list_is_its_tensors_one_by_one():
    options = {"clip_norm": 0.5, "grad_scale": 2.0, "lr": 0.1, "momentum": 0.5}
    listed = [random_arrays(size, "float64", size) for size in (3, 0, 700, 1)]
    together = Tensors(listed)
    by = together.run(options)
    alone = []
    for index, arrays in enumerate(listed):
        tensors = Tensors([arrays])
        alone.append(tensors.run(options))
        library.assert_all_same_bits(together.results(index), tensors.results())
    for name in NUMBERS:
        total = 0.0
        for each in alone:
            total += each[name]
        assert by[name] == total


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_missing_flows_nothing_and_what_is_not_wanted_is_not_written(dtype):
    arrays = random_arrays(600, dtype)
    for left_out in [*[(name,) for name in FROM + TO], FROM, TO]:
        zeroed = {name: np.zeros_like(each) if name in left_out else each for name, each in arrays.items()}
        full, lacking = Tensors([zeroed]), Tensors([arrays], left_out=left_out)
        assert full.run(RICH) == lacking.run(RICH)
        for name, array in lacking.results().items():
            library.assert_same_bits(array, full.results()[name], f"{name} without {left_out}")


def test_the_options_need_not_be_asked_for():
    arrays = random_arrays(600, "float64")
    for options in (RICH, {"clip_norm": 0.5}):
        asked, not_asked = Tensors([arrays]), Tensors([arrays])
        asked.run(options)
        not_asked.run(options, by_options=False)
        library.assert_all_same_bits(not_asked.results(), asked.results())


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_flows_through_a_root_of_zero(dtype):
    """There the step is a straight line in the gradient: PyTorch's derivative is NaN."""
    arrays = random_arrays(4, dtype)
    arrays["grad"][:], arrays["square_avg"][:] = 0, 0
    tensors = Tensors([arrays])
    by = tensors.run({"lr": 0.5, "eps": 0.25})
    assert tensors.results()["to_grad"].tolist() == (-2 * arrays["from_param"]).tolist()
    assert np.isfinite(list(by.values())).all()


def test_a_negative_variance_is_nan_backwards_too():
    """Centered, the mean square may round below zero: the step gives NaN there, and so do its derivatives."""
    arrays = random_arrays(3, "float64")
    arrays["square_avg"][:], arrays["grad_avg"][:] = 0.01, 5
    tensors = Tensors([arrays])
    tensors.run({"centered": True})
    assert np.isnan(tensors.results()["to_grad"]).all()


@pytest.mark.parametrize("code", [0, 3, -1])
def test_wrong_dtypes_are_errors(code):
    with pytest.raises(ValueError, match="Invalid dtype"):
        library.call(
            "rmsprop_backward",
            code,
            ctypes.byref(library.make_options({})),
            (BackwardTensor * 0)(),
            ctypes.c_int64(0),
            1,
            None,
        )
