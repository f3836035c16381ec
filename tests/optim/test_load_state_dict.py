# SPDX-License-Identifier: BSD-2-Clause
"""`load_state_dict()` takes every form that a state dict may have, and copies it."""

from __future__ import annotations

import copy
from collections import OrderedDict, UserDict
from types import MappingProxyType

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from tests import cases, exact
from tests.golden import state_dicts
from tests.golden.recording import DTYPES, EARLY, Recording, crc
from tests.golden.state_dicts import Foreign, StateDicts
from tests.optim import trainings
from tests.optim.runs import Run
from tests.optim.support import feed_gradient, parameter, snapshot, values
from tests.optim.trainings import plain, rmsprop, trained, with_int_steps

pytestmark = pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate")

CASES = {case.name: case for case in cases.TORCH_CASES}
RECORDED = {version: StateDicts(version) for version in state_dicts.VERSIONS}
RECORDINGS = {dtype: Recording(dtype) for dtype in DTYPES}

# What a tensor of the state dict may be.
FORMS = {
    "array": lambda tensor: tensor.widened(),
    "dragon": lambda tensor: torch.tensor(tensor.widened(), dtype=str(tensor.widened().dtype)),
    "pytorch": Foreign,
}
by_form = pytest.mark.parametrize("form", FORMS)
by_version = pytest.mark.parametrize("version", state_dicts.VERSIONS)


def other_settings(params):
    """A group that all of the loaded values must replace."""
    return {"params": params, "lr": 0.5, "momentum": 0.25, "maximize": True, "centered": True, "eps": 1.0}


# --- what PyTorch has written ---------------------------------------------------------------------


class Resumed(Run):
    """A case from the step on at which its state dict was recorded."""

    def steps(self):
        for step in range(EARLY, self.case.steps):
            for group in self.optimizer.param_groups:
                group.update(self.case.schedule.get(step, {}))
            for place, param in enumerate(self.params):
                grad = self.case.gradient(step, place, self.dtype)
                if grad is not None:
                    feed_gradient(param, grad)
                elif param.grad is not None:
                    param.grad._impl.Reset()
            self.optimizer.step()
            yield self.snapshot()


@by_form
@by_version
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", state_dicts.CASES)
def test_pytorchs_trajectory_goes_on(name, dtype, version, form):
    case, recording = CASES[name], RECORDINGS[dtype]
    run = Resumed(case, dtype)
    early = recording.snapshot(case, "early")
    run.params = [parameter(entry["param"], dtype) for entry in early]
    groups = [other_settings([run.params[i] for i in places]) for _, places in case.groups()]
    run.optimizer = dragon_optim.RMSprop(groups)
    run.optimizer.load_state_dict(RECORDED[version].get(f"case/{name}/{dtype}", FORMS[form]))
    exact.assert_same_bits(run.snapshot(), early, "loaded")
    for step, entries in enumerate(run.steps(), EARLY):
        wrong = [i for i, entry in enumerate(entries) if crc(entry) != recording.crcs(case)[step, i]]
        assert not wrong, f"step {step}: parameters {wrong} (or their states) leave PyTorch's trajectory"
    exact.assert_same_bits(entries, recording.snapshot(case, "ieee"), "last step")


TRAININGS = [
    (version, name)
    for version in state_dicts.VERSIONS
    for name in trainings.MAKE
    if name in RECORDED[version]
]


@by_form
@pytest.mark.parametrize(("version", "name"), TRAININGS)
def test_pytorchs_trainings_go_on(version, name, form):
    """Two groups, a parameter that stands twice, a scheduler's initial_lr, names, a tensor as lr."""
    recorded = RECORDED[version].get(name)
    params = [parameter(array) for array in recorded["params"]]
    optimizer = trainings.MAKE[name](params)
    for group in optimizer.param_groups:
        group.update(lr=0.5, momentum=0.25, maximize=True, foreach=True)
    optimizer.load_state_dict(RECORDED[version].get(name, FORMS[form])["state_dict"])
    trainings.advance(optimizer, params, trainings.GOES_ON)
    assert plain(params) == plain(recorded["end_params"])
    ours, theirs = optimizer.state_dict(), with_int_steps(recorded["end_state_dict"])
    # By parameter: what number one that stands twice has does not matter here.
    by_place = [
        [plain(saved["state"][number]) for group in saved["param_groups"] for number in group["params"]]
        for saved in (ours, theirs)
    ]
    assert by_place[0] == by_place[1]
    for group, expected in zip(ours["param_groups"], theirs["param_groups"]):
        numbers = {key: np.asarray(each) for key, each in group.items() if key in ("lr", "momentum")}
        assert numbers == {key: np.asarray(expected[key]) for key in numbers}
        rest = set(expected) - {"params", *numbers}
        assert {key: group[key] for key in rest} == {key: expected[key] for key in rest}


