# SPDX-License-Identifier: BSD-2-Clause
"""Trainings with a gradient scaler, to compare with PyTorch's: the table, how a case runs, what is recorded.

The same code runs for both: a case is given a side, `record_scaler.Torch` or that of the test. A side has

- `scaler(**arguments)`, `optimizer(params, **options)`, `parameter(array)`, `tensor(array)`;
- `give(params, grads)`, `clip(params, max_norm)`, `values(tensor)`;
- `snapshot(optimizer, params)` as in `recording.py`; `skipped(scaler, optimizer)`, of the last step.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests import inputs
from tests.golden.recording import crc, crc_chain, pack, unpack

FORMAT = 1
PATH = Path(__file__).with_name("scaler_2.13.npz")
SHAPES = ((5,), (3, 4), (), (17,))
ABSENT = {1: (3, 4)}  # parameter -> iterations without its gradient
# What stands for a loss: a tenth shows the last bits of the scale, and a scale of 3e38 overflows at -3.
OUTPUTS = (1.0, 0.1, -3.0, 1e-30)
# Their L2 norm is 32, and that of four such gradients 64: exact in any order of summing.
EXACT = (2.0, 6.0, 10.0, 14.0, 18.0, 2.0, 6.0, 18.0)


class Case(NamedTuple):
    """A scaler, one optimizer or two, and what happens to them."""

    scaler: dict  # arguments
    bad: Any = ()  # iteration -> (optimizer, parameter, what stands in its gradient); or a list of them
    options: Any = ({},)  # of each optimizer
    unscales: tuple = ()  # the optimizers of which unscale_() is called before step()
    max_norm: float = 0.0  # of clip_grad_norm_ after unscale_()
    idle: Any = ()  # iteration -> the optimizers that do not step
    change: Any = ()  # iteration -> function(scaler, side) before it: returns the scaler that goes on
    new_scales: Any = ()  # iteration -> the argument of update()
    magnitude: float = 1024.0  # the gradients are multiplied by it
    shapes: tuple = SHAPES
    steps: int = 12

    def parameters(self, optimizer: int, dtype) -> list:
        seeds = range(10 * optimizer, 10 * optimizer + len(self.shapes))
        return [inputs.uniform(seed, shape).astype(dtype) for seed, shape in zip(seeds, self.shapes)]

    def gradients(self, step: int, optimizer: int, dtype) -> list:
        """The gradients of an optimizer's parameters as a backward pass from the scaled loss leaves them."""
        found = []
        for place, shape in enumerate(self.shapes):
            if self.max_norm:
                grad = np.roll(EXACT, step + place) * (-1.0) ** (np.arange(8) // (1 + (step + place) % 3))
                grad = grad * 2.0 ** (-12 if step % 4 == 3 else 0)  # less than max_norm, or much more
            else:
                grad = inputs.gradient("wide", step, 10 * optimizer + place, shape, np.dtype("float64"))
            grad = np.array(grad * self.magnitude).astype(dtype)
            for where, at, value in dict(self.bad).get(step, ()):
                if (where, at) == (optimizer, place):
                    grad.reshape(-1)[grad.size // 2] = value
            found.append(None if step in ABSENT.get(place, ()) and not self.max_norm else grad)
        return found


def at(*bad, optimizer=0):
    """`bad` as (iteration, parameter, value)."""
    return {step: [(optimizer, place, value)] for step, place, value in bad}


def lower_backoff(scaler, side):
    scaler.set_backoff_factor(0.125)
    return scaler


def raise_growth(scaler, side):
    scaler.set_growth_factor(3.7)
    scaler.set_growth_interval(2)
    return scaler


def loaded_into_a_new_one(scaler, side):
    new = side.scaler(device="cpu", init_scale=7.0, growth_factor=9.0, backoff_factor=0.9, growth_interval=1)
    new.load_state_dict(scaler.state_dict())
    return new


def loaded_into_the_same(scaler, side):
    """The scale and the tracker of a scaler that is in use change, and so do its factors."""
    scaler.load_state_dict(
        {
            "scale": 333.25,
            "growth_factor": 2.5,
            "backoff_factor": 0.4,
            "growth_interval": 4,
            "_growth_tracker": 2,
        }
    )
    return scaler


INF, NAN = math.inf, math.nan
OFTEN = at((2, 0, INF), (5, 3, -INF), (6, 2, NAN), (9, 1, NAN))
LAST_BITS = dict(init_scale=1000.1, growth_factor=1.5, backoff_factor=0.3, growth_interval=2)
MOMENTUM = dict(lr=0.003, alpha=0.9, momentum=0.9, centered=True, weight_decay=0.1)
TWO = ({}, MOMENTUM)
TINY = 2.0**-149  # the smallest float32

CASES = {
    "defaults": Case({}, OFTEN, steps=8),
    "grows-every-third": Case(dict(growth_interval=3), OFTEN, steps=20),
    "grows-always": Case(dict(init_scale=4.0, growth_interval=1), at((4, 1, NAN))),
    "last-bits": Case(LAST_BITS, OFTEN, steps=20),
    "last-bits+momentum": Case(LAST_BITS, OFTEN, (MOMENTUM,), steps=20),
    "last-bits+unscale": Case(LAST_BITS, OFTEN, (MOMENTUM,), unscales=(0,), steps=20),
    "a-third": Case(dict(init_scale=1 / 3, growth_factor=1.1, backoff_factor=0.7, growth_interval=1), OFTEN),
    "factors-are-not-float32": Case(
        # Rounded to float32, the first factor would be two steps of float32 and not one, the second one.
        dict(
            init_scale=0.1,
            growth_factor=1 + 1.2 * 2.0**-24,
            backoff_factor=1 - 0.55 * 2.0**-24,
            growth_interval=1,
        ),
        OFTEN,
    ),
    "bad-at-first-and-last": Case({}, at((0, 0, NAN), (7, 3, INF)), steps=8),
    "bad-always": Case(
        dict(init_scale=3.0, backoff_factor=0.3), at(*[(i, 2 * (i % 2), INF) for i in range(6)]), steps=6
    ),
    "bad-where-another-is-absent": Case({}, at((3, 0, NAN), (4, 3, NAN)), steps=8),
    "bad-but-absent": Case({}, at((3, 1, NAN), (4, 1, INF)), steps=8),
    "clipped": Case(
        dict(init_scale=64.0, growth_interval=3),
        at((4, 2, INF), (8, 0, NAN)),
        unscales=(0,),
        max_norm=0.5,
        shapes=((8,),) * 4,
        steps=16,
    ),
    "two": Case(dict(growth_interval=2), at((3, 0, INF), (7, 1, NAN), optimizer=1), TWO),
    "two-of-which-one-unscales": Case(LAST_BITS, at((3, 0, INF), (6, 2, NAN)), TWO, unscales=(1,)),
    "two-of-which-one-rests": Case(
        dict(growth_interval=3),
        at((2, 0, INF), (6, 3, INF), optimizer=1),
        TWO,
        idle={step: (1,) for step in range(12) if step % 3},
    ),
    "two-with-both-bad": Case({}, {2: [(0, 0, INF), (1, 3, NAN)]}, TWO, steps=5),
    "not-to-infinity": Case(
        dict(init_scale=1e38, growth_factor=2.0, growth_interval=1), at((6, 0, INF)), magnitude=1e34
    ),
    "not-to-infinity+slowly": Case(
        dict(init_scale=3e38, growth_factor=1.3, growth_interval=3), at((7, 2, NAN)), magnitude=1e34
    ),
    "overflow-of-what-was-unscaled": Case(dict(init_scale=2.0**-100), OFTEN, magnitude=2.0**30, steps=8),
    "overflow-of-what-was-unscaled+unscale": Case(
        dict(init_scale=2.0**-100), OFTEN, unscales=(0,), magnitude=2.0**30, steps=8
    ),
    "underflow-of-what-was-unscaled": Case(dict(init_scale=2.0**120), OFTEN, magnitude=2.0**-20, steps=8),
    "largest-gradients": Case({}, at((2, 0, 3.4e38), (5, 1, -3.4e38), (7, 0, TINY)), steps=9),
    "new-scales": Case(
        dict(growth_interval=3),
        OFTEN,
        new_scales={1: 100.7, 5: 0.1, 7: np.float32(12345.678), 10: 1e30},
        steps=14,
    ),
    "setters": Case(dict(growth_interval=5), OFTEN, change={4: lower_backoff, 7: raise_growth}, steps=16),
    "loaded-into-a-new-one": Case(
        LAST_BITS, OFTEN, (MOMENTUM,), change={4: loaded_into_a_new_one, 8: loaded_into_a_new_one}
    ),
    "loaded-into-the-same": Case(
        dict(growth_interval=3), OFTEN, change={0: loaded_into_the_same, 7: loaded_into_the_same}, steps=16
    ),
    "disabled": Case(dict(enabled=False), at((6, 0, INF)), magnitude=1.0, steps=8),
    "disabled+unscale": Case(dict(enabled=False, init_scale=3.0), unscales=(0,), steps=4),
}


class Training:
    """What a case made, after each iteration."""

    def __init__(self):
        self.snapshots, self.outputs = [], []
        self.found = {"scales": [], "trackers": [], "skipped": [], "state_dicts": []}

    def note(self, **found) -> None:
        for name, each in found.items():
            self.found[name].append(each)

    def arrays(self) -> dict:
        return {
            "crcs": np.array([[crc(entry) for entry in entries] for entries in self.snapshots], "uint32"),
            "last": pack(self.snapshots[-1]),
            "outputs": np.array(self.outputs),
        }


def run(case: Case, dtype: str, side, start_dicts=None) -> Training:
    """Train. With `start_dicts`, each iteration has a new scaler, which has loaded the state dict of it."""
    training = Training()
    scaler = side.scaler(**{"device": "cpu", **case.scaler})
    params = [
        [side.parameter(array) for array in case.parameters(i, dtype)] for i in range(len(case.options))
    ]
    optimizers = [side.optimizer(each, **options) for each, options in zip(params, case.options)]
    for step in range(case.steps):
        if start_dicts is not None and step and start_dicts[step - 1]:
            scaler = side.scaler(device="cpu", init_scale=5.0)
            scaler.load_state_dict(start_dicts[step - 1])
        if step in dict(case.change):
            scaler = case.change[step](scaler, side)
        training.outputs.append(side.values(scaler.scale(side.tensor(np.array(OUTPUTS, dtype)))))
        for number, each in enumerate(params):
            side.give(each, case.gradients(step, number, dtype))
        skipped = []
        for number, optimizer in enumerate(optimizers):
            if number in dict(case.idle).get(step, ()):
                skipped.append(-1)
                continue
            if number in case.unscales:
                scaler.unscale_(optimizer)
                if case.max_norm:
                    side.clip(params[number], case.max_norm)
            if scaler.step(optimizer) is not None:
                raise AssertionError("a step without a closure returned something")
            skipped.append(int(side.skipped(scaler, optimizer)))
        new_scale = dict(case.new_scales).get(step)
        if new_scale is None:
            scaler.update()
        else:
            scaler.update(new_scale if isinstance(new_scale, float) else side.tensor(np.array(new_scale)))
        training.note(
            skipped=skipped,
            scales=scaler.get_scale(),
            trackers=scaler._get_growth_tracker(),
            state_dicts=dict(scaler.state_dict()),
        )
        training.snapshots.append(
            [entry for pair in zip(optimizers, params) for entry in side.snapshot(*pair)]
        )
    return training


def inputs_crc(case: Case, dtype: str) -> int:
    """Of all parameters and gradients: a recording is only good for what it was made with."""
    new_scales = {step: float(each) for step, each in dict(case.new_scales).items()}
    settings = (case.scaler, case.options, case.unscales, case.max_norm, dict(case.idle), new_scales)
    digest = zlib.crc32(repr(settings).encode())
    for optimizer in range(len(case.options)):
        arrays = case.parameters(optimizer, dtype)
        for step in range(case.steps):
            arrays += case.gradients(step, optimizer, dtype)
        for array in arrays:
            digest = zlib.crc32(b"none", digest) if array is None else crc_chain(array, digest)
    return digest


class Recorded:
    """What PyTorch made of the cases."""

    def __init__(self):
        with np.load(PATH, allow_pickle=False) as data:
            self.meta = json.loads(str(data["meta"]))
            self._arrays = {name: data[name] for name in data.files if name != "meta"}
        if self.meta["format"] != FORMAT:
            raise ValueError(f"{PATH.name} has format {self.meta['format']}: see golden/README.md")

    def array(self, name: str, dtype: str, key: str) -> np.ndarray:
        return self._arrays[f"{dtype}/{name}/{key}"]

    def about(self, name: str, dtype: str) -> dict:
        """`Training.found`; besides `inputs`, a CRC, and the `layout` of the last snapshot."""
        return self.meta["cases"][f"{dtype}/{name}"]

    def last(self, name: str, dtype: str) -> list:
        shapes = CASES[name].shapes * len(CASES[name].options)
        return unpack(self.array(name, dtype, "last"), shapes, self.about(name, dtype)["layout"])
