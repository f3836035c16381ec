# SPDX-License-Identifier: BSD-2-Clause
"""Something is wrong on a rank.

Both must raise, nothing may have changed, and the next good step must work.
"""

from __future__ import annotations

import contextlib

import dragon
import numpy as np

import dragon_optim
from tests.optim.ranks import meeting, trajectories
from tests.optim.support import feed_gradient, parameter


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


class Training:
    """Two groups of one parameter each."""

    def __init__(self, **options):
        self.params = [parameter(ones(3)), parameter(ones(2, 2))]
        groups = [{"params": [param]} for param in self.params]
        self.optimizer = dragon_optim.RMSprop(groups, lr=0.1, momentum=0.9, **options)

    def feed(self, rank):
        for param in self.params:
            feed_gradient(param, np.full(param.shape, 1.0 + rank, "float32"))

    def bits(self):
        """Everything but `.grad`, which may be what is wrong."""
        entries = [trajectories.snapshot(self.optimizer, param) for param in self.params]
        return [dict(entry, grad=None) for entry in entries]


@contextlib.contextmanager
def setting(mapping, key, value):
    former = mapping[key]
    mapping[key] = value
    yield
    mapping[key] = former


@contextlib.contextmanager
def lacking(mapping, key):
    former = mapping.pop(key)
    yield
    mapping[key] = former


@contextlib.contextmanager
def gradient(param, value):
    feed_gradient(param, value)
    yield


def fine(training):
    return contextlib.nullcontext()


def bad_lr(training):
    return setting(training.optimizer.param_groups[0], "lr", -1.0)


def nan_alpha(training):
    return setting(training.optimizer.param_groups[1], "alpha", np.float64("nan"))


def no_eps(training):
    return lacking(training.optimizer.param_groups[1], "eps")


def no_list(training):
    return setting(training.optimizer.param_groups[0], "params", "weights")


def bad_shape(training):
    return gradient(training.params[1], ones(4))


def bad_dtype(training):
    return gradient(training.params[1], ones(2, 2, dtype="float64"))


def other_workspace(training):
    return dragon.Workspace().as_default()


# Name -> what is wrong on rank 0, what on rank 1.
WRONG = {
    "bad-lr": (fine, bad_lr),
    "nan-alpha": (nan_alpha, fine),
    "no-eps": (fine, no_eps),
    "no-list": (no_list, fine),
    "bad-shape": (bad_shape, fine),
    "bad-dtype": (fine, bad_dtype),
    "two-errors": (bad_lr, bad_shape),
    "other-workspace": (fine, other_workspace),
}


def attempt(training, closure=None):
    before = training.bits()
    try:
        training.optimizer.step(closure)
    except Exception as error:
        return {"raised": type(error).__name__, "message": str(error), "changed": training.bits() != before}
    return {"raised": None, "message": "", "changed": training.bits() != before}


def wrong(meet, sabotages, **options):
    """A good step, a bad one, a good one."""
    training = Training(**options)
    training.feed(meet.rank)
    training.optimizer.step()
    training.feed(meet.rank)
    before = training.bits()
    with sabotages[meet.rank](training):
        result = attempt_anywhere(training)
    result["changed"] = training.bits() != before
    training.feed(meet.rank)
    training.optimizer.step()
    return dict(result, after=training.bits())


def attempt_anywhere(training):
    """`attempt`, without a look at states: under another workspace they cannot be looked at."""
    try:
        training.optimizer.step()
    except Exception as error:
        return {"raised": type(error).__name__, "message": str(error)}
    return {"raised": None, "message": ""}


def failing_closure(meet):
    training = Training()

    def closure():
        training.feed(meet.rank)
        if meet.rank == 1:
            raise ZeroDivisionError("the loss of rank 1")

    result = attempt(training, closure)
    training.feed(meet.rank)
    training.optimizer.step()
    training.feed(meet.rank)
    training.optimizer.step()
    return dict(result, after=training.bits())


# Name -> the parameters of each rank.
DIFFERENT_MODELS = {
    "number": ([ones(3)], [ones(3), ones(2)]),
    "size": ([ones(3)], [ones(4)]),
    "shape-of-the-same-size": ([ones(2, 3)], [ones(3, 2)]),
    "order": ([ones(3), ones(2)], [ones(2), ones(3)]),
    "dtype": ([ones(3)], [ones(3, dtype="float64")]),
    "float16": ([ones(3, dtype="float16")], [ones(3, dtype="float16")]),
}


def different_models(meet, models, frozen=False):
    """A step that must fail on both, as often as it is tried."""
    params = [parameter(array, array.dtype) for array in models[meet.rank]]
    optimizer = dragon_optim.RMSprop(params, lr=0.1)
    for param in params:
        feed_gradient(param, np.ones(param.shape, param.dtype))
    if frozen and meet.rank == 1:
        params[0].requires_grad = False
    training = Training.__new__(Training)
    training.params, training.optimizer = params, optimizer
    first, second = attempt(training), attempt(training)
    return dict(first, second=second, stepped=len(optimizer.state))


def main():
    meet = meeting.Meeting()
    with meet.group.as_default():
        for name, models in DIFFERENT_MODELS.items():
            meet.report(f"different {name}", different_models(meet, models))
        meet.report("different requires_grad", different_models(meet, ([ones(3)], [ones(3)]), frozen=True))
        meet.report("after different models", wrong(meet, (bad_lr, bad_lr)))
        for name, sabotages in WRONG.items():
            meet.report(name, wrong(meet, sabotages))
            meet.report(f"{name}, foreach=False", wrong(meet, sabotages, foreach=False))
        meet.report("failing-closure", failing_closure(meet))


if __name__ == "__main__":
    main()