@by_version
def test_bfloat16_is_widened(version):
    recorded = RECORDED[version].get("bfloat16")["state_dict"]
    params = trainings.parameters()
    optimizer = rmsprop(params)
    optimizer.load_state_dict(RECORDED[version].get("bfloat16", Foreign)["state_dict"])
    assert plain(optimizer.state_dict()["state"]) == plain(with_int_steps(recorded)["state"])
    assert recorded["state"][0]["square_avg"].dtype == "float32"
    trainings.advance(optimizer, params, range(1))
    assert optimizer.state[params[0]]["step"] == state_dicts.STEPS + 1


@by_form
def test_float16_state_of_pytorch_is_widened(form):
    """And goes on in float32, with master weights made from the parameter."""
    recorded = RECORDED["2.13"].get("float16")
    params = [parameter(array, "float16") for array in recorded["params"]]
    optimizer = rmsprop(params)
    optimizer.load_state_dict(RECORDED["2.13"].get("float16", FORMS[form])["state_dict"])
    starts = []
    for number, param in enumerate(params):
        theirs, ours = recorded["state_dict"]["state"][number], dict(optimizer.state[param])
        assert set(ours) == {"step", "square_avg", "momentum_buffer"}
        for key in ("square_avg", "momentum_buffer"):
            assert theirs[key].dtype == "float16"
            assert plain(ours[key]) == plain(theirs[key].astype("float32"))
        starts.append((values(param), {key: values(ours[key]) for key in ("square_avg", "momentum_buffer")}))
    trainings.advance(optimizer, params, trainings.GOES_ON[:1])
    options = dict(lr=0.01, alpha=0.9, momentum=0.9, eps=1e-3)
    for param, (array, state) in zip(params, starts):
        expected, expected_state = exact.step(options, array, values(param.grad), state)
        assert plain(param) == plain(expected)
        states = {key: each for key, each in optimizer.state[param].items() if key != "step"}
        assert plain(states) == plain(expected_state)


LATER_KEYS = ("momentum", "centered", "foreach", "maximize", "differentiable")


@pytest.mark.parametrize("missing", [*[[key] for key in LATER_KEYS], LATER_KEYS], ids="+".join)
def test_older_forms(missing):
    """What a group of PyTorch lacked in its time was off, whatever the optimizer is set to now."""
    saved = RECORDED["2.1"].get("for-loop")["state_dict"]
    for key in missing:
        del saved["param_groups"][0][key]
    params = trainings.parameters()
    optimizer = rmsprop(params, momentum=0.9, centered=True, foreach=False, maximize=True, clip_norm=7.0)
    optimizer.load_state_dict(saved)
    (group,) = optimizer.param_groups
    off = {"momentum": 0, "centered": False, "foreach": None, "maximize": False, "differentiable": False}
    now = {**saved["param_groups"][0], **{key: off[key] for key in missing}}
    assert {key: group[key] for key in LATER_KEYS} == {key: now[key] for key in LATER_KEYS}
    assert group["clip_norm"] == 7.0  # PyTorch never had it
    trainings.advance(optimizer, params, range(1))
    assert optimizer.state[params[0]]["step"] == state_dicts.STEPS + 1


# --- forms of our own -----------------------------------------------------------------------------


def _file(saved, tmp_path):
    torch.save(saved, str(tmp_path / "file"))
    return torch.load(str(tmp_path / "file"))


