# SPDX-License-Identifier: BSD-2-Clause
"""Schedulers that must be refused when they are made, and what PyTorch 2.13 does with the same.

A case is made from the module with the classes and an optimizer with two groups. `torch` is the exception of
PyTorch's constructor; None where that takes it, and fails later or computes nonsense. Knows no Dragon.
"""

from __future__ import annotations

import math
from typing import Any, Callable, NamedTuple

NAN = math.nan


class Refused(NamedTuple):
    make: Callable[[Any, Any], Any]
    exception: type
    match: str
    torch: Any = "the same"


def of(name, *args, **kwargs):
    return lambda classes, optimizer: getattr(classes, name)(optimizer, *args, **kwargs)


def fails(epoch):
    raise ZeroDivisionError("in the user's function")


def fails_in_second(epoch, calls=[]):  # noqa: B006
    calls.append(epoch)
    if len(calls) % 2 == 0:
        raise ZeroDivisionError("in the user's function")
    return 0.5


def sequential(milestones, *makes):
    return lambda classes, optimizer: classes.SequentialLR(
        optimizer, [make(classes, optimizer) for make in makes], milestones
    )


def chained(*makes):
    return lambda classes, optimizer: classes.ChainedScheduler([make(classes, optimizer) for make in makes])


class Bare:
    """Looks like a scheduler, from afar."""


STEP = of("StepLR", 3)
PLATEAU = of("ReduceLROnPlateau")

