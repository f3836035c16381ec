# SPDX-License-Identifier: BSD-2-Clause
"""Misuses of the history of recorded steps: expressions that outlive it, and steps while it is hidden."""

from __future__ import annotations

import numpy as np
from dragon.vm import torch

import dragon_optim
from tests.optim.forked_cases import Table
from tests.optim.misuse_of_differentiable import GOOD, Recorded
from tests.optim.support import backward, parameter, snapshot, values

CASES = Table()
misuse = CASES.case


# --- expressions of what a parameter was ----------------------------------------------------------


def _by_a_step_without_grad(r):
    with r.optimizer.as_leaves():
        backward(r.p, 1.0)
    with torch.no_grad():
        r.optimizer.step()


def _by_a_backward_pass_and_a_step(r):
    r.good_step()
    r.p.sum().backward()
    r.good_step()


def _by_detach_after_a_step(r):
    r.good_step()
    r.optimizer.detach_()


_ENDS = {
    "a-step-without-grad": _by_a_step_without_grad,
    "a-backward-pass": _by_a_backward_pass_and_a_step,
    "detach": lambda r: r.optimizer.detach_(),
    "detach-after-a-step": _by_detach_after_a_step,
}
_EXPRESSIONS = {
    "parameter": lambda r: (r.p * r.p).sum(),
    "origin": lambda r: (r.optimizer.origin(r.p) * r.p).sum(),
}

for _way, _end in _ENDS.items():
    for _name, _express in _EXPRESSIONS.items():
        for _taken in (0, 20):  # names that other tensors have taken

            @misuse(
                RuntimeError,
                "modified by an inplace operation.*Call backward\\(\\) before the history ends",
                name=f"an-expression-of-the-{_name}-after-{_way}-{_taken}",
            )
            def _(w, end=_end, express=_express, taken=_taken):
                r = Recorded()
                loss = express(r)
                end(r)
                kept = [torch.ones(7, 2) for _ in range(taken)]
                others = [Recorded() for _ in range(taken // 10)]
                for each in others:
                    each.good_step()
                yield loss.backward
                del kept
                for each in [r, *others]:
                    each.good_step()
                    each.p.sum().backward()
                    assert each.lr.grad is not None


@misuse(RuntimeError, "modified by an inplace operation")
def an_expression_of_a_state_after_detach(w):
    r = Recorded()
    loss = (r.optimizer.state[r.p]["square_avg"] * 2.0).sum()
    r.optimizer.detach_()
    yield loss.backward


@misuse(RuntimeError, "modified by an inplace operation")
def an_expression_of_a_leaf_after_a_step_without_grad(w):
    p = parameter(GOOD)
    optimizer = dragon_optim.RMSprop([p], differentiable=True)
    loss = (p * p).sum()
    backward(p, 1.0)
    with torch.no_grad():
        optimizer.step()
    yield loss.backward


@misuse(RuntimeError, "modified by an inplace operation")
def an_expression_of_what_was_frozen_meanwhile(w):
    p = parameter(GOOD)
    optimizer = dragon_optim.RMSprop([p], differentiable=True)
    loss = (p * p).sum()
    p.requires_grad = False
    optimizer.step(gradients={p: torch.ones(3)})
    kept = [parameter(np.ones((7, 2))) for _ in range(5)]
    yield loss.backward
    del kept


@misuse(RuntimeError, "modified by an inplace operation")
def an_expression_of_a_leaf_that_somebody_holds_still(w):
    """Its gradient would be lost: nothing leads to the leaf any more."""
    p = parameter(GOOD)
    optimizer = dragon_optim.RMSprop([p], differentiable=True)
    optimizer.step(gradients={p: torch.ones(3)})
    held = optimizer.origin(p)
    optimizer.detach_()
    loss = (held * 1.0 + p * p).sum()
    with torch.no_grad():
        optimizer.step(gradients={p: torch.ones(3)})
    yield loss.backward


@misuse(None)
def an_expression_of_a_state_and_a_parameter_that_the_state_leads_back_from(w):
    """Nobody but the tape of their step owns the name of what the parameter was."""

    def slopes(more):
        r = Recorded()
        origin = r.optimizer.origin(r.p)
        loss = (r.p * r.p).sum() + (r.optimizer.state[r.p]["square_avg"] * 2.0).sum()
        for _ in range(more):
            r.good_step()
        if more:
            r.optimizer.detach_()
        kept = [torch.ones(7, 2) for _ in range(20)]
        loss.backward()
        del kept
        return values(r.lr.grad).tolist(), values(origin.grad).tolist()

    def compare():
        assert slopes(2) == slopes(0)

    yield compare


# --- blocks in which parameters are leaves --------------------------------------------------------


def _in_a_block(r, step):
    with r.optimizer.as_leaves():
        step()


def _in_a_closure(r, step):
    r.optimizer.step(step)


_BLOCKS = {"block": _in_a_block, "closure": _in_a_closure}


def _stepped(optimizer):
    optimizer.step()


def _stepped_without_grad(optimizer):
    with torch.no_grad():
        optimizer.step()


def _stepped_in_an_inner_block(optimizer):
    with optimizer.as_leaves():
        pass
    optimizer.step()


_STEPS = {
    "step": _stepped,
    "step-without-grad": _stepped_without_grad,
    "step-after-an-inner-block": _stepped_in_an_inner_block,
}

for _block, _enter in _BLOCKS.items():
    for _name, _step in _STEPS.items():
        for _who in ("itself", "another"):

            @misuse(
                RuntimeError,
                "the history of a parameter is hidden by as_leaves.*call step\\(\\) after",
                name=f"{_name}-of-{_who}-in-a-{_block}",
            )
            def _(w, enter=_enter, step=_step, who=_who):
                r = Recorded()
                other = dragon_optim.RMSprop([r.p], differentiable=True)
                with r.optimizer.as_leaves():
                    backward(r.p, 1.0)
                before = snapshot(r.optimizer, r.p)
                yield lambda: enter(r, lambda: step(r.optimizer if who == "itself" else other))
                r.check(before)

    @misuse(RuntimeError, "the history of parameter 0 is hidden", name=f"ordinary-step-in-a-{_block}")
    def _(w, enter=_enter):
        p = parameter(GOOD)
        ordinary = dragon_optim.RMSprop([p])
        r = Recorded(p=p)
        before = snapshot(r.optimizer, r.p)
        yield lambda: enter(r, ordinary.step)
        r.check(before)


@misuse(None)
def ordinary_step_of_a_leaf_in_a_block(w):
    """There is no history that it could spoil."""
    p = parameter(GOOD)
    recorded = dragon_optim.RMSprop([p], differentiable=True)

    def act():
        with recorded.as_leaves():
            backward(p, 1.0)
            dragon_optim.RMSprop([p]).step()

    yield act