WAYS = {
    "live": lambda saved, tmp_path: saved,
    "deepcopy": lambda saved, tmp_path: copy.deepcopy(saved),
    "dragons-file": _file,
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["two-groups", "shared", "scheduled", "named", "tensor-lr"])
def test_a_new_optimizer_goes_on_as_the_old_one(name, way, dtype, tmp_path):
    optimizer, params = trained(name, dtype)
    twins = [parameter(values(param), dtype) for param in params]
    other = trainings.MAKE[name](twins)
    other.load_state_dict(WAYS[way](optimizer.state_dict(), tmp_path))
    assert plain(other.state_dict()) == plain(optimizer.state_dict())
    for each, weights in ((optimizer, params), (other, twins)):
        trainings.advance(each, weights, trainings.GOES_ON)
    assert plain(twins) == plain(params)
    assert plain(other.state_dict()) == plain(optimizer.state_dict())


@pytest.mark.parametrize("kind", [OrderedDict, UserDict, MappingProxyType])
def test_mappings_of_every_kind(kind):
    optimizer, params = trained("two-groups")
    before = plain(optimizer.state_dict())
    saved = copy.deepcopy(optimizer.state_dict())
    trainings.advance(optimizer, params, trainings.GOES_ON)
    state = kind({number: kind(entry) for number, entry in saved["state"].items()})
    groups = tuple(kind(dict(group, params=tuple(group["params"]))) for group in saved["param_groups"])
    optimizer.load_state_dict(kind({"state": state, "param_groups": groups}))
    assert plain(optimizer.state_dict()) == before


