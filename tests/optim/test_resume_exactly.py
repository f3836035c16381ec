# SPDX-License-Identifier: BSD-2-Clause
"""A training that is stopped, saved and resumed in another process ends with the bits of one that was not."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim import checkpoint
from tests import inputs
from tests.optim.elsewhere import run_script
from tests.optim.support import feed_gradient, parameter, values
from tests.optim.trainings import plain

SHAPES = ((33, 4), (17,), (), (5,), (2, 0))
HALF = 6
LATE = 3  # the parameter whose first gradient comes after the resume


def _one_group(params, **options):
    return dragon_optim.RMSprop(params, **dict(dict(lr=0.01, alpha=0.9), **options))


def _two_groups(params, **options):
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.003, "alpha": 0.75, "momentum": 0.5}]
    return _one_group(groups, **options)


class Scheduler:
    """Like those of PyTorch: what it needs stands in the groups, and its own count it is told."""

    def __init__(self, optimizer, done):
        self.optimizer, self.done = optimizer, done
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def step(self):
        self.done += 1
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * 0.75**self.done


def _halve(optimizer, args, kwargs):
    for group in optimizer.param_groups:
        group["lr"] *= 0.5


def _decay_weights(optimizer, args, kwargs):
    """Between two steps: master weights must follow."""
    for group in optimizer.param_groups:
        for param in group["params"]:
            if param.dtype == "float16" and values(param).size:
                param._impl.FromNumpy(np.array(values(param) * np.float16(0.5)), True)


TRAININGS = {
    "float32": ("float32", _one_group, {}),
    "float64": ("float64", _one_group, {}),
    "float16": ("float16", _one_group, {}),
    "centered+momentum-float32": ("float32", _one_group, dict(centered=True, momentum=0.9)),
    "centered+momentum-float64": ("float64", _one_group, dict(centered=True, momentum=0.9)),
    "centered+momentum-float16": ("float16", _one_group, dict(centered=True, momentum=0.9)),
    "two-groups-float32": ("float32", _two_groups, dict(weight_decay=0.1, maximize=True)),
    "two-groups-float16": ("float16", _two_groups, dict(weight_decay=0.1, centered=True)),
    "scheduler": ("float32", _two_groups, dict(momentum=0.9)),
    "hooks": ("float32", _two_groups, dict(momentum=0.9)),
    "hooks-float16": ("float16", _two_groups, dict(momentum=0.9)),
    "everything-else": (
        "float64",
        _two_groups,
        dict(
            grad_scale=0.5,
            clip_norm=0.25,
            lr_in_momentum=True,
            eps_inside_sqrt=True,
            decoupled_weight_decay=True,
            weight_decay=0.01,
            initial_square_avg=1.0,
            foreach=False,
            centered=True,
        ),
    ),
}


def train(name, optimizer, params, steps):
    """Every process that goes on with a training registers its hooks anew, and makes its scheduler anew."""
    scheduler = Scheduler(optimizer, steps[0]) if name == "scheduler" else None
    handles = []
    if name.startswith("hooks"):
        handles = [
            optimizer.register_step_pre_hook(_halve),
            optimizer.register_step_post_hook(_decay_weights),
        ]
    for step in steps:
        for place, param in enumerate(params):
            if place == LATE and step < HALF:
                continue
            grad = inputs.gradient("gentle", step, place, SHAPES[place], np.dtype("float32"))
            feed_gradient(param, grad.astype(param.dtype))
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    for handle in handles:
        handle.remove()


def start(name):
    dtype, make, options = TRAININGS[name]
    params = [parameter(inputs.uniform(place, shape), dtype) for place, shape in enumerate(SHAPES)]
    return make(params, **options), params


# --- ways to save ---------------------------------------------------------------------------------


def _contents(optimizer, params):
    model = {f"layer{number}": param for number, param in enumerate(params)}
    return {"model": model, "optimizer": optimizer.state_dict(), "epoch": HALF}


def _as_array(tensor):
    return values(tensor) if isinstance(tensor, torch.Tensor) else tensor


def _from_contents(name, contents):
    """A script that resumes: other settings than the saved ones, and the old ones from the file."""
    dtype, make, _ = TRAININGS[name]
    params = [parameter(_as_array(contents["model"][f"layer{n}"]), dtype) for n in range(len(SHAPES))]
    optimizer = make(params, lr=0.5, alpha=0.5)
    optimizer.load_state_dict(contents["optimizer"])
    assert contents["epoch"] == HALF
    return optimizer, params


def _save_pickle(obj, path):
    with open(path, "wb") as file:
        pickle.dump(obj, file)


def _load_pickle(path):
    with open(path, "rb") as file:
        return pickle.load(file)


WAYS = {
    "checkpoint": (
        lambda optimizer, params, path: checkpoint.save(_contents(optimizer, params), path),
        lambda name, path: _from_contents(name, checkpoint.load(path)),
    ),
    "dragons-file": (
        lambda optimizer, params, path: torch.save(_contents(optimizer, params), path),
        lambda name, path: _from_contents(name, torch.load(path)),
    ),
    "pickled-state-dict": (
        lambda optimizer, params, path: _save_pickle(_contents(optimizer, params), path),
        lambda name, path: _from_contents(name, _load_pickle(path)),
    ),
    "pickled-optimizer": (
        lambda optimizer, params, path: _save_pickle((optimizer, params), path),
        lambda name, path: _load_pickle(path),
    ),
}


# --- the other process ----------------------------------------------------------------------------


def resume(way, *jobs):
    """Of each `name=path`: load it, go on, and leave what it comes to in `path.end`."""
    for job in jobs:
        name, path = job.split("=", 1)
        optimizer, params = WAYS[way][1](name, path)
        train(name, optimizer, params, range(HALF, 2 * HALF))
        _save_pickle(outcome(optimizer, params), path + ".end")


def outcome(optimizer, params):
    return plain([params, optimizer.state_dict()])


@pytest.fixture(scope="module", params=sorted(WAYS))
def resumed(request, tmp_path_factory):
    """What all trainings come to that were saved in one of the ways; one process resumes them all."""
    folder = tmp_path_factory.mktemp(request.param)
    jobs = []
    for name in TRAININGS:
        optimizer, params = start(name)
        train(name, optimizer, params, range(HALF))
        path = str(folder / name)
        WAYS[request.param][0](optimizer, params, path)
        jobs.append(f"{name}={path}")
    code = "import sys; from tests.optim.test_resume_exactly import resume; resume(*sys.argv[1:])"
    done = run_script(code, request.param, *jobs)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: _load_pickle(str(folder / name) + ".end") for name in TRAININGS}


@pytest.mark.parametrize("name", TRAININGS)
def test_resumed_is_as_never_stopped(name, resumed):
    optimizer, params = start(name)
    train(name, optimizer, params, range(2 * HALF))
    ours = outcome(optimizer, params)
    assert resumed[name][0] == ours[0], "parameters"
    assert resumed[name][1]["state"] == ours[1]["state"]
    assert resumed[name][1]["param_groups"] == ours[1]["param_groups"]
    assert {entry["step"] for number, entry in ours[1]["state"].items() if number != LATE} == {2 * HALF}
    assert ours[1]["state"][LATE]["step"] == HALF


# --- what it takes: without any of it, a resumed training ends elsewhere --------------------------

FORGOTTEN = {
    "square_avg": ("float32", lambda saved: saved["state"][0].update(square_avg=np.zeros(SHAPES[0]))),
    "momentum_buffer": ("centered+momentum-float32", lambda saved: saved["state"][0].pop("momentum_buffer")),
    "grad_avg": ("centered+momentum-float32", lambda saved: saved["state"][0].pop("grad_avg")),
    "master_param": ("float16", lambda saved: saved["state"][0].pop("master_param")),
    "lr": ("two-groups-float32", lambda saved: saved["param_groups"][1].update(lr=0.01)),
    "initial_lr": ("scheduler", lambda saved: saved["param_groups"][1].pop("initial_lr")),
    "float32-state": (
        "float16",
        lambda saved: saved["state"][0].update(
            square_avg=values(saved["state"][0]["square_avg"]).astype("float16")
        ),
    ),
    "nothing": ("hooks", lambda saved: None),
}


@pytest.mark.parametrize("what", FORGOTTEN)
def test_what_is_forgotten_shows(what):
    name, forget = FORGOTTEN[what]
    optimizer, params = start(name)
    train(name, optimizer, params, range(HALF))
    contents = _contents(optimizer, params)
    forget(contents["optimizer"])
    other, weights = _from_contents(name, contents)
    train(name, optimizer, params, range(HALF, 2 * HALF))
    train(name, other, weights, range(HALF, 2 * HALF))
    assert (outcome(other, weights) == outcome(optimizer, params)) == (what == "nothing")


@pytest.mark.parametrize("name", ["hooks", "hooks-float16"])
def test_hooks_are_no_part_of_what_is_saved(name, tmp_path):
    optimizer, params = start(name)
    optimizer.register_step_pre_hook(_halve)
    for way in WAYS:
        path = str(tmp_path / way)
        WAYS[way][0](optimizer, params, path)
        other, _ = WAYS[way][1](name, path)
        lr = other.param_groups[0]["lr"]
        other.step()
        assert other.param_groups[0]["lr"] == lr