REFUSED = {
    # Functions
    "lambda-count": Refused(of("LambdaLR", [len]), ValueError, "^Expected 2 lr_lambdas, but got 1"),
    "lambda-none": Refused(of("LambdaLR", None), TypeError, "should be a function, but got NoneType"),
    "lambda-number": Refused(of("LambdaLR", 0.5), TypeError, "should be a function, but got float"),
    "lambda-raises": Refused(of("LambdaLR", fails), ZeroDivisionError, "in the user's function"),
    "lambda-raises-second": Refused(of("LambdaLR", fails_in_second), ZeroDivisionError, "in the user's"),
    "lambda-word": Refused(
        of("LambdaLR", lambda epoch: "x"), TypeError, "lr_lambda must be a number", "TypeError"
    ),
    "lambda-nan": Refused(of("LambdaLR", lambda epoch: NAN), ValueError, "^Invalid learning rate: nan", None),
    "multiplicative-count": Refused(
        of("MultiplicativeLR", []), ValueError, "^Expected 2 lr_lambdas, but got 0"
    ),
    "multiplicative-number": Refused(
        of("MultiplicativeLR", [len, 2]), TypeError, "^lr_lambda should be a function, but got int"
    ),
    # Counts
    "step-0": Refused(of("StepLR", 0), ValueError, "^Invalid step_size value: 0 .need step_size > 0", None),
    "step-negative": Refused(of("StepLR", -3), ValueError, "^Invalid step_size value: -3", None),
    "step-none": Refused(of("StepLR", None), TypeError, "^step_size must be a number", None),
    "step-word": Refused(of("StepLR", "3"), TypeError, "^step_size must be a number, but got '3'", None),
    "step-nan": Refused(of("StepLR", NAN), ValueError, "^Invalid step_size value: nan", None),
    "gamma-nan": Refused(of("StepLR", 3, NAN), ValueError, "^Invalid gamma value: nan", None),
    "exponential-nan": Refused(of("ExponentialLR", NAN), ValueError, "^Invalid gamma value: nan", None),
    "exponential-word": Refused(of("ExponentialLR", "fast"), TypeError, "^gamma must be a number", None),
    "multistep-number": Refused(of("MultiStepLR", 30), TypeError, "^milestones must be an iterable"),
    "multistep-word": Refused(of("MultiStepLR", "30"), TypeError, "^milestones must be an iterable", None),
    "multistep-words": Refused(of("MultiStepLR", ["30"]), TypeError, "^milestones must be a number", None),
    "multistep-nan": Refused(of("MultiStepLR", [NAN]), ValueError, "^Invalid milestones value: nan", None),
    "constant-factor": Refused(of("ConstantLR", 1.1), ValueError, "^Constant multiplicative factor expected"),
    "constant-below": Refused(of("ConstantLR", -0.1), ValueError, "^Constant multiplicative factor expected"),
    "constant-nan": Refused(of("ConstantLR", NAN), ValueError, "^Invalid factor value: nan", None),
    "constant-negative": Refused(
        of("ConstantLR", 0.5, -1), ValueError, "^Invalid total_iters value: -1", None
    ),
    "linear-start": Refused(of("LinearLR", 0), ValueError, "^Starting multiplicative factor expected"),
    "linear-above": Refused(of("LinearLR", 1.5), ValueError, "^Starting multiplicative factor expected"),
    "linear-end": Refused(of("LinearLR", 0.5, 2), ValueError, "^Ending multiplicative factor expected"),
    "linear-nan": Refused(of("LinearLR", 0.5, NAN), ValueError, "^Invalid end_factor value: nan", None),
    "linear-negative": Refused(
        of("LinearLR", total_iters=-2), ValueError, "^Invalid total_iters value", None
    ),
    "polynomial-negative": Refused(
        of("PolynomialLR", -1), ValueError, "^Invalid total_iters value: -1", None
    ),
    "polynomial-nan": Refused(of("PolynomialLR", 5, NAN), ValueError, "^Invalid power value: nan", None),
    "cosine-0": Refused(of("CosineAnnealingLR", 0), ValueError, "^Invalid T_max value: 0", None),
    "cosine-negative": Refused(of("CosineAnnealingLR", -5), ValueError, "^Invalid T_max value: -5", None),
    "cosine-nan": Refused(of("CosineAnnealingLR", 5, NAN), ValueError, "^Invalid eta_min value: nan", None),
    "restarts-0": Refused(of("CosineAnnealingWarmRestarts", 0), ValueError, "^Expected positive integer T_0"),
    "restarts-float": Refused(
        of("CosineAnnealingWarmRestarts", 2.5), ValueError, "^Expected positive integer T_0"
    ),
    "restarts-mult": Refused(
        of("CosineAnnealingWarmRestarts", 2, 0), ValueError, "^Expected integer T_mult >= 1"
    ),
    "restarts-min": Refused(
        of("CosineAnnealingWarmRestarts", 2, 1, "0"),
        ValueError,
        "^Expected float or int eta_min, but got '0'",
    ),
    # Cycles
    "cyclic-count": Refused(of("CyclicLR", [0.1], 0.2), ValueError, "^base_lr must have the same length as"),
    "cyclic-max-count": Refused(of("CyclicLR", 0.1, [0.2] * 3), ValueError, "^max_lr must .* has 3 values"),
    "cyclic-mode": Refused(
        of("CyclicLR", 0.1, 0.2, mode="round"), ValueError, "^mode is invalid and scale_fn is"
    ),
    "cyclic-function": Refused(of("CyclicLR", 0.1, 0.2, scale_fn=3), TypeError, "^scale_fn must be callable"),
    "cyclic-scale-mode": Refused(
        of("CyclicLR", 0.1, 0.2, scale_fn=len, scale_mode="x"), ValueError, "^Invalid scale_mode", "TypeError"
    ),
    "cyclic-up-0": Refused(
        of("CyclicLR", 0.1, 0.2, 0), ValueError, "^Invalid step_size_up", "ZeroDivisionError"
    ),
    "cyclic-down": Refused(
        of("CyclicLR", 0.1, 0.2, 2, -1), ValueError, "^Invalid step_size_down value: -1", None
    ),
    "cyclic-nan": Refused(of("CyclicLR", NAN, 0.2), ValueError, "^Invalid base_lr value: nan", None),
    "cyclic-momenta": Refused(
        of("CyclicLR", 0.1, 0.2, base_momentum=[0.1]), ValueError, "^base_momentum must have the same length"
    ),
    "cyclic-raises": Refused(of("CyclicLR", 0.1, 0.2, scale_fn=fails), ZeroDivisionError, "in the user's"),
    "one-cycle-none": Refused(of("OneCycleLR", 0.1), ValueError, "^You must define either total_steps OR"),
    "one-cycle-half": Refused(
        of("OneCycleLR", 0.1, epochs=3), ValueError, "^You must define either total_steps"
    ),
    "one-cycle-0": Refused(
        of("OneCycleLR", 0.1, 0), ValueError, "^Expected positive integer total_steps, but"
    ),
    "one-cycle-float": Refused(
        of("OneCycleLR", 0.1, 2.5), ValueError, "^Expected positive integer total_steps"
    ),
    "one-cycle-epochs": Refused(
        of("OneCycleLR", 0.1, epochs=-3, steps_per_epoch=2), ValueError, "^Expected positive integer epochs"
    ),
    "one-cycle-per-epoch": Refused(
        of("OneCycleLR", 0.1, epochs=3, steps_per_epoch=0),
        ValueError,
        "^Expected positive integer steps_per_epoch",
    ),
    "one-cycle-start": Refused(
        of("OneCycleLR", 0.1, 9, pct_start=1.5), ValueError, "^Expected float between 0 and 1"
    ),
    "one-cycle-start-int": Refused(
        of("OneCycleLR", 0.1, 9, pct_start=1), ValueError, "^Expected float between"
    ),
    "one-cycle-start-nan": Refused(
        of("OneCycleLR", 0.1, 9, pct_start=NAN), ValueError, "^Expected float between 0 and 1 pct_start", None
    ),
    "one-cycle-strategy": Refused(
        of("OneCycleLR", 0.1, 9, anneal_strategy="x"),
        ValueError,
        "^anneal_strategy must be one of 'cos' or 'linear'",
    ),
    "one-cycle-count": Refused(
        of("OneCycleLR", [0.1], 9), ValueError, "^max_lr must have the same length as"
    ),
    "one-cycle-div": Refused(
        of("OneCycleLR", 0.1, 9, div_factor=0),
        ValueError,
        "^Invalid div_factor value: 0",
        "ZeroDivisionError",
    ),
    "one-cycle-final": Refused(
        of("OneCycleLR", 0.1, 9, final_div_factor=-1.0),
        ValueError,
        "^Invalid final_div_factor value: -1",
        None,
    ),
    "one-cycle-nan": Refused(of("OneCycleLR", NAN, 9), ValueError, "^Invalid max_lr value: nan", None),
    # Plateaus
    "plateau-mode": Refused(of("ReduceLROnPlateau", "least"), ValueError, "^mode least is unknown!"),
    "plateau-mode-none": Refused(
        of("ReduceLROnPlateau", None), ValueError, "^mode None is unknown!", "TypeError"
    ),
    "plateau-threshold": Refused(
        of("ReduceLROnPlateau", threshold_mode="x"), ValueError, "^threshold mode x is unknown!"
    ),
    "plateau-factor": Refused(of("ReduceLROnPlateau", factor=1.0), ValueError, "^Factor should be < 1.0"),
    "plateau-nan": Refused(
        of("ReduceLROnPlateau", factor=NAN), ValueError, "^Invalid factor value: nan", None
    ),
    "plateau-count": Refused(of("ReduceLROnPlateau", min_lr=[0.1]), ValueError, "^expected 2 min_lrs, got 1"),
    "plateau-patience": Refused(
        of("ReduceLROnPlateau", patience="x"), TypeError, "^patience must be a", None
    ),
    # Schedulers of schedulers
    "sequential-none": Refused(
        sequential([]), ValueError, "^SequentialLR expects at least one scheduler, but got no"
    ),
    "sequential-count": Refused(
        sequential([], STEP, STEP), ValueError, "^Sequential Schedulers expects number of"
    ),
    "sequential-many": Refused(
        sequential([3, 5], STEP, STEP), ValueError, "^Sequential Schedulers expects number"
    ),
    "sequential-order": Refused(
        sequential([5, 3], STEP, STEP, STEP),
        ValueError,
        "^Invalid milestones value: .5, 3. .need them in",
        None,
    ),
    "sequential-word": Refused(sequential(["3"], STEP, STEP), TypeError, "^milestones must be a number"),
    "sequential-plateau": Refused(
        sequential([3], STEP, PLATEAU), ValueError, "does not support `ReduceLROnPlateau`"
    ),
    "sequential-bare": Refused(
        sequential([3], STEP, lambda *_: Bare()),
        TypeError,
        "at index 1 should have `optimizer` as its attribute",
    ),
    "chained-none": Refused(
        chained(), ValueError, "^ChainedScheduler expects at least one scheduler to be chained"
    ),
    "chained-plateau": Refused(
        chained(STEP, PLATEAU), ValueError, "does not support `ReduceLROnPlateau`.*index 1"
    ),
    "chained-bare": Refused(
        chained(STEP, lambda *_: Bare()), TypeError, "at index 1 should have `optimizer` as its attribute"
    ),
    # The epoch done last
    "resumed": Refused(
        of("StepLR", 3, last_epoch=2), KeyError, r"'initial_lr' is not specified in param_groups\[0\]"
    ),
    "epoch-below": Refused(
        of("StepLR", 3, last_epoch=-2), ValueError, "^Invalid last_epoch value: -2", "KeyError"
    ),
    "epoch-word": Refused(
        of("StepLR", 3, last_epoch="2"), TypeError, "^last_epoch must be an integer", "KeyError"
    ),
}
