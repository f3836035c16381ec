# SPDX-License-Identifier: BSD-2-Clause
"""Schedules to compare with PyTorch's: the table, how a case runs, and how its results are stored.

The same code runs for both: a case is given the module with the classes, and something that makes optimizers.
"""

from __future__ import annotations

import collections
import copy
import json
import math
import warnings
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy as np

FORMAT = 1
PATH = Path(__file__).with_name("lr_scheduler_2.13.npz")
KEYS = ("initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum")  # that schedulers put into groups


class Case(NamedTuple):
    """A scheduler, made by `make(classes, optimizer)`, and what its steps are given."""

    make: Callable[[Any, Any], Any]
    rates: tuple = (0.05,)  # of the groups
    steps: int = 60
    given: Any = None  # step -> the arguments of step()
    kind: str = "rmsprop"  # or: sgd, adam
    change: Any = None  # step -> learning rate of the first group, set by hand


class Factor:
    """A callable object: its attributes are state."""

    def __init__(self, base):
        self.base = base
        self.calls = 0

    def __call__(self, epoch):
        self.calls += 1
        return self.base**epoch


def falling(epoch):
    return 1 - min(epoch, 50) / 50


def staircase(epoch):
    """EfficientNet: a warm-up of 5 epochs, then times 0.97 every 2.4 epochs, by epoch."""
    return (epoch + 1) / 5 if epoch < 5 else 0.97 ** (epoch // 2.4)


def rough(epoch):
    return 0.9 + 0.2 * math.sin(3 * epoch)


def loss(step):
    """Falls, stays, rises, falls again."""
    return (1.0 / (1 + step) if step < 15 else 0.1 + 0.01 * math.cos(step) - 0.0004 * step,)


def of(name, *args, **kwargs):
    """Make `name(optimizer, ...)`. The table's callable objects have state: each scheduler gets new ones."""

    def make(classes, optimizer):
        positional, named = copy.deepcopy((args, kwargs))
        return getattr(classes, name)(optimizer, *positional, **named)

    return make


def sequential(milestones, *makes):
    def make(classes, optimizer):
        parts = [each(classes, optimizer) for each in makes]
        return classes.SequentialLR(optimizer, parts, milestones)

    return make


def chained(*makes):
    return lambda classes, optimizer: classes.ChainedScheduler([each(classes, optimizer) for each in makes])


def resumed(make, **keys):
    """As after loading an optimizer: the groups have `initial_lr` and these keys."""

    def with_initial_lr(classes, optimizer):
        for group in optimizer.param_groups:
            group.update(keys, initial_lr=2 * group["lr"])
        return make(classes, optimizer)

    return with_initial_lr


def jumping(step):
    return (step * 3 % 41,)


ODD = (0.1, 0.037)  # two groups
THREE = (0.1, 1, 3e-7)

CASES = {
    "lambda": Case(of("LambdaLR", falling)),
    "lambda-two": Case(of("LambdaLR", [falling, staircase]), ODD),
    "lambda-object": Case(of("LambdaLR", Factor(0.95)), ODD),
    "lambda-ints": Case(of("LambdaLR", lambda epoch: epoch // 30), (1, 0.5)),
    "lambda-given": Case(of("LambdaLR", falling), given=jumping),
    "multiplicative": Case(of("MultiplicativeLR", rough)),
    "multiplicative-two": Case(of("MultiplicativeLR", [lambda epoch: 0.95, rough]), ODD),
    "multiplicative-object": Case(of("MultiplicativeLR", Factor(1.001))),
    "step": Case(of("StepLR", 30)),
    "step-two": Case(of("StepLR", 7, gamma=0.973), ODD),
    "step-one": Case(of("StepLR", step_size=1, gamma=0.98), THREE),
    "step-given": Case(of("StepLR", 7, 0.3), ODD, given=jumping),
    "step-resumed": Case(resumed(of("StepLR", 4, 0.3, last_epoch=5)), ODD),
    "step-changed": Case(of("StepLR", 5, 0.7), ODD, change={12: 0.2, 30: 0.03}),
    "step-sgd": Case(of("StepLR", 5, 0.7), ODD, kind="sgd"),
    "multistep": Case(of("MultiStepLR", milestones=[30, 50], gamma=0.1)),
    "multistep-twice": Case(of("MultiStepLR", [9, 4, 9, 31], 0.77), ODD),
    "multistep-none": Case(of("MultiStepLR", []), ODD, steps=5),
    "multistep-given": Case(of("MultiStepLR", [9, 4, 9, 31], 0.77), ODD, given=jumping),
    "constant": Case(of("ConstantLR")),
    "constant-two": Case(of("ConstantLR", 0.37, 11), ODD),
    "constant-none": Case(of("ConstantLR", 0.5, 0), ODD, steps=5),
    "constant-given": Case(of("ConstantLR", 0.37, 11), given=jumping),
    "linear": Case(of("LinearLR")),
    "linear-two": Case(of("LinearLR", 0.001, total_iters=25), ODD),
    "linear-down": Case(of("LinearLR", 1.0, 0.0, 50), THREE),
    "linear-none": Case(of("LinearLR", 0.5, total_iters=0), ODD, steps=5),
    "linear-given": Case(of("LinearLR", 0.1, 0.9, 23), given=jumping),
    "linear-resumed": Case(resumed(of("LinearLR", 0.1, total_iters=20, last_epoch=7)), ODD),
    "exponential": Case(of("ExponentialLR", 0.9)),
    "exponential-two": Case(of("ExponentialLR", gamma=0.98), THREE),
    "exponential-given": Case(of("ExponentialLR", 0.98), given=jumping),
    "exponential-resumed": Case(resumed(of("ExponentialLR", 0.97, last_epoch=10)), ODD),
    "polynomial": Case(of("PolynomialLR")),
    "polynomial-power": Case(of("PolynomialLR", 50, 0.9), ODD),
    "polynomial-square": Case(of("PolynomialLR", total_iters=37, power=2.0), THREE),
    "polynomial-given": Case(of("PolynomialLR", 20, 1.5), given=jumping),
    "cosine": Case(of("CosineAnnealingLR", 50)),
    "cosine-up": Case(of("CosineAnnealingLR", T_max=10, eta_min=1e-3), ODD),
    "cosine-odd": Case(of("CosineAnnealingLR", 7.5, 0.01), THREE),
    "cosine-one": Case(of("CosineAnnealingLR", 1), ODD),
    "cosine-given": Case(of("CosineAnnealingLR", 9, 1e-4), ODD, given=jumping),
    "cosine-resumed": Case(resumed(of("CosineAnnealingLR", 20, 1e-4, last_epoch=7)), ODD),
    "cosine-changed": Case(of("CosineAnnealingLR", 40), change={12: 0.2}),
    "restarts": Case(of("CosineAnnealingWarmRestarts", 10)),
    "restarts-longer": Case(of("CosineAnnealingWarmRestarts", T_0=5, T_mult=2, eta_min=1e-4), ODD),
    "restarts-batches": Case(
        of("CosineAnnealingWarmRestarts", 3, 2, 1e-5), ODD, given=lambda step: (step // 5 + step % 5 / 5,)
    ),
    "restarts-mixed": Case(
        of("CosineAnnealingWarmRestarts", 4, 3), given=lambda step: (step,) if step % 7 == 3 else ()
    ),
    "restarts-resumed": Case(resumed(of("CosineAnnealingWarmRestarts", 10, last_epoch=3)), ODD),
    "cyclic": Case(of("CyclicLR", 0.01, 0.1, step_size_up=7)),
    "cyclic-uneven": Case(of("CyclicLR", [0.01, 0.02], [0.1, 0.3], 4, 9, mode="triangular2"), ODD),
    "cyclic-range": Case(of("CyclicLR", 1e-4, 0.2, 10, mode="exp_range", gamma=0.97), ODD),
    "cyclic-function": Case(
        of("CyclicLR", 0.01, 0.1, 6, scale_fn=lambda x: 1 / 5 ** (x * 1e-1), scale_mode="iterations"), ODD
    ),
    "cyclic-by-cycle": Case(of("CyclicLR", 0.01, 0.1, 6, scale_fn=lambda x: 1 / x**0.5), ODD),
    "cyclic-object": Case(of("CyclicLR", 0.01, 0.1, 6, scale_fn=Factor(0.9), cycle_momentum=False), ODD),
    "cyclic-momentum": Case(of("CyclicLR", 0.01, 0.1, 6, base_momentum=[0.5, 0.7], max_momentum=0.95), ODD),
    "cyclic-alone": Case(of("CyclicLR", 0.01, 0.1, 6, cycle_momentum=False), ODD),
    "cyclic-adam": Case(of("CyclicLR", 0.01, 0.1, 6), ODD, kind="adam"),
    "cyclic-one-way": Case(of("CyclicLR", 0.01, 0.1, 6, 0), ODD),
    "cyclic-resumed": Case(resumed(of("CyclicLR", 0.01, 0.1, 6, last_epoch=11), momentum=0.85), ODD),
    "one-cycle": Case(of("OneCycleLR", 0.01, total_steps=60)),
    "one-cycle-epochs": Case(of("OneCycleLR", [0.1, 0.3], epochs=6, steps_per_epoch=10), ODD),
    "one-cycle-linear": Case(of("OneCycleLR", 0.1, 61, pct_start=0.41, anneal_strategy="linear"), ODD),
    "one-cycle-three": Case(of("OneCycleLR", 0.1, 60, three_phase=True, div_factor=10.0), ODD),
    "one-cycle-momentum": Case(
        of("OneCycleLR", 0.1, 63, base_momentum=[0.6, 0.7], max_momentum=0.99, final_div_factor=10), ODD
    ),
    "one-cycle-alone": Case(of("OneCycleLR", 0.1, 60, pct_start=0.0, cycle_momentum=False), ODD),
    "one-cycle-all-up": Case(of("OneCycleLR", 0.1, 60, pct_start=1.0), ODD, steps=59),
    "one-cycle-adam": Case(of("OneCycleLR", 0.1, 60), ODD, kind="adam"),
    "one-cycle-given": Case(of("OneCycleLR", 0.1, 60), given=jumping),
    "plateau": Case(of("ReduceLROnPlateau", patience=2), given=loss),
    "plateau-max": Case(
        of("ReduceLROnPlateau", "max", 0.5, 3, threshold=0.01, cooldown=2, min_lr=[1e-3, 1e-2]),
        ODD,
        given=loss,
    ),
    "plateau-abs": Case(
        of("ReduceLROnPlateau", factor=0.7, patience=1, threshold_mode="abs", threshold=1e-3),
        THREE,
        given=loss,
    ),
    "plateau-max-abs": Case(
        of("ReduceLROnPlateau", "max", 0.7, 1, 0.05, "abs", eps=0.02),
        ODD,
        given=lambda step: (-loss(step)[0],),
    ),
    "plateau-nan": Case(
        of("ReduceLROnPlateau", patience=5), given=lambda step: (math.nan if step > 20 else 1 / (step + 1),)
    ),
    "sequential": Case(
        sequential([20], of("ConstantLR", factor=0.1, total_iters=20), of("ExponentialLR", gamma=0.9))
    ),
    "sequential-warm-up": Case(
        sequential([5], of("LinearLR", 0.01, total_iters=5), of("CosineAnnealingLR", T_max=55)), ODD
    ),
    "sequential-four": Case(
        sequential(
            [10, 20, 40],
            of("LinearLR", 0.1, total_iters=10),
            of("CosineAnnealingWarmRestarts", 4),
            of("StepLR", 3, 0.5),
            of("PolynomialLR", 15),
        ),
        ODD,
    ),
    "sequential-functions": Case(
        sequential(
            [7, 30], of("LambdaLR", staircase), of("MultiplicativeLR", rough), of("MultiStepLR", [5, 9])
        ),
        ODD,
    ),
    "sequential-at-0": Case(sequential([0], of("ExponentialLR", 0.5), of("StepLR", 3, 0.9)), ODD),
    "sequential-same": Case(
        sequential([9, 9], of("ExponentialLR", 0.9), of("StepLR", 3), of("CosineAnnealingLR", 20)), ODD
    ),
    "sequential-of-chained": Case(
        sequential(
            [12],
            chained(of("ConstantLR", 0.5, 4), of("ExponentialLR", 0.97)),
            of("CosineAnnealingLR", 48),
        ),
        ODD,
    ),
    "sequential-of-sequential": Case(
        sequential(
            [25],
            sequential([5], of("LinearLR", 0.1, total_iters=5), of("StepLR", 4, 0.8)),
            of("PolynomialLR", 30),
        ),
        ODD,
    ),
    "chained": Case(chained(of("ConstantLR", factor=0.1, total_iters=20), of("ExponentialLR", gamma=0.9))),
    "chained-three": Case(
        chained(of("LinearLR", 0.1, total_iters=8), of("CosineAnnealingLR", 50), of("MultiStepLR", [20, 33])),
        ODD,
    ),
    "chained-of-sequential": Case(
        chained(
            sequential([6], of("LinearLR", 0.2, total_iters=6), of("StepLR", 5, 0.9)),
            of("ExponentialLR", 0.99),
        ),
        ODD,
    ),
    "one-after-the-other": Case(
        lambda classes, optimizer: [classes.StepLR(optimizer, 9), classes.ExponentialLR(optimizer, 0.98)][1],
        ODD,
    ),
}


def run(case: Case, make_optimizer, classes, start=None) -> dict:
    """Return the learning rates and momenta of each step, and what there is in the middle.

    `start` is what an earlier run had in the middle: the rest is done from there.
    """
    optimizer = make_optimizer(case)
    scheduler = case.make(classes, optimizer)
    first, steps, middle = 0, case.steps, None
    if start is not None:
        first = steps // 2
        for group, saved in zip(optimizer.param_groups, start["groups"]):
            group.update(saved)
        scheduler.load_state_dict(start["state"])
    rows = [look(optimizer)]
    for step in range(first, steps):
        if step == steps // 2:
            middle = {"state": copy.deepcopy(scheduler.state_dict()), "groups": groups_of(optimizer)}
        optimizer.step()
        if case.change and step in case.change:
            optimizer.param_groups[0]["lr"] = case.change[step]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the epoch, which is deprecated
            scheduler.step(*(case.given(step) if case.given else ()))
        rows.append(look(optimizer))
        if list(scheduler.get_last_lr()) != [group["lr"] for group in optimizer.param_groups]:
            raise AssertionError(f"get_last_lr() at step {step}")
    rates, momenta = (np.array(each, "float64") for each in zip(*rows))
    return {"lr": rates, "momentum": momenta, "middle": middle, "end": scheduler.state_dict()}


def look(optimizer) -> tuple:
    groups = optimizer.param_groups
    return [group["lr"] for group in groups], [momentum(group) for group in groups]


def momentum(group):
    if "betas" in group:
        return group["betas"][0]
    return group.get("beta1", group.get("momentum", 0))


def groups_of(optimizer) -> list:
    found = []
    for group in optimizer.param_groups:
        found.append({key: group[key] for key in ("lr", *KEYS) if key in group})
        found[-1].update({key: group[key] for key in ("momentum", "beta1") if key in group})
    return found


# State dicts as JSON.


def encode(value):
    if isinstance(value, collections.Counter):
        return {"Counter": sorted(value.items())}
    if isinstance(value, dict):
        return {"dict": {key: encode(each) for key, each in value.items()}}
    if isinstance(value, (list, tuple)):
        return [encode(each) for each in value]
    if value is not None and type(value) not in (bool, int, float, str):
        raise TypeError(f"{value!r} of type {type(value)} in a state dict")
    return value


def decode(value):
    if isinstance(value, dict):
        if "Counter" in value:
            return collections.Counter(dict(value["Counter"]))
        return {key: decode(each) for key, each in value["dict"].items()}
    return [decode(each) for each in value] if isinstance(value, list) else value


def load() -> dict:
    with np.load(PATH, allow_pickle=False) as data:
        meta = json.loads(str(data["meta"]))
        arrays = {name: data[name] for name in data.files if name != "meta"}
    if meta["format"] != FORMAT:
        raise ValueError(f"{PATH.name} has format {meta['format']}, not {FORMAT}: see golden/README.md")
    cases = {}
    for name, each in meta["cases"].items():
        cases[name] = {key: decode(value) for key, value in each.items()}
        cases[name].update({key: arrays[f"{name}/{key}"] for key in ("lr", "momentum")})
    return {"torch": meta["torch"], "refused": meta["refused"], "cases": cases}
