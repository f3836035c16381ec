# SPDX-License-Identifier: BSD-2-Clause
"""Misuses of `state_dict()` and `load_state_dict()` by what is around the state dict.

Groups and parameters that are not as they should be, other workspaces and threads, hooks that interfere. What
a state dict holds is misused in `misuse_of_state_dicts.py`.
"""

from __future__ import annotations

import copy

import numpy as np
from dragon.core.framework import workspace

from tests.optim.elsewhere import in_thread
from tests.optim.forked_cases import Table
from tests.optim.support import parameter, values

CASES = Table()
misuse = CASES.case

NO_DATA = "has no data"


def _saved(w):
    return copy.deepcopy(w.optimizer.state_dict())


# --- the groups are not as they should be --------------------------------------------------------

CALLS = {
    "state_dict": lambda w, saved: w.optimizer.state_dict(),
    "load_state_dict": lambda w, saved: w.optimizer.load_state_dict(saved),
}


def _number(w):
    w.optimizer.param_groups = 5


def _number_as_group(w):
    w.optimizer.param_groups = [5]


def _no_params(w):
    del w.group["params"]


def _tensor_as_params(w):
    w.group["params"] = w.p


def _generator_as_params(w):
    w.group["params"] = (each for each in (w.p, w.q))


BROKEN_GROUPS = {
    "number-as-groups": (_number, TypeError, "param_groups must be a list of dicts"),
    "number-as-group": (_number_as_group, TypeError, r"param_groups\[0\] must be a dict"),
    "group-without-params": (_no_params, KeyError, r"param_groups\[0\] lacks 'params'"),
    "tensor-as-params": (_tensor_as_params, TypeError, r"\['params'\] must be a list of Tensors"),
    "generator-as-params": (_generator_as_params, TypeError, r"\['params'\] must be a list of Tensors"),
}

for _name, _call in CALLS.items():
    for _what, (_break, _exception, _match) in BROKEN_GROUPS.items():

        @misuse(_exception, _match, name=f"{_name}-with-{_what}")
        def _(w, call=_call, damage=_break):
            saved = _saved(w)
            damage(w)
            yield lambda: call(w, saved)


# --- another workspace, another thread, nothing left ----------------------------------------------


def _load_in_another_workspace(w, saved):
    with workspace.Workspace().as_default():
        w.optimizer.load_state_dict(saved)


def _load_in_another_thread(w, saved):
    in_thread(lambda: w.optimizer.load_state_dict(saved))


@misuse(RuntimeError, "another Dragon workspace")
def load_in_another_workspace(w):
    saved = _saved(w)
    yield lambda: _load_in_another_workspace(w, saved)


@misuse(RuntimeError, "another Dragon workspace")
def load_in_another_thread(w):
    saved = _saved(w)
    yield lambda: _load_in_another_thread(w, saved)


@misuse(None)
def load_in_a_thread_that_takes_the_workspace_along(w):
    home, saved = workspace.get_workspace(), _saved(w)

    def work():
        with home.as_default():
            w.optimizer.load_state_dict(saved)

    yield lambda: in_thread(work)


@misuse(None)
def state_dict_in_another_thread(w):
    """It is only read: a thread of its own may write checkpoints."""
    yield lambda: in_thread(lambda: values(w.optimizer.state_dict()["state"][0]["square_avg"]))


@misuse(RuntimeError, "another Dragon workspace", goes_on=False)
def load_after_reset_workspace(w):
    saved = {"state": {}, "param_groups": _saved(w)["param_groups"]}
    workspace.reset_workspace()
    yield lambda: w.optimizer.load_state_dict(saved)


@misuse(RuntimeError, "workspace.* was cleared", goes_on=False)
def load_after_clear(w):
    saved = {"state": {}, "param_groups": _saved(w)["param_groups"]}
    workspace.get_workspace().clear()
    yield lambda: w.optimizer.load_state_dict(saved)


@misuse(RuntimeError, "workspace.* was cleared", goes_on=False)
def state_dict_after_clear(w):
    workspace.get_workspace().clear()
    yield w.optimizer.state_dict


@misuse(RuntimeError, NO_DATA, goes_on=False)
def load_a_live_state_dict_after_clear(w):
    saved = w.optimizer.state_dict()
    workspace.get_workspace().clear()
    fresh = type(w)()
    yield lambda: fresh.optimizer.load_state_dict(saved)


@misuse(RuntimeError, NO_DATA, goes_on=False)
def deepcopy_of_a_live_state_dict_after_clear(w):
    saved = w.optimizer.state_dict()
    workspace.get_workspace().clear()
    yield lambda: copy.deepcopy(saved)


@misuse(RuntimeError, "parameter 0 has no data", goes_on=False)
def load_for_a_parameter_that_was_reset(w):
    saved = _saved(w)
    w.p._impl.Reset()
    yield lambda: w.optimizer.load_state_dict(saved)


@misuse(TypeError, "parameter 0 is int32", goes_on=False)
def load_for_a_parameter_that_was_converted_to_int32(w):
    saved = _saved(w)
    w.p._impl.FromNumpy(np.ones(3, "int32"), True)
    yield lambda: w.optimizer.load_state_dict(saved)


@misuse(ValueError, r"square_avg must have the shape of its parameter, \(2, 2\), but got \(3,\)")
def load_for_a_parameter_that_has_another_shape_now(w):
    saved = _saved(w)
    former = values(w.p)
    w.p._impl.FromNumpy(np.ones((2, 2), "float32"), True)
    yield lambda: w.optimizer.load_state_dict(saved)
    w.p._impl.FromNumpy(former, True)


@misuse(RuntimeError, "parameter 1 belongs to another Dragon workspace")
def load_for_a_parameter_of_another_workspace(w):
    saved = _saved(w)
    other = workspace.Workspace()
    with other.as_default():
        w.group["params"] = [w.p, parameter([[1.0, 2.0]])]
    yield lambda: w.optimizer.load_state_dict(saved)


# --- hooks that interfere -------------------------------------------------------------------------


@misuse(ZeroDivisionError)
def load_pre_hook_that_raises(w):
    saved = _saved(w)
    saved["state"][0]["step"] = 77
    w.optimizer.register_load_state_dict_pre_hook(lambda *_: 1 / 0)
    yield lambda: w.optimizer.load_state_dict(saved)


@misuse(TypeError, "state_dict must be a dict")
def load_pre_hook_that_returns_nonsense(w):
    w.optimizer.register_load_state_dict_pre_hook(lambda *_: 5)
    yield lambda: w.optimizer.load_state_dict(_saved(w))


@misuse(ValueError, "different number of parameter groups")
def load_pre_hook_that_adds_a_group(w):
    """The state dict is compared with the groups that there are then."""

    def hook(optimizer, saved):
        optimizer.add_param_group({"params": [parameter([1.0])]})

    saved = _saved(w)
    w.optimizer.register_load_state_dict_pre_hook(hook)
    yield lambda: w.optimizer.load_state_dict(saved)


@misuse(RuntimeError, "workspace.* was cleared", goes_on=False)
def load_pre_hook_that_clears_the_workspace(w):
    saved = {"state": {}, "param_groups": _saved(w)["param_groups"]}
    w.optimizer.register_load_state_dict_pre_hook(lambda *_: workspace.get_workspace().clear())
    workspace.get_workspace().clear()
    yield lambda: w.optimizer.load_state_dict(saved)
