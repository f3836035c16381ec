# SPDX-License-Identifier: BSD-2-Clause
"""Hooks on two real ranks: what one raises is heard by the other."""

from __future__ import annotations

import numpy as np
import pytest

import dragon_optim
from tests.optim.ranks import hooks
from tests.optim.support import feed_gradient, parameter
from tests.optim.test_process_group import Reports
from tests.optim.test_process_group_late import needs_mpirun


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return Reports(tmp_path_factory.mktemp("hooks"), "hooks")


def good_steps(number):
    """What a rank holds after some steps from the mean of the gradients of both."""
    param = parameter(np.ones(3))
    optimizer = dragon_optim.RMSprop([param], lr=0.1, momentum=0.9)
    feed_gradient(param, np.full(3, 1.5, "float32"))
    for _ in range(number):
        optimizer.step()
    return hooks.bits(optimizer, param)


RAISED = {"interrupted": "KeyboardInterrupt", "wrong-return": "RuntimeError"}


@needs_mpirun
@pytest.mark.parametrize("name", hooks.PRE_HOOKS)
def test_a_pre_hook_that_raises_on_one_rank(ranks, name):
    """Both raise, the other one says why; nothing has changed, and the next step is a good one."""
    _, options = hooks.PRE_HOOKS[name]
    reports = ranks.of(name)
    failed = reports.pop(options.get("on", 0))
    (other,) = reports
    assert failed["raised"] == RAISED.get(name, "ZeroDivisionError"), failed["message"]
    assert other["raised"] == "RuntimeError"
    assert "another rank of the process group found an error" in other["message"]
    for report in (failed, other):
        assert not report["changed"]
        assert report["after"] == good_steps(2)


@needs_mpirun
@pytest.mark.parametrize("name", hooks.POST_HOOKS)
def test_a_post_hook_that_raises_on_one_rank(ranks, name):
    """By then the step is done on all."""
    failed, other = ranks.of(name)
    assert [failed["raised"], other["raised"]] == ["ZeroDivisionError", None]
    assert failed["changed"]
    assert other["changed"]
    assert failed["after"] == other["after"] == good_steps(3)


@needs_mpirun
def test_closures_put_in_by_hooks_on_all_ranks(ranks):
    """Each makes the gradient of its rank."""
    assert ranks.of("closures") == [good_steps(2)] * 2


@needs_mpirun
@pytest.mark.parametrize("name", hooks.WRONG_CALLS)
def test_a_pre_hook_whose_arguments_step_does_not_take(ranks, name):
    """No more than any other error on one rank may it leave the others waiting."""
    failed, other = ranks.of(name)
    assert failed["raised"] in ("TypeError", "RuntimeError")
    assert other["raised"] == "RuntimeError"
    assert failed["after"] == other["after"] == good_steps(2)


@needs_mpirun
def test_the_script_of_hooks_ends_well(ranks):
    assert ranks.ending == "exit code 0"