LAYOUTS = {
    "fortran": np.asfortranarray,
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "read-only": lambda array: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape),
    "strided": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "list": lambda array: array.tolist(),
    "integers": lambda array: array.astype("int16"),
    "unsigned": lambda array: array.astype("uint64"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_of_every_layout(layout):
    """Dragon itself ends the process at some of them."""
    param = parameter(np.zeros((2, 3)))
    optimizer = dragon_optim.RMSprop([param])
    saved = optimizer.state_dict()
    array = np.arange(6, dtype="float32").reshape(2, 3)
    saved["state"] = {0: {"step": 1, "square_avg": LAYOUTS[layout](array)}}
    optimizer.load_state_dict(saved)
    assert plain(optimizer.state[param]["square_avg"]) == plain(array)


def test_special_values_keep_their_bits():
    bits = np.array([0x7FC01234, 0xFF800000, 0x80000000, 1, 0x7F800001], "uint32").view("float32")
    param = parameter(np.zeros(5))
    optimizer = dragon_optim.RMSprop([param])
    saved = optimizer.state_dict()
    saved["state"] = {0: {"step": 1, "square_avg": bits.copy()}}
    optimizer.load_state_dict(saved)
    assert values(optimizer.state[param]["square_avg"]).tobytes() == bits.tobytes()


# --- casts ----------------------------------------------------------------------------------------


@by_form
@pytest.mark.parametrize(
    ("kept", "wanted", "state"),
    [
        ("float32", "float64", "float64"),
        ("float64", "float32", "float32"),
        ("float32", "float16", "float32"),
        ("float64", "float16", "float32"),
        ("float16", "float32", "float32"),
    ],
)
def test_state_has_the_dtype_of_the_arithmetic(kept, wanted, state, form):
    """A square_avg of 1e-9 is no float16: PyTorch makes 0 of it."""
    numbers = np.array([1e-9, 1 / 3, 0.0]).astype(kept)
    param = parameter(np.ones(3), wanted)
    optimizer = dragon_optim.RMSprop([param])
    saved = optimizer.state_dict()
    tensor = FORMS[form](state_dicts.Array(numbers, kept))
    saved["state"] = {0: {"step": 16777217, "square_avg": tensor, "momentum_buffer": tensor}}
    optimizer.load_state_dict(saved)
    entry = optimizer.state[param]
    assert plain(entry["square_avg"]) == plain(entry["momentum_buffer"]) == plain(numbers.astype(state))
    assert entry["step"] == 16777217  # which no float32 holds


def test_master_weights_are_kept_to_the_bit():
    param = parameter([1.0, -2.0, 0.0], "float16")
    optimizer = dragon_optim.RMSprop([param], lr=0.0)
    master = np.array([1.0 + 2**-20, -2.0 - 2**-20, 1e-9], "float32")
    saved = optimizer.state_dict()
    saved["state"] = {0: {"step": 1, "square_avg": np.ones(3), "master_param": master}}
    optimizer.load_state_dict(saved)
    feed_gradient(param, np.ones(3, "float16"))
    optimizer.step()
    assert plain(optimizer.state[param]["master_param"]) == plain(master)


@pytest.mark.parametrize("given", ["nothing", "stale"])
def test_master_weights_of_another_parameter_start_at_the_parameter(given):
    """A state dict loaded without its model, or with an older one."""
    param = parameter([1.0, -2.0, 0.5], "float16")
    optimizer = dragon_optim.RMSprop([param], lr=0.0)
    feed_gradient(param, np.ones(3, "float16"))
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    if given == "nothing":
        del saved["state"][0]["master_param"]
    else:
        saved["state"][0]["master_param"] = np.full(3, 77.0)
    optimizer.load_state_dict(saved)
    optimizer.step()
    assert (
        values(param).tolist() == values(optimizer.state[param]["master_param"]).tolist() == [1.0, -2.0, 0.5]
    )


# --- it copies ------------------------------------------------------------------------------------


@by_form
def test_the_dict_given_is_not_touched(form):
    saved = RECORDED["2.13"].get("two-groups", FORMS[form])["state_dict"]
    saved["state"]["seen"] = {"epochs": [1]}
    saved["param_groups"][0]["mine"] = [1, 2]
    same = lambda value: value.tensor.array if isinstance(value, Foreign) else value  # noqa: E731
    tensors = [each for number in range(4) for each in saved["state"][number].values()]
    before = [plain(same(each)) for each in tensors]
    groups = plain(copy.deepcopy(saved["param_groups"]))
    params = trainings.parameters()
    optimizer = trainings.MAKE["two-groups"](params)
    optimizer.load_state_dict(saved)
    trainings.advance(optimizer, params)
    optimizer.state["seen"]["epochs"].append(2)
    optimizer.param_groups[0]["mine"].append(3)
    optimizer.param_groups[0]["lr"] = 77.0
    assert [each for number in range(4) for each in saved["state"][number].values()] == tensors
    assert [plain(same(each)) for each in tensors] == before
    assert plain(saved["param_groups"]) == groups
    assert saved["state"]["seen"] == {"epochs": [1]}


def test_two_optimizers_share_nothing():
    optimizer, params = trained("two-groups")
    optimizer.state["seen"] = [1]
    optimizer.param_groups[0]["lr"] = torch.tensor(0.25, dtype="float64")
    optimizer.state[params[0]]["ema"] = torch.ones(2)
    twins = [parameter(values(param)) for param in params]
    other = trainings.MAKE["two-groups"](twins)
    other.load_state_dict(optimizer.state_dict())
    before = plain(other.state_dict())
    assert before == plain(optimizer.state_dict())
    trainings.advance(optimizer, params, trainings.GOES_ON)
    optimizer.state["seen"].append(2)
    optimizer.state[params[0]]["ema"].zero_()
    optimizer.param_groups[0]["lr"].zero_()
    assert plain(other.state_dict()) == before
    changed = plain(optimizer.state_dict())
    trainings.advance(other, twins, trainings.GOES_ON)
    assert plain(optimizer.state_dict()) == changed


def test_ones_own_live_state_dict():
    optimizer, params = trained("two-groups")
    saved = optimizer.state_dict()
    before = plain(saved), snapshot(optimizer, *params)
    optimizer.load_state_dict(saved)
    assert (plain(saved), snapshot(optimizer, *params)) == before
    assert plain(optimizer.state_dict()) == plain(saved)
    trainings.advance(optimizer, params, trainings.GOES_ON)
    assert plain(saved) == before[0]  # its tensors are the user's since the load
    twin, weights = trained("two-groups")
    trainings.advance(twin, weights, trainings.GOES_ON)
    assert snapshot(optimizer, *params) == snapshot(twin, *weights)


def test_parameters_and_gradients_are_left_alone():
    optimizer, params = trained("two-groups")
    before = plain([params, [param.grad for param in params]])
    optimizer.load_state_dict(RECORDED["2.13"].get("two-groups")["state_dict"])
    assert plain([params, [param.grad for param in params]]) == before
    assert [group["params"][0] is params[2 * i] for i, group in enumerate(optimizer.param_groups)] == [
        True
    ] * 2
