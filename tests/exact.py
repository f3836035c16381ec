# SPDX-License-Identifier: BSD-2-Clause
"""RMSprop in numpy, rounding for rounding: what every kernel must give, to the last bit.

The order of the operations, and which of them are fused multiply-adds, are PyTorch's; where PyTorch has no
counterpart (clipping, decoupled decay, TensorFlow's forms) they are this project's own definition. Every
line below rounds once per operation, in the dtype of the arithmetic; hyper-parameters are combined in
double and rounded once. That this is PyTorch's arithmetic is not taken on trust: `test_oracles.py` compares
it with recordings of PyTorch.

    param, state = exact.step(options, param, grad, state)

`options` holds the constructor's keyword arguments; what is left out has its default. `state` starts as
`{}` and holds arrays under the names of the optimizer's state: square_avg, momentum_buffer, grad_avg,
master_param. Nothing is changed in place.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

DEFAULTS = {
    "lr": 1e-2,
    "alpha": 0.99,
    "eps": 1e-8,
    "weight_decay": 0.0,
    "momentum": 0.0,
    "centered": False,
    "maximize": False,
    "grad_scale": 1.0,
    "clip_norm": 0.0,
    "clip_value": 0.0,
    "lr_in_momentum": False,
    "eps_inside_sqrt": False,
    "decoupled_weight_decay": False,
    "initial_square_avg": 0.0,
}

NORM_BLOCK = 4096
NORM_LANES = 8


class Stepped:
    """One parameter on its way, for `cases.play`."""

    def __init__(self, param):
        self.param, self.state, self.steps = np.array(param), {}, 0

    def advance(self, grad, **options):
        self.param, self.state = step(options, self.param, grad, self.state)
        self.steps += 1

    def snapshot(self) -> dict:
        return dict(self.state, param=self.param, step=self.steps)


def arithmetic_dtype(dtype) -> np.dtype:
    """float16 parameters are updated in float32, the others in their own dtype."""
    dtype = np.dtype(dtype)
    return np.dtype("float32") if dtype == np.float16 else dtype


def with_defaults(options: dict) -> dict:
    unknown = set(options) - set(DEFAULTS)
    if unknown:
        raise TypeError(f"unknown options: {sorted(unknown)}")
    return dict(DEFAULTS, **options)


def step(options: dict, param: np.ndarray, grad: np.ndarray, state: dict):
    """One update of one parameter: `(new param, new state)`.

    `grad` has the parameter's dtype, or float32 (a sum) where the parameter is float16.
    """
    options = with_defaults(options)
    param, grad = np.array(param), np.array(grad)
    dtype = arithmetic_dtype(param.dtype)
    state = {name: np.array(value).ravel() for name, value in state.items()}
    with np.errstate(all="ignore"):
        if param.dtype == np.float16:
            weights = refreshed_master(param.ravel(), state.get("master_param"))
        else:
            weights = param.ravel()
        weights, state = _update(options, weights, grad.ravel().astype(dtype), state)
        if param.dtype == np.float16:
            state["master_param"] = weights
        new_param = weights.astype(param.dtype)
    return new_param.reshape(param.shape), {name: value.reshape(param.shape) for name, value in state.items()}


def _update(options, p, g, state):
    """The recipe, on one-dimensional arrays of the dtype of the arithmetic."""
    number = p.dtype.type
    lr, alpha, eps, momentum = (number(options[name]) for name in ("lr", "alpha", "eps", "momentum"))
    w = number(1 - options["alpha"])

    g = prepared_gradient(options, g)
    if options["maximize"]:
        g = -g
    if options["weight_decay"] != 0:
        if options["decoupled_weight_decay"]:
            p = p * number(1 - options["lr"] * options["weight_decay"])
        else:
            g = fma(p, number(options["weight_decay"]), g)

    v = (
        state["square_avg"]
        if "square_avg" in state
        else np.full_like(p, number(options["initial_square_avg"]))
    )
    v = mean_square(v, g, alpha, w)
    new_state = dict(state, square_avg=v)

    t = v
    if options["centered"]:
        ga = lerp(state["grad_avg"] if "grad_avg" in state else np.zeros_like(p), g, w)
        new_state["grad_avg"] = ga
        t = fma(-ga, ga, v)

    s = np.sqrt(t + eps) if options["eps_inside_sqrt"] else np.sqrt(t) + eps

    if options["momentum"] > 0:
        b = state["momentum_buffer"] if "momentum_buffer" in state else np.zeros_like(p)
        b = b * momentum
        if options["lr_in_momentum"]:
            b = b + (lr * g) / s
            p = p - b
        else:
            b = b + g / s
            p = fma(b, -lr, p)
        new_state["momentum_buffer"] = b
    else:
        p = p + (-lr * g) / s
    return p, new_state


def mean_square(v, g, alpha, w):
    """The running mean of the squares, one step on. `w` is 1 - alpha."""
    return fma(w * g, g, v * alpha)


def prepared_gradient(options, g):
    """Scaled, then clipped by its own L2 norm or else by value."""
    number = g.dtype.type
    if options["grad_scale"] != 1:
        g = g * number(options["grad_scale"])
    if options["clip_norm"] > 0:
        norm = np.sqrt(squared_norm(g))
        if norm > options["clip_norm"]:
            g = g * number(options["clip_norm"] / norm)
    elif options["clip_value"] > 0:
        bound = number(options["clip_value"])
        g = np.minimum(np.maximum(g, -bound), bound)
    return g


def lerp(start, end, weight):
    """PyTorch's `start.lerp(end, weight)`: it leaves from the nearer end, judged by the rounded weight."""
    distance = end - start
    if abs(weight) < 0.5:
        return fma(np.full_like(start, weight), distance, start)
    return fma(-distance, np.full_like(start, 1 - weight), end)


