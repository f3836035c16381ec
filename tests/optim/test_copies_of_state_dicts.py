# SPDX-License-Identifier: BSD-2-Clause
"""State dicts and `optimizer.state`, copied and pickled."""

from __future__ import annotations

import io
from collections import OrderedDict

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from tests.optim.copied import OPTIONS, WAYS, Training, bits, params_of, step
from tests.optim.states import trained
from tests.optim.support import parameter, values


def plain(saved):
    """A state dict with arrays for tensors."""
    entries = {
        number: {key: value if key == "step" else values(value).tolist() for key, value in entry.items()}
        for number, entry in saved["state"].items()
    }
    return entries, saved["param_groups"]


def through_dragon(saved):
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    return torch.load(file)


def test_copied_state_dicts_stand_still(way):
    """The tensors of a state dict are live; those of its copy are not."""
    original, _ = trained(momentum=0.9, centered=True)
    saved = original.state_dict()
    made, before = way(saved), plain(saved)
    assert plain(made) == before
    original.step()
    assert plain(saved) != before
    assert plain(made) == before


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("how", [*WAYS, "dragon"])
def test_a_resumed_training_ends_with_the_same_bits(how, dtype):
    copied = WAYS.get(how, through_dragon)
    first = Training(dtype, **OPTIONS["everything"]).steps(0, 3).optimizer
    first.param_groups[0]["initial_lr"] = 0.5
    saved = copied(first.state_dict())
    params = [parameter(values(param), dtype) for param in params_of(first)]
    resumed = dragon_optim.RMSprop([{"params": params[:2]}, {"params": params[2:]}])
    resumed.load_state_dict(saved)
    assert bits(resumed) == bits(first)
    step(resumed, 3, 3)
    step(first, 3, 3)
    assert bits(resumed) == bits(first)


def test_dragons_save_with_a_tensor_for_a_learning_rate():
    """Groups stand in a list, which Dragon hands to pickle: without our way to copy tensors it fails."""
    original, _ = trained()
    original.param_groups[0]["lr"] = torch.tensor(0.25)
    saved = through_dragon(original.state_dict())
    assert float(saved["param_groups"][0]["lr"]) == 0.25
    assert type(saved["state"][0]["square_avg"]) is np.ndarray
    other, _ = trained()
    other.load_state_dict(saved)
    assert other.param_groups[0]["lr"] == 0.25


def test_dragons_save_of_all_at_once():
    """A checkpoint as scripts write it; the optimizer itself, and the model too."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 2))
    original = dragon_optim.RMSprop(model.parameters(), momentum=0.9)
    model(torch.ones(2, 3)).sum().backward()
    original.step()
    checkpoint = OrderedDict(model=model.state_dict(), optimizer=original.state_dict(), epoch=3)
    saved = through_dragon(checkpoint)
    assert plain_arrays(saved["optimizer"]["state"]) == plain_arrays(original.state_dict()["state"])
    twin, made = through_dragon([model, original])
    assert params_of(made)[0] is next(iter(twin.parameters()))
    assert bits(made) == bits(original)


def plain_arrays(entries):
    return {
        number: {
            key: np.array(getattr(each, "numpy", lambda each=each: each)()).tolist()
            for key, each in entry.items()
        }
        for number, entry in entries.items()
    }


@pytest.mark.parametrize("how", ["deepcopy", "pickle-4"])
def test_the_state_itself_is_copied(how):
    """`optimizer.state` and its entries are dicts in PyTorch, which scripts copy to go back to.

    The oldest protocols, which could end the process, are tried in `misuse_of_hooks.py`.
    """
    way = WAYS[how]
    original, p = trained(momentum=0.9)
    entry = way(original.state[p])
    assert sorted(entry) == ["momentum_buffer", "square_avg", "step"]
    made = way(original.state)
    (key,) = made
    assert key is not p
    before = values(original.state[p]["square_avg"]).tolist()
    original.step()
    for each in (entry, made[key]):
        assert each["step"] == 1
        assert values(each["square_avg"]).tolist() == before
    original.state[p] = entry
    assert original.state[p]["step"] == 1
    assert values(original.state[p]["square_avg"]).tolist() == before
