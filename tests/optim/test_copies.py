# SPDX-License-Identifier: BSD-2-Clause
"""Optimizers copied and pickled: the copy holds everything, shares nothing, and goes on bit for bit.

PyTorch's own test of copies stands in `test_pytorch_protocol.py`; what must end in an error, in
`misuse_of_hooks.py`.
"""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from tests.optim.copied import OPTIONS, Training, bits, params_of, step
from tests.optim.states import trained
from tests.optim.support import backward, parameter, values


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("options", OPTIONS)
def test_a_copy_is_equal_and_goes_on_bit_for_bit(way, options, dtype):
    training = Training(dtype, **OPTIONS[options]).steps(0, 3)
    original = training.optimizer
    before = bits(original)
    made = way(original)
    assert type(made) is type(original)
    assert bits(made) == before
    assert made.defaults == original.defaults
    step(made, 3, 3)
    assert bits(original) == before  # the copy's steps are its own
    after = bits(made)
    assert after != before
    step(original, 3, 3)
    assert bits(original) == after == bits(Training(dtype, **OPTIONS[options]).steps(0, 6).optimizer)
    assert bits(made) == after


def test_master_weights_are_copied():
    """A float16 parameter that was rebuilt from itself would have lost what lies below its last bit."""
    original = Training("float16", lr=1e-4).steps(0, 3).optimizer
    made = copy.deepcopy(original)
    for ours, theirs in zip(params_of(original)[:3], params_of(made)[:3]):
        master = values(original.state[ours]["master_param"])
        assert values(made.state[theirs]["master_param"]).tobytes() == master.tobytes()
        assert (master != values(ours).astype("float32")).any()


def test_isinstance(way):
    original, _ = trained()
    assert isinstance(way(original), torch.optim.Optimizer)


def test_before_the_first_step(way):
    original = Training(momentum=0.9).optimizer
    made = way(original)
    assert len(made.state) == 0
    step(made, 0, 2)
    step(original, 0, 2)
    assert bits(made) == bits(original)


def test_entries_of_the_user(way):
    """Beside the states of a parameter, and under keys that are no parameters."""
    original, p = trained()
    original.state[p]["mine"] = {"list": [1, 2], "tensor": torch.ones(2)}
    original.state["global"] = {"count": 5}
    original.state[3] = "three"
    made = way(original)
    (q,) = params_of(made)
    assert made.state["global"] == {"count": 5}
    assert made.state[3] == "three"
    assert made.state[q]["mine"]["list"] == [1, 2]
    made.state[q]["mine"]["list"].append(3)
    made.state["global"]["count"] = 6
    made.state[q]["mine"]["tensor"]._impl.FromNumpy(np.zeros(2, "float32"), True)
    assert original.state[p]["mine"]["list"] == [1, 2]
    assert original.state["global"] == {"count": 5}
    assert values(original.state[p]["mine"]["tensor"]).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("entry", [3, None, "three", [1, 2]], ids=repr)
def test_any_value_for_a_parameter_of_no_group(way, entry):
    """`state` takes it, as PyTorch's does."""
    original, _ = trained()
    original.state[parameter([1.0])] = entry
    made = way(original)
    (stranger,) = [key for key in made.state if key is not params_of(made)[0]]
    assert made.state[stranger] == entry


def test_state_of_a_parameter_that_left_its_group(way):
    """It is there when the parameter comes back."""
    original, p, q = trained(2, alpha=0.75)
    original.param_groups[0]["params"] = [p]
    original.step()
    made = way(original)
    (stranger,) = [key for key in made.state if key is not params_of(made)[0]]
    made.add_param_group({"params": [stranger]})
    assert made.state[stranger]["step"] == 1
    assert values(made.state[stranger]["square_avg"]).tolist() == [0.25] * 3
    made.state[stranger]["square_avg"]._impl.FromNumpy(np.zeros(3, "float32"), True)
    assert values(original.state[q]["square_avg"]).tolist() == [0.25] * 3


def test_groups_may_hold_anything(way):
    p = parameter([1.0])
    lr, extra = torch.tensor(0.25), np.arange(3)
    original = dragon_optim.RMSprop([{"params": [p], "lr": lr, "extra": extra, "param": p}])
    original.param_groups[0]["initial_lr"] = 0.5
    made = way(original)
    (group,) = made.param_groups
    assert type(group["lr"]) is torch.Tensor
    assert float(group["lr"]) == 0.25
    assert group["lr"] is not lr
    assert group["extra"].tolist() == [0, 1, 2]
    assert group["param"] is group["params"][0]
    assert group["initial_lr"] == 0.5
    backward(group["params"][0], 1.0)
    made.step()


def test_names(way):
    model = torch.nn.Linear(2, 2)
    made = way(dragon_optim.RMSprop(model.named_parameters()))
    assert made.param_groups[0]["param_names"] == ["weight", "bias"]
    made.add_param_group({"params": [("more", parameter([1.0]))]})
    with pytest.raises(ValueError, match="with/without names"):
        made.add_param_group({"params": [parameter([1.0])]})


def test_an_empty_group_and_no_group(way):
    p = parameter([1.0])
    made = way(dragon_optim.RMSprop([{"params": []}, {"params": [p]}]))
    assert [len(group["params"]) for group in made.param_groups] == [0, 1]
    made.param_groups.clear()
    made = way(made)
    made.step()
    assert made.param_groups == []


def test_a_parameter_twice_in_a_group(way):
    """It is updated twice; and nobody is warned again of what they were told at the first."""
    p = parameter([1.0])
    with pytest.warns(UserWarning, match="duplicate parameters"):
        original = dragon_optim.RMSprop([p, p], lr=0.5, alpha=0.0, eps=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = way(original)
    first, second = params_of(made)
    assert first is second
    backward(first, 1.0)
    made.step()
    assert values(first).tolist() == [0.0]


def test_settings_that_were_warned_of(way):
    with pytest.warns(UserWarning, match="clip_norm wins"):
        original = dragon_optim.RMSprop([parameter([1.0])], clip_norm=1.0, clip_value=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        way(original)


def test_an_open_round_of_sums_stays_behind(way):
    """As gradients do: the copy's next step goes by its own."""
    original, p = trained(alpha=0.0, eps=1.0, lr=1.0)
    backward(p, 1.0)
    original.sum_grad()
    made = way(original)
    (q,) = params_of(made)
    before = values(q)
    made.step()
    assert values(q).tolist() == before.tolist()
    assert made.state[q]["step"] == 1
    backward(q, 1.0)
    made.step()
    assert (before - values(q)).tolist() == [0.5] * 3
    backward(p, 2.0)
    original.sum_grad()
    before = values(p)
    original.step()
    assert (before - values(p)).tolist() == [0.75] * 3  # 3 / (1 + 3): the round was still open


def test_model_and_optimizer_together(way):
    """The copied optimizer trains the copied model, whichever stands first."""
    for order in (1, -1):
        model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 1))
        original = dragon_optim.RMSprop(model.parameters(), momentum=0.9)
        twin, made = way((model, original)[::order])[::order]
        assert all(ours is theirs for ours, theirs in zip(twin.parameters(), params_of(made)))
        before = [values(param).tolist() for param in model.parameters()]
        twin(torch.ones(2, 3)).sum().backward()
        made.step()
        assert [values(param).tolist() for param in model.parameters()] == before
        assert [values(param).tolist() for param in twin.parameters()] != before


def test_an_optimizer_that_stands_twice(way):
    original, _ = trained()
    first, second = way([original, original])
    assert first is second
