# SPDX-License-Identifier: BSD-2-Clause
"""Hooks on one rank raise, or change what its step is called with."""

from __future__ import annotations

import numpy as np

import dragon_optim
from tests.optim.ranks import meeting
from tests.optim.support import feed_gradient, parameter, values


class OwnStep(dragon_optim.RMSprop):
    """As a user's subclass that does something around the step."""

    def step(self, closure=None):
        self.stepped = True
        return super().step(closure)


def failing(*_):
    raise ZeroDivisionError("the hook of one rank")


def interrupted(*_):
    raise KeyboardInterrupt


def wrong_return(*_):
    return 5


def unknown_argument(optimizer, args, kwargs):
    return args, {"wrong": 1}


def no_optimizer(*_):
    return (), {}


def no_arguments(*_):
    return 5, {}


def with_closure(rank):
    """Puts a closure in that makes the gradient of this rank."""

    def hook(optimizer, args, kwargs):
        (param,) = optimizer.param_groups[0]["params"]
        return (*args, lambda: feed_gradient(param, np.full(3, 1.0 + rank, "float32"))), kwargs

    return hook


def training(make, rank):
    param = parameter(np.ones(3))
    optimizer = make([param], lr=0.1, momentum=0.9)
    feed_gradient(param, np.full(3, 1.0 + rank, "float32"))
    optimizer.step()
    feed_gradient(param, np.full(3, 1.0 + rank, "float32"))
    return optimizer, param


def bits(optimizer, param):
    state = optimizer.state[param]
    return [values(param).tolist(), state["step"], values(state["square_avg"]).tolist()]


def scenario(meet, hook, on=0, register="register_step_pre_hook", make=dragon_optim.RMSprop):
    """A step with a hook on one rank; and a good one after it, without."""
    optimizer, param = training(make, meet.rank)
    before = bits(optimizer, param)
    handle = None
    if meet.rank == on:
        owner = dragon_optim if register.startswith("register_optimizer") else optimizer
        handle = getattr(owner, register)(hook)
    raised, message = None, ""
    try:
        optimizer.step()
    except BaseException as error:
        raised, message = type(error).__name__, str(error)
    changed = bits(optimizer, param) != before
    if handle is not None:
        handle.remove()
    feed_gradient(param, np.full(3, 1.0 + meet.rank, "float32"))
    optimizer.step()
    return {"raised": raised, "message": message, "changed": changed, "after": bits(optimizer, param)}


PRE_HOOKS: dict = {
    "raises": (failing, {}),
    "raises-on-rank-1": (failing, {"on": 1}),
    "interrupted": (interrupted, {}),
    "wrong-return": (wrong_return, {}),
    "global": (failing, {"register": "register_optimizer_step_pre_hook"}),
    "subclass": (failing, {"make": OwnStep}),
    "foreach-false": (failing, {"make": lambda *args, **kwargs: OwnStep(*args, foreach=False, **kwargs)}),
}
POST_HOOKS = {"post": "register_step_post_hook", "global-post": "register_optimizer_step_post_hook"}
# What comes back from the hook is no call of step().
WRONG_CALLS = {
    "unknown-argument": unknown_argument,
    "no-optimizer": no_optimizer,
    "no-arguments": no_arguments,
}


def main():
    meet = meeting.Meeting()
    with meet.group.as_default():
        for name, (hook, options) in PRE_HOOKS.items():
            meet.report(name, scenario(meet, hook, **options))
        for name, register in POST_HOOKS.items():
            meet.report(name, scenario(meet, failing, register=register))
        optimizer, param = training(dragon_optim.RMSprop, meet.rank)
        optimizer.zero_grad(set_to_none=True)
        optimizer.register_step_pre_hook(with_closure(meet.rank))
        optimizer.step()
        meet.report("closures", bits(optimizer, param))
        for name, hook in WRONG_CALLS.items():
            meet.report(name, scenario(meet, hook))


if __name__ == "__main__":
    main()
