# SPDX-License-Identifier: BSD-2-Clause
"""Misuses of `optimizer.state`, and of models whose tensors change under the optimizer."""

from __future__ import annotations

import numpy as np

import dragon_optim
from tests.optim.forked_cases import Table
from tests.optim.support import backward, feed_gradient, parameter
from tests.optim.unreadable import dead_tensor, reset_tensor

CASES = Table()
misuse = CASES.case


# --- state ----------------------------------------------------------------------------------------

_WRONG_STATES = {
    "shape": (lambda: np.ones(4), ValueError, r"square_avg must have the shape of its parameter, \(3,\)"),
    "scalar": (lambda: 1.0, ValueError, "square_avg must have the shape"),
    "None": (lambda: None, ValueError, "square_avg"),
    "complex": (lambda: np.ones(3, "complex64"), TypeError, "square_avg must hold real numbers"),
    "strings": (lambda: ["a", "b", "c"], TypeError, "square_avg must hold real numbers"),
    "reset-tensor": (reset_tensor, RuntimeError, "no data"),
    "dead-tensor": (dead_tensor, RuntimeError, "workspace that is gone"),
}
_WRONG_STEPS = {
    "negative": (lambda: -1, ValueError, "Invalid step value: -1"),
    "fraction": (lambda: 1.5, TypeError, "step must be a whole number"),
    "nan": (lambda: float("nan"), TypeError, "step must be a whole number"),
    "string": (lambda: "1", TypeError, "step must be a whole number"),
    "huge": (lambda: 2**70, OverflowError, ""),
    "reset-tensor": (reset_tensor, RuntimeError, "no data"),
}

for _key, _table in {"square_avg": _WRONG_STATES, "step": _WRONG_STEPS}.items():
    for _what, (_value, _exception, _match) in _table.items():

        @misuse(_exception, _match, name=f"state-{_key}-{_what}")
        def _(w, key=_key, value=_value):
            value = value()
            yield lambda: w.optimizer.state[w.p].__setitem__(key, value)

        @misuse(_exception, _match, name=f"state-entry-with-{_key}-{_what}")
        def _(w, key=_key, value=_value):
            entry = {"momentum_buffer": np.zeros(3), key: value()}
            yield lambda: w.optimizer.state.__setitem__(w.p, entry)

        @misuse(_exception, _match, name=f"whole-state-with-{_key}-{_what}")
        def _(w, key=_key, value=_value):
            new = {w.q: {}, w.p: {key: value()}}
            yield lambda: setattr(w.optimizer, "state", new)


@misuse(TypeError, "state of a parameter must be a mapping, but got int")
def state_entry_that_is_no_mapping(w):
    yield lambda: w.optimizer.state.__setitem__(w.p, 5)


@misuse(KeyError, "variance")
def state_that_does_not_exist(w):
    yield lambda: w.optimizer.state[w.p].__delitem__("variance")


@misuse(ValueError, r"a state of parameter 0 of group 0 is float32 of shape \(7,\).*del optimizer.state")
def state_tensor_changed_behind_our_back(w):
    w.optimizer.state[w.p]["grad_avg"]._impl.FromNumpy(np.ones(7, "float32"), True)
    yield w.optimizer.step
    del w.optimizer.state[w.p]["grad_avg"]


@misuse(None)
def one_state_deleted(w):
    yield lambda: w.optimizer.state.__delitem__(w.p)
    w.optimizer.step()  # so that there is a step count again


# --- models that change ---------------------------------------------------------------------------


def _convert(dtype):
    return lambda w: w.p._impl.FromNumpy(np.array(w.p.numpy(), dtype), True)


for _dtype in ("float16", "float64", "int32"):

    @misuse(RuntimeError, f"parameter 0 .* {_dtype}.*float32", name=f"step-after-conversion-to-{_dtype}")
    def _(w, dtype=_dtype):
        """`.half()` and `.double()` convert in place."""
        _convert(dtype)(w)
        yield w.optimizer.step
        _convert("float32")(w)

    @misuse(None, name=f"conversion-to-{_dtype}-and-a-new-start", goes_on=False)
    def _(w, dtype=_dtype):
        if dtype == "int32":
            dtype = "float64"
        _convert(dtype)(w)
        del w.optimizer.state[w.p]
        feed_gradient(w.p, np.ones(3, dtype))
        yield w.optimizer.step
        assert w.optimizer.state[w.p]["step"] == 1


@misuse(TypeError, "parameter 0 is int32", goes_on=False)
def first_step_after_conversion_to_int32(w):
    weight = parameter([1.0])
    optimizer = dragon_optim.RMSprop([weight])
    backward(weight, 1.0)
    weight._impl.FromNumpy(np.ones(1, "int32"), True)
    yield optimizer.step


@misuse(RuntimeError, "parameter 0 has no data")
def export_of_a_parameter_that_was_reset(w):
    weight = parameter([1.0])
    optimizer = dragon_optim.RMSprop([weight])
    weight._impl.Reset()
    yield optimizer.update_graph


@misuse(RuntimeError, "has no data", goes_on=False)
def first_step_of_a_parameter_that_was_reset(w):
    weight = parameter([1.0])
    optimizer = dragon_optim.RMSprop([weight])
    backward(weight, 1.0)
    weight._impl.Reset()
    yield optimizer.step


@misuse(ValueError, r"a state of parameter 0.* shape \(3,\).*shape \(2, 2\)")
def parameter_that_takes_another_shape(w):
    w.p._impl.FromNumpy(np.ones((2, 2), "float32"), True)
    feed_gradient(w.p, np.ones((2, 2), "float32"))
    yield w.optimizer.step
    w.p._impl.FromNumpy(np.ones(3, "float32"), True)


@misuse(None, goes_on=False)
def many_tiny_parameters(w):
    params = [parameter(float(i % 7)) for i in range(8193)]
    optimizer = dragon_optim.RMSprop(params, lr=1.0, alpha=0.75, eps=0.0)
    for param in params:
        feed_gradient(param, np.ones((), "float32"))
    yield optimizer.step
    assert [float(param.numpy()) for param in params] == [i % 7 - 2.0 for i in range(8193)]
