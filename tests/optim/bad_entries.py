# SPDX-License-Identifier: BSD-2-Clause
"""State dicts that must be refused, and in which words: states that do not fit, and other optimizers'."""

from __future__ import annotations

import datetime
import threading

import numpy as np

from tests.golden import state_dicts
from tests.golden.state_dicts import Array, Foreign
from tests.optim.bad_state_dicts import NUMBER, RECORDED, Bad, drop, put

# --- states ---------------------------------------------------------------------------------------

SECOND = r"^loaded state dict, entry 1, for parameter 1 of group 0 \(shape \(4,\)\): "
STATES = ("square_avg", "momentum_buffer", "grad_avg", "master_param")


class Sparse(Foreign):
    """A tensor of PyTorch that has no array."""

    def detach(self):
        return self

    def cpu(self):
        return self

    def float(self):
        return self

    def numpy(self):
        raise TypeError("can't convert Sparse layout tensor to numpy")


class OnMeta(Sparse):
    def cpu(self):
        raise NotImplementedError("Cannot copy out of meta tensor; no data!")


SHAPES = {
    "scalar": np.ones(()),
    "number": 1.0,
    "shorter": np.ones(3),
    "longer": np.ones(5),
    "other-rank": np.ones((2, 2)),
    "one-more-axis": np.ones((4, 1)),
    "broadcastable": np.ones(1),
    "nothing": np.ones(0),
    "None": None,
    "dict": {},
    "string": "abcd",
    "list": [1.0, 2.0],
    "pytorchs": Foreign(Array(np.ones(3, "float32"), "float32")),
    "bfloat16": Foreign(Array(np.ones(3, "uint16"), "bfloat16")),
}
DTYPES = {
    "complex": np.ones(4, "complex64"),
    "bool": np.ones(4, "bool"),
    "object": np.array([1.0, 2.0, 3.0, None], object),
    "text": np.array(list("abcd")),
    "bytes": np.array([b"a"] * 4),
    "time": np.array([datetime.datetime(2000, 1, 1)] * 4, "datetime64[s]"),
    "record": np.zeros(4, [("a", "float32")]),
    "list-of-text": list("abcd"),
    "pytorchs-complex": Foreign(Array(np.ones(4, "complex64"), "complex64")),
    "pytorchs-bool": Foreign(Array(np.ones(4, "bool"), "bool")),
}

ENTRIES = [
    *[
        Bad(
            f"{state}-{name}",
            put(f"state 1 {state}", value),
            ValueError,
            SECOND + rf"{state} must have the shape of its parameter, \(4,\), but got",
        )
        for state in STATES
        for name, value in SHAPES.items()
    ],
    *[
        Bad(
            f"{state}-{name}",
            put(f"state 1 {state}", value),
            TypeError,
            SECOND + f"{state} must hold real numbers, but got dtype",
        )
        for state in STATES
        for name, value in DTYPES.items()
    ],
    *[
        Bad(
            name,
            put("state 1 grad_avg", value),
            TypeError,
            SECOND + "grad_avg must be a dense tensor of real",
        )
        for name, value in (("sparse", Sparse(None)), ("meta", OnMeta(None)))
    ],
    Bad(
        "axes-swapped",
        lambda saved: put("state 0 grad_avg", saved["state"][0]["grad_avg"].T)(saved),
        ValueError,
        r"parameter 0 of group 0 \(shape \(2, 3\)\): grad_avg must have .*\(2, 3\), but got \(3, 2\)",
    ),
    Bad(
        "scalar-with-axis",
        put("state 2 square_avg", np.ones(1)),
        ValueError,
        r"parameter 0 of group 1 \(shape \(\)\)",
    ),
    Bad("the-last-state", put("state 3 grad_avg", np.ones(4)), ValueError, "parameter 1 of group 1"),
    Bad("ragged", put("state 1 square_avg", [1.0, [2.0], 3.0, 4.0]), TypeError, SECOND),
    Bad(
        "with-names",
        put("state 2 square_avg", np.ones(2)),
        ValueError,
        r"for parameter 2 of group 0 \('scale', shape \(\)\): square_avg",
        "named",
    ),
    *[
        Bad(
            f"entry-{value!r}",
            put("state 1", value),
            TypeError,
            SECOND + "the state of a parameter must be a mapping",
        )
        for value in (None, 5, [], "x", np.ones(4))
    ],
    Bad(
        "without-square_avg",
        drop("state 1 square_avg"),
        KeyError,
        "lacks 'square_avg'; it has .*'grad_avg', 'momentum_buffer', 'step'",
    ),
    Bad("only-step", put("state 1", {"step": 3}), KeyError, "lacks 'square_avg'"),
    Bad(
        "adams-entry",
        put("state 1", {"step": 3, "exp_avg": np.ones(4), "exp_avg_sq": np.ones(4)}),
        KeyError,
        r"entry 1, for parameter 1 of group 0 \(shape \(4,\)\): lacks 'square_avg'.*Is it of another",
    ),
    Bad("lock-in-an-entry", put("state 1 mine", threading.Lock()), TypeError, "cannot pickle"),
    Bad("lock-elsewhere", put("state seen", [threading.Lock()]), TypeError, "cannot pickle"),
]

