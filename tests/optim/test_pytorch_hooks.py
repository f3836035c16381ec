# SPDX-License-Identifier: BSD-2-Clause
"""PyTorch's own tests of RMSprop: hooks; see test_pytorch_protocol.py."""

from __future__ import annotations

import dragon_optim
from tests.optim.pytorch_problem import made, over_inputs


def adding_to_state(optimizer):
    optimizer.state["test"] = 1


def taking_out_of_state(optimizer, state_dict):
    state_dict["ran_state_dict_pre_hook"] = state_dict["state"].pop("test", None) == 1
    return state_dict


def setting_lr(lr):
    def hook(optimizer, state_dict):
        state_dict["param_groups"][0]["lr"] = lr

    return hook


@over_inputs
def test_state_dict_pre_hook(options):
    _, optimizer = made(options)
    optimizer.register_state_dict_pre_hook(adding_to_state)
    assert optimizer.state_dict()["state"]["test"] == 1


@over_inputs
def test_state_dict_post_hook(options):
    _, optimizer = made(options)
    optimizer.register_state_dict_post_hook(taking_out_of_state)
    assert optimizer.state_dict()["ran_state_dict_pre_hook"] is False


@over_inputs
def test_state_dict_pre_post_hook(options):
    _, optimizer = made(options)
    optimizer.register_state_dict_pre_hook(adding_to_state)
    optimizer.register_state_dict_post_hook(taking_out_of_state)
    saved = optimizer.state_dict()
    assert "test" not in saved["state"]
    assert saved["ran_state_dict_pre_hook"] is True


@over_inputs
def test_load_state_dict_pre_hook_and_prepend(options):
    _, optimizer = made(options)
    saved = optimizer.state_dict()
    optimizer.register_load_state_dict_pre_hook(setting_lr(0.002))
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 0.002
    optimizer.register_load_state_dict_pre_hook(setting_lr(0.003), prepend=True)
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 0.002
    optimizer.register_load_state_dict_pre_hook(setting_lr(0.004))
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 0.004


@over_inputs
def test_load_state_dict_post_hook(options):
    _, optimizer = made(options)

    def hook(owner):
        owner.state["ran_load_state_dict_pre_hook2"] = True
        owner.state["lr"] = owner.param_groups[0]["lr"]

    optimizer.register_load_state_dict_post_hook(hook)
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.state["ran_load_state_dict_pre_hook2"] is True
    assert optimizer.state["lr"] == options.get("lr", 0.01)


@over_inputs
def test_load_state_dict_pre_post_hook(options):
    _, optimizer = made(options)
    seen = []
    optimizer.register_load_state_dict_pre_hook(setting_lr(0.002))
    optimizer.register_load_state_dict_post_hook(lambda owner: seen.append(owner.param_groups[0]["lr"]))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == [0.002]


def counted_steps(options, kind):
    """A hook counts the steps, from its registration to its removal."""
    _, optimizer = made(options)
    counts = [2]

    def hook(owner, args, kwargs):
        assert owner is optimizer
        counts[0] += 2

    handle = getattr(optimizer, f"register_step_{kind}_hook")(hook)
    optimizer.step()
    optimizer.step()
    assert counts == [6]
    handle.remove()
    optimizer.step()
    assert counts == [6]


@over_inputs
def test_step_post_hook(options):
    counted_steps(options, "post")


@over_inputs
def test_step_pre_hook(options):
    counted_steps(options, "pre")


@over_inputs
def test_step_all_hooks(options):
    (_, first), (_, second) = made(options), made(options)
    data = []

    def appending(number):
        return lambda *_: data.append(number)

    global_handles = [
        dragon_optim.register_optimizer_step_pre_hook(appending(0)),
        dragon_optim.register_optimizer_step_post_hook(appending(5)),
    ]
    try:
        handles = [first.register_step_pre_hook(appending(1)), first.register_step_post_hook(appending(2))]
        second.register_step_pre_hook(appending(3)), second.register_step_post_hook(appending(4))
        first.step()
        assert data == [0, 1, 2, 5]
        second.step()
        assert data == [0, 1, 2, 5, 0, 3, 4, 5]
        handles.pop(0).remove()
        first.step()
        assert data[8:] == [0, 2, 5]
    finally:
        for handle in global_handles:
            handle.remove()
    first.step()
    assert data[11:] == [2]
