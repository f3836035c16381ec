# SPDX-License-Identifier: BSD-2-Clause
"""Optimizers of one's own on the base class: what it takes from them, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

import dragon_optim
from tests.optim.support import backward, parameter, values


class TooFewStates(dragon_optim.RMSprop):
    """Says that it needs no momentum buffer, whatever the momentum."""

    @classmethod
    def state_names(cls, hyper):
        return ("square_avg",)


class NoStates(dragon_optim.Optimizer):
    """Names an operator, and forgets its states and hyper-parameters."""

    operator_type = "DragonOptimRMSprop"


class NoSuchOperator(dragon_optim.Optimizer):
    operator_type = "NoSuchOperator"


@pytest.mark.parametrize(
    "make",
    [lambda params: TooFewStates(params, momentum=0.9), lambda params: NoStates(params, {})],
    ids=["too few states", "no states"],
)
def test_a_missing_state_is_refused(make):
    """The kernel would write where no memory is."""
    param = parameter([1.0, 2.0])
    optimizer = make([param])
    backward(param, 1.0)
    with pytest.raises(ValueError, match="state that the hyper-parameters need|do not fit each other"):
        optimizer.step()
    assert values(param).tolist() == [1.0, 2.0]


def test_an_unknown_operator_is_refused_at_once():
    """Dragon ends the process at a graph with one."""
    with pytest.raises(ValueError, match="no operator 'NoSuchOperator'"):
        NoSuchOperator([parameter([1.0])], {})


def test_a_class_without_an_operator_says_so():
    optimizer = dragon_optim.Optimizer([parameter([1.0])], {})
    with pytest.raises(NotImplementedError, match="names no operator"):
        optimizer.step()


def test_defaults_of_the_caller_stay_as_they_are():
    """One dict of defaults for two optimizers: the first must not decide for the second."""
    defaults = {}
    first = dragon_optim.Optimizer([parameter([1.0])], defaults, clip_norm=1)
    second = dragon_optim.Optimizer([parameter([1.0])], defaults, clip_norm=5)
    assert defaults == {}
    assert [each.param_groups[0]["clip_norm"] for each in (first, second)] == [1, 5]


def test_a_keyword_counts_for_more_than_the_defaults():
    optimizer = dragon_optim.Optimizer([parameter([1.0])], {"clip_norm": 1, "clip_value": 3}, clip_norm=5)
    assert [optimizer.param_groups[0][key] for key in ("clip_norm", "clip_value")] == [5, 3]


def test_defaults_must_be_a_dict():
    with pytest.raises(TypeError, match="defaults must be a dict, but got .*NoneType"):
        dragon_optim.Optimizer([parameter([1.0])], None)


def test_state_set_before_its_parameter_joins():
    """In PyTorch the entry is the state from then on; here its values are taken over."""
    first, later = parameter([1.0]), parameter([1.0, 2.0])
    optimizer = dragon_optim.RMSprop([first])
    optimizer.state[later] = {"step": 3, "square_avg": np.ones(2), "mine": "kept"}
    optimizer.add_param_group({"params": [later]})
    assert later in optimizer.state
    assert dict(optimizer.state[later], square_avg=None) == {"step": 3, "square_avg": None, "mine": "kept"}
    assert values(optimizer.state[later]["square_avg"]).tolist() == [1.0, 1.0]
    assert [each is later for each in optimizer.state] == [True]


def test_wrong_state_set_before_its_parameter_joins():
    """The group is refused, and what was set is still there."""
    first, later = parameter([1.0]), parameter([1.0, 2.0])
    optimizer = dragon_optim.RMSprop([first])
    optimizer.state[later] = {"square_avg": np.ones(5)}
    with pytest.raises(ValueError, match="square_avg must have the shape"):
        optimizer.add_param_group({"params": [later]})
    assert len(optimizer.param_groups) == 1
    assert list(optimizer.state[later]) == ["square_avg"]