STEPS = [
    Bad(f"step-{name}", put("state 1 step", value), exception, SECOND + match)
    for name, value, exception, match in [
        ("negative", -1, ValueError, r"Invalid step value: -1 \(need step >= 0\)"),
        ("negative-float", -1.0, ValueError, "Invalid step value: -1"),
        ("negative-array", np.float32(-1), ValueError, "Invalid step value: -1"),
        ("fraction", 1.5, TypeError, "step must be a whole number"),
        ("fraction-array", np.array(1.5, "float32"), TypeError, "step must be a whole number"),
        ("nan", float("nan"), TypeError, "step must be a whole number"),
        ("nan-array", np.array(np.nan, "float32"), TypeError, "step must be a whole number"),
        ("inf", float("inf"), TypeError, "step must be a whole number"),
        ("2**62", 2**62, OverflowError, r"Invalid step value: 4611686018427387904 \(need step < 2\*\*62\)"),
        ("2**63-array", np.array(2**63, "uint64"), OverflowError, "Invalid step value: 9223372036854775808"),
        ("2**63-float", 2.0**63, OverflowError, "Invalid step value"),
        ("1e300", 1e300, OverflowError, "Invalid step value"),
        ("-2**70", -(2**70), ValueError, "Invalid step value"),
        ("two", np.ones(2), ValueError, r"step must be one number, but got an array of shape \(2,\)"),
        ("none-of-it", np.ones(0), ValueError, "step must be one number"),
        ("None", None, TypeError, "step must be a whole number"),
        ("text", "3", TypeError, "step must be a whole number"),
        ("text-array", np.array("3"), TypeError, "step must be a whole number"),
        ("list", [3], TypeError, "step must be a whole number"),
        ("dict", {}, TypeError, "step must be a whole number"),
        ("complex", 1j, TypeError, "step must be a whole number"),
        ("complex-array", np.array(1j), TypeError, "step must be a whole number"),
        (
            "pytorchs-nan",
            Foreign(Array(np.array(np.nan, "float32"), "float32")),
            TypeError,
            "step must be a whole",
        ),
        (
            "pytorchs-two",
            Foreign(Array(np.ones(2, "float32"), "float32")),
            ValueError,
            "step must be one number",
        ),
    ]
]

# --- other optimizers' ----------------------------------------------------------------------------


def _other(version, name):
    return lambda saved: RECORDED[version].get(f"other/{name}")


def _in_two_groups(version, name):
    """The groups match, and what is in them does not."""

    def change(saved):
        other = RECORDED[version].get(f"other/{name}")
        (group,) = other["param_groups"]
        other["param_groups"] = [dict(group, params=[0, 1]), dict(group, params=[2, 3])]
        return other

    return change


def _under_our_groups(version, name):
    """Somebody has put the groups right, or left them away."""

    def change(saved):
        return dict(saved, state=RECORDED[version].get(f"other/{name}")["state"])

    return change


_OTHERS = [
    (version, name)
    for version in state_dicts.VERSIONS
    for name in RECORDED[version].meta["recordings"]
    if name.startswith("other/")
]
# Of the states alone, SGD's may be empty, and Adadelta's has a square_avg as well.
OTHERS = [
    *[
        Bad(
            f"{name}-{version}",
            _in_two_groups(version, name[6:]),
            KeyError,
            "parameter group 0 of the loaded state dict lacks .* Is it of another optimizer",
        )
        for version, name in _OTHERS
    ],
    *[
        Bad(
            f"{name}-{version}-state",
            _under_our_groups(version, name[6:]),
            KeyError,
            r"entry 0, for parameter 0 of group 0 \(shape \(2, 3\)\): lacks 'square_avg'; it has",
        )
        for version, name in _OTHERS
        if not name.startswith(("other/SGD", "other/Adadelta"))
    ],
    *[
        Bad(f"{name}-{version}-as-it-is", _other(version, name[6:]), ValueError, NUMBER)
        for version, name in _OTHERS
    ],
]

TABLE = [*ENTRIES, *STEPS, *OTHERS]