def refreshed_master(param, master):
    """The float32 weights behind a float16 parameter; elements that the user has overwritten come from it."""
    fresh = param.astype(np.float32)
    if master is None:
        return fresh
    untouched = master.astype(np.float16).view(np.uint16) == param.view(np.uint16)
    return np.where(untouched, master, fresh)


def squared_norm(grad: np.ndarray, scale: float = 1.0) -> np.float64:
    """Sum of squares of round(scale * grad), in double, in an order that no thread or vector width changes.

    In each block of 4096, element i goes into running sum i mod 8 by an FMA; the eight are added in pairs;
    then the blocks in order.
    """
    with np.errstate(all="ignore"):
        g = np.asarray(grad).ravel().astype(arithmetic_dtype(grad.dtype))
        if scale != 1:
            g = g * g.dtype.type(scale)
        blocks = -(-g.size // NORM_BLOCK)
        padded = np.zeros(blocks * NORM_BLOCK)
        padded[: g.size] = g
        rows = padded.reshape(blocks, NORM_BLOCK // NORM_LANES, NORM_LANES)
        lanes = np.zeros((blocks, NORM_LANES))
        for row in range(min(rows.shape[1], -(-g.size // NORM_LANES))):
            x = rows[:, row]
            # The square of a float32 is exact in double, so that only the sum rounds.
            lanes = x * x + lanes if g.dtype == np.float32 else fma(x, x, lanes)
        pairs = lanes[:, 0::2] + lanes[:, 1::2]
        block_sums = (pairs[:, 0] + pairs[:, 1]) + (pairs[:, 2] + pairs[:, 3])
        total = np.float64(0)
        for block_sum in block_sums:
            total = total + block_sum
        return total


def accumulate(grad: np.ndarray, total=None) -> np.ndarray:
    """`sum_grad`: first the gradient itself, then the rounded sum; float16 is summed in float32."""
    grad = np.array(grad)
    grad = grad.astype(arithmetic_dtype(grad.dtype))
    with np.errstate(all="ignore"):
        return grad if total is None else np.array(total + grad)


# --- comparing ------------------------------------------------------------------------------------


def bits(array) -> np.ndarray:
    """The array as integers, every NaN as the same one."""
    array = np.array(array)
    array = np.where(np.isnan(array), array.dtype.type("nan"), array)
    return array.view(f"u{array.itemsize}")


def assert_same_bits(actual: list, expected: list, when: str = ""):
    """Compare lists with a dict for each parameter: step count, itself and its states, dtypes and shapes."""
    assert len(actual) == len(expected)
    for place, (ours, theirs) in enumerate(zip(actual, expected)):
        where = f"{when}: parameter {place}"
        assert set(ours) == set(theirs), f"{where} has {sorted(ours)}, expected {sorted(theirs)}"
        assert ours["step"] == theirs["step"], f"{where}: step count"
        for name in sorted(set(theirs) - {"step"}):
            kinds = [(array.dtype.name, array.shape) for array in (ours[name], theirs[name])]
            assert kinds[0] == kinds[1], f"{where}, {name}"
            different = np.flatnonzero(bits(ours[name]) != bits(theirs[name]))
            if different.size:
                ours_first, theirs_first = (
                    array.ravel()[different[0]] for array in (ours[name], theirs[name])
                )
                raise AssertionError(
                    f"{where}, {name}: {different.size} of {ours[name].size} elements differ, "
                    f"first [{different[0]}]: {ours_first!r}, expected {theirs_first!r}"
                )


# --- fused multiply-add ---------------------------------------------------------------------------


def fma(a, b, c) -> np.ndarray:
    """a * b + c with a single rounding, in the arguments' dtype (float32 or float64), for all values."""
    a, b, c = np.broadcast_arrays(a, b, c)
    shape = a.shape
    a, b, c = (np.array(x).ravel() for x in (a, b, c))
    if not a.dtype == b.dtype == c.dtype:
        raise TypeError(f"fma of mixed dtypes: {a.dtype}, {b.dtype}, {c.dtype}")
    with np.errstate(all="ignore"):
        result = _fma32(a, b, c) if a.dtype == np.float32 else _fma64(a, b, c)
    return result.reshape(shape)


def _two_sum(a, b):
    """a + b as the rounded sum and its exact error."""
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)


def _split(a):
    """a as the sum of two halves of at most 26 bits."""
    scaled = a * 134217729.0  # 2**27 + 1
    high = scaled - (scaled - a)
    return high, a - high


def _two_product(a, b):
    """a * b as the rounded product and its exact error (nothing over- or underflows)."""
    product = a * b
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _odd_sum(a, b):
    """a + b rounded to odd: an inexact sum gets an odd last bit, and no later rounding sees a false tie."""
    total, error = _two_sum(a, b)
    even = (total.view(np.int64) & 1) == 0
    to_odd = even & (error != 0) & np.isfinite(total)
    return np.where(to_odd, np.nextafter(total, np.copysign(np.inf, error)), total)


def _fma32(a, b, c):
    """In float64 the product is exact and the sum is rounded to odd, so that the cast rounds as if once."""
    return _odd_sum(a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)).astype(np.float32)


def _fma64(a, b, c):
    """Boldo and Melquiond, "Emulation of FMA and Correctly Rounded Sums: Proved Algorithms Using Rounding to
    Odd" (2008); rational numbers where that could over- or underflow.
    """
    product = a * b
    plain = ~np.isfinite(a) | ~np.isfinite(b) | ~np.isfinite(c) | (a == 0) | (b == 0)
    safe = (np.abs(product) > 1e-280) & (np.abs(product) < 1e300) & (np.abs(c) < 1e300)
    safe &= (np.abs(a) < 1e290) & (np.abs(b) < 1e290)
    high, low = _two_product(a, b)
    sum_high, sum_low = _two_sum(c, low)
    total_high, total_low = _two_sum(high, sum_high)
    result = np.where(plain, product + c, total_high + _odd_sum(sum_low, total_low))
    result = np.where(np.isinf(c) & np.isfinite(a) & np.isfinite(b), c, result)
    for i in np.flatnonzero(~plain & ~safe):
        result[i] = _rational_fma(float(a[i]), float(b[i]), float(c[i]))
    return result


def _rational_fma(a: float, b: float, c: float) -> float:
    """Finite arguments, a and b not zero."""
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return 0.0
    try:
        return (
            exact.numerator / exact.denominator
        )  # rounded correctly, subnormals too; a small negative value gives -0.0
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")
