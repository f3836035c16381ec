# SPDX-License-Identifier: BSD-2-Clause
"""`state_dict()` has PyTorch's layout, and what it holds is live."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from tests import cases
from tests.golden import state_dicts
from tests.golden.recording import DTYPES, EARLY
from tests.golden.state_dicts import StateDicts
from tests.optim import trainings
from tests.optim.runs import Run
from tests.optim.support import backward, feed_gradient, parameter, snapshot, values
from tests.optim.trainings import plain, trained, with_int_steps

# Of the parameter that stands twice.
pytestmark = pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate")

RECORDED = {version: StateDicts(version) for version in state_dicts.VERSIONS}
CASES = {case.name: case for case in cases.TORCH_CASES}

# What our groups have beyond PyTorch's.
OUR_KEYS = {
    "grad_scale",
    "clip_norm",
    "clip_value",
    "lr_in_momentum",
    "eps_inside_sqrt",
    "decoupled_weight_decay",
    "initial_square_avg",
}


def assert_is_pytorchs(ours, theirs):
    """Numbers, names of states, their bits, the step counts, and every value of every group."""
    assert set(ours) == set(theirs) == {"state", "param_groups"}
    assert plain(ours["state"]) == plain(with_int_steps(theirs)["state"])
    assert len(ours["param_groups"]) == len(theirs["param_groups"])
    for group, recorded in zip(ours["param_groups"], theirs["param_groups"]):
        expected = {key: value for key, value in recorded.items() if key != "capturable"}  # 2.2 and later
        assert set(group) == set(expected) | OUR_KEYS
        assert plain({key: group[key] for key in expected}) == plain(expected)


# --- layout ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", state_dicts.VERSIONS)
@pytest.mark.parametrize("name", sorted(trainings.MAKE))
def test_trainings_give_pytorchs_state_dict(name, version):
    if name not in RECORDED[version]:
        assert (name, version) in {("named", "2.1"), ("tensor-lr", "2.1")}  # came later
        return
    optimizer, _ = trained(name)
    assert_is_pytorchs(optimizer.state_dict(), RECORDED[version].get(name)["state_dict"])


@pytest.mark.parametrize("version", state_dicts.VERSIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", state_dicts.CASES)
def test_cases_give_pytorchs_state_dict(name, dtype, version):
    """Among them parameters without elements, scalars, and some without a gradient so far."""
    run = Run(CASES[name], dtype)
    for _ in itertools.islice(run.steps(), EARLY):
        pass
    assert_is_pytorchs(run.optimizer.state_dict(), RECORDED[version].get(f"case/{name}/{dtype}"))


def test_numbers_count_across_groups():
    params = [parameter([float(i)]) for i in range(5)]
    groups = [{"params": params[:2]}, {"params": []}, {"params": params[2:]}]
    optimizer = dragon_optim.RMSprop(groups)
    assert [each["params"] for each in optimizer.state_dict()["param_groups"]] == [[0, 1], [], [2, 3, 4]]
    backward(params[3], 1.0)
    optimizer.step()
    assert list(optimizer.state_dict()["state"]) == [3]


def test_types():
    optimizer, _ = trained("two-groups")
    saved = optimizer.state_dict()
    assert {type(each) for each in (saved, saved["state"], *saved["state"].values())} == {dict}
    assert type(saved["param_groups"]) is list
    assert {type(each) for each in saved["param_groups"]} == {dict}
    assert {type(each["params"]) for each in saved["param_groups"]} == {list}
    ids = [each for group in saved["param_groups"] for each in group["params"]]
    assert {type(each) for each in [*ids, *saved["state"]]} == {int}
    assert {type(entry["step"]) for entry in saved["state"].values()} == {int}
    tensors = [each for entry in saved["state"].values() for key, each in entry.items() if key != "step"]
    assert {type(each) for each in tensors} == {torch.Tensor}


def test_before_the_first_step():
    saved = dragon_optim.RMSprop([parameter([1.0])]).state_dict()
    assert saved["state"] == {}
    assert saved["param_groups"][0]["params"] == [0]


def test_float16_has_master_weights():
    optimizer, params = trained("two-groups", "float16")
    entry = optimizer.state_dict()["state"][0]
    assert list(entry) == ["step", "square_avg", "momentum_buffer", "grad_avg", "master_param"]
    assert {each.dtype for key, each in entry.items() if key != "step"} == {"float32"}
    assert values(entry["master_param"]).astype("float16").tolist() == values(params[0]).tolist()


# --- live, and only as far as PyTorch's -----------------------------------------------------------


def test_tensors_are_live():
    optimizer, params = trained("two-groups")
    saved = optimizer.state_dict()
    for number, param in enumerate(params):
        for key, tensor in saved["state"][number].items():
            assert key == "step" or tensor is optimizer.state[param][key]
    before = values(saved["state"][0]["square_avg"]).tolist()
    trainings.advance(optimizer, params, trainings.GOES_ON)
    assert values(saved["state"][0]["square_avg"]).tolist() != before
    assert saved["state"][0]["step"] == trainings.STEPS  # a number cannot be


def test_dicts_and_lists_are_not():
    optimizer, _ = trained("two-groups")
    before = plain(optimizer.state_dict())
    saved = optimizer.state_dict()
    saved["param_groups"][0].update(lr=5.0, mine=1)
    saved["param_groups"][0]["params"].append(7)
    saved["param_groups"].append({})
    saved["state"][0].clear()
    del saved["state"][1]
    assert plain(optimizer.state_dict()) == before
    assert len(optimizer.param_groups[0]["params"]) == 2


def test_a_hyper_parameter_that_is_a_tensor_is_live():
    lr = torch.tensor(0.5, dtype="float64")
    optimizer = dragon_optim.RMSprop([parameter([1.0])], lr=lr)
    assert optimizer.state_dict()["param_groups"][0]["lr"] is lr


def test_it_changes_nothing():
    optimizer, params = trained("two-groups")
    before = snapshot(optimizer, *params)
    groups = list(optimizer.param_groups)
    for _ in range(2):
        optimizer.state_dict()
    assert snapshot(optimizer, *params) == before
    assert all(map(lambda ours, old: ours is old, optimizer.param_groups, groups))


def test_reading_an_entry_that_is_not_there_does_not_save_it():
    optimizer = dragon_optim.RMSprop([parameter([1.0])])
    assert optimizer.state[optimizer.param_groups[0]["params"][0]].get("step") is None
    assert optimizer.state_dict()["state"] == {}


# --- what else stands in it -----------------------------------------------------------------------


def test_what_is_not_ours_passes_through():
    optimizer, params = trained("two-groups")
    optimizer.state["seen"] = {"epochs": 3}
    optimizer.state[params[0]]["ema"] = ema = torch.ones(2)
    optimizer.param_groups[1].update(initial_lr=0.5, lr_scale=0.1, name="head")
    saved = optimizer.state_dict()
    assert saved["state"]["seen"] is optimizer.state["seen"]
    assert saved["state"][0]["ema"] is ema
    assert {"initial_lr": 0.5, "lr_scale": 0.1, "name": "head"}.items() <= saved["param_groups"][1].items()
    assert "initial_lr" not in saved["param_groups"][0]


def test_a_parameter_with_nothing_but_the_users_entries():
    param = parameter([1.0])
    optimizer = dragon_optim.RMSprop([param])
    optimizer.state[param]["ema"] = 3
    assert optimizer.state_dict()["state"] == {0: {"ema": 3}}


def test_state_of_a_parameter_in_no_group_is_left_out_with_a_warning():
    optimizer, params = trained("two-groups")
    optimizer.param_groups[0]["params"] = params[:1]
    with pytest.warns(UserWarning, match=r"leaves out the state of 1 parameter\(s\) that stand in no group"):
        saved = optimizer.state_dict()
    assert list(saved["state"]) == [0, 1, 2]
    assert plain(saved["state"][1]) == plain(optimizer.state[params[2]])


@pytest.mark.filterwarnings("error")
def test_no_warning_without_such_a_parameter():
    optimizer, params = trained("two-groups")
    optimizer.param_groups[0]["params"] = params[:1]
    del optimizer.state[params[1]]
    assert list(optimizer.state_dict()["state"]) == [0, 1, 2]


def test_groups_changed_by_hand_are_as_they_are_now():
    optimizer, params = trained("two-groups")
    first, second = optimizer.param_groups
    optimizer.param_groups = [second, first]
    assert plain(optimizer.state_dict()["state"][0]) == plain(optimizer.state[params[2]])
    second["params"] = tuple(second["params"])
    assert optimizer.state_dict()["param_groups"][0]["params"] == [0, 1]


@pytest.mark.parametrize("change", ["grown", "shrunk", "of-another-type"])
def test_names_that_no_longer_fit_are_left_out_with_a_warning(change):
    """Nothing could load them: a training would have been saved in vain."""
    params = [parameter([float(number)]) for number in range(3)]
    optimizer = dragon_optim.RMSprop([("a", params[0]), ("b", params[1])])
    group = optimizer.param_groups[0]
    if change == "of-another-type":
        group["param_names"] = "ab"
    else:
        group["params"] = params if change == "grown" else params[:1]
    optimizer.state[params[0]] = {"step": 3, "square_avg": [2.0]}
    with pytest.warns(
        UserWarning, match=r"leaves out the names of group 0: .*param_groups\[0\]\['param_names'\]"
    ):
        saved = optimizer.state_dict()
    assert "param_names" not in saved["param_groups"][0]
    assert group["param_names"] == ("ab" if change == "of-another-type" else ["a", "b"])
    names = [(str(number), param) for number, param in enumerate(group["params"])]
    for resumed in (optimizer, dragon_optim.RMSprop(group["params"]), dragon_optim.RMSprop(names)):
        resumed.load_state_dict(saved)
        assert resumed.state[params[0]]["step"] == 3


def test_params_that_hold_something_else():
    optimizer, _ = trained("two-groups")
    optimizer.param_groups[1]["params"] = [0, 1]
    with pytest.raises(TypeError, match="builtins.int"):
        optimizer.state_dict()


# --- taken elsewhere ------------------------------------------------------------------------------

WAYS = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda saved: pickle.loads(pickle.dumps(saved)),
    "pickle-2": lambda saved: pickle.loads(pickle.dumps(saved, protocol=2)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("way", WAYS)
def test_copies_are_equal_and_independent(way, dtype):
    optimizer, params = trained("two-groups", dtype)
    optimizer.param_groups[0]["lr"] = torch.tensor(0.25, dtype="float64")
    copied = WAYS[way](optimizer.state_dict())
    before = plain(optimizer.state_dict())
    assert plain(copied) == before
    trainings.advance(optimizer, params, trainings.GOES_ON)
    assert plain(copied) == before != plain(optimizer.state_dict())


def test_dragons_own_file(tmp_path):
    """It makes numpy arrays of the tensors."""
    optimizer, _ = trained("two-groups")
    torch.save(optimizer.state_dict(), str(tmp_path / "file"))
    loaded = torch.load(str(tmp_path / "file"))
    assert type(loaded["state"][0]["square_avg"]) is np.ndarray
    assert plain(loaded) == plain(optimizer.state_dict())


def test_no_elements():
    """Dragon cannot copy what has no elements by itself."""
    param = parameter(np.zeros((2, 0)))
    optimizer = dragon_optim.RMSprop([param], momentum=0.9)
    feed_gradient(param, np.zeros((2, 0), "float32"))
    optimizer.step()
    for way in WAYS.values():
        assert plain(way(optimizer.state_dict())) == plain(optimizer.state_dict())
