# SPDX-License-Identifier: BSD-2-Clause
"""Optimizers copied and pickled: the copy holds everything, shares nothing, and goes on bit for bit.

PyTorch's own test of copies stands in `test_pytorch_protocol.py`; what must end in an error, in
`misuse_of_hooks.py`.
"""

from __future__ import annotations

import copy
import gc
import io
import multiprocessing
import pickle
import warnings
from collections import OrderedDict

import numpy as np
import pytest
from dragon.core.framework import workspace
from dragon.vm import torch
from dragon.vm.torch.core.optim.optimizer import required

import dragon_optim
from tests.optim import memory
from tests.optim.elsewhere import in_thread, run_script
from tests.optim.states import trained
from tests.optim.support import backward, feed_gradient, parameter, snapshot, values

WAYS: dict = {"deepcopy": copy.deepcopy}
for _protocol in range(pickle.HIGHEST_PROTOCOL + 1):
    WAYS[f"pickle-{_protocol}"] = lambda value, p=_protocol: pickle.loads(pickle.dumps(value, p))


@pytest.fixture(params=WAYS)
def way(request):
    """How a copy is made."""
    return WAYS[request.param]


OPTIONS = {
    "plain": {},
    "everything": dict(
        lr=0.02,
        alpha=0.9,
        eps=1e-3,
        weight_decay=0.1,
        momentum=0.9,
        centered=True,
        foreach=False,
        maximize=True,
        grad_scale=0.5,
        clip_value=2.0,
        lr_in_momentum=True,
        eps_inside_sqrt=True,
        decoupled_weight_decay=True,
        initial_square_avg=1.0,
    ),
    "clip-norm": dict(clip_norm=0.5, momentum=0.5),
}


class Training:
    """Two groups, of which one parameter never has a gradient; an extra key in the second."""

    def __init__(self, dtype="float32", cls=dragon_optim.RMSprop, **options):
        shapes = [(), (3,), (2, 3), (4,)]
        random = np.random.RandomState(5)
        params = [parameter(random.standard_normal(shape), dtype) for shape in shapes]
        groups = [
            {"params": params[:2]},
            {"params": params[2:], "lr": 0.003, "lr_scale": 0.1, "name": "head"},
        ]
        self.optimizer = cls(groups, **options)

    def steps(self, first, count):
        step(self.optimizer, first, count)
        return self


def params_of(optimizer):
    return [param for group in optimizer.param_groups for param in group["params"]]


def step(optimizer, first, count):
    """Steps from gradients that depend on the number of the step alone."""
    for number in range(first, first + count):
        random = np.random.RandomState(number)
        for param in params_of(optimizer)[:3]:
            feed_gradient(param, random.standard_normal(tuple(param.shape)).astype(param.dtype))
        optimizer.step()


def bits(optimizer):
    """All that an optimizer holds, without gradients, which a copy has none of."""
    found = snapshot(optimizer, *params_of(optimizer))
    groups = [
        {key: value for key, value in each.items() if key != "params"} for each in optimizer.param_groups
    ]
    return {key: value for key, value in found.items() if not key.startswith("grad ")}, groups


# --- what a copy holds ----------------------------------------------------------------------------


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


# --- what a copy can do ---------------------------------------------------------------------------


def test_groups_can_be_added(way):
    original, _ = trained(momentum=0.9)
    made = way(original)
    q = parameter([1.0])
    made.add_param_group({"params": [q], "lr": 0.5})
    assert (made.param_groups[1]["momentum"], made.param_groups[1]["lr"]) == (0.9, 0.5)
    assert len(original.param_groups) == 1
    backward(q, 1.0)
    made.step()
    assert made.state[q]["step"] == 1
    with pytest.raises(ValueError, match="more than one parameter group"):
        made.add_param_group({"params": params_of(made)[:1]})


def test_options_that_every_group_must_set(way):
    """Dragon's marker is known by identity: a copy of the marker marks nothing."""
    original = dragon_optim.Optimizer([{"params": [parameter([1.0])], "lr": 0.5}], {"lr": required})
    made = way(original)
    with pytest.raises(ValueError, match="didn't specify a value of required optimization parameter lr"):
        made.add_param_group({"params": [parameter([1.0])]})


def test_state_dicts_go_both_ways(way):
    original, _ = trained(momentum=0.9)
    made = way(original)
    step(made, 0, 2)
    original.load_state_dict(made.state_dict())
    made.load_state_dict(original.state_dict())
    assert [each.state[params_of(each)[0]]["step"] for each in (original, made)] == [3, 3]


def test_hooks_stay_behind(way):
    """As in PyTorch; and the copy takes its own."""
    original, _ = trained()
    log = []
    for register in (original.register_step_pre_hook, original.register_step_post_hook):
        register(lambda *_: log.append("original"))
    made = way(original)
    made.step(), made.state_dict(), made.load_state_dict(made.state_dict())
    assert log == []
    for kind in ("step", "state_dict", "load_state_dict"):
        for when in ("pre", "post"):
            name = f"register_{kind}_{when}_hook"
            getattr(made, name)(lambda *_, name=name: log.append(name))
    made.step(), made.load_state_dict(made.state_dict())
    assert len(log) == len(set(log)) == 6
    original.step()
    assert log[6:] == ["original"] * 2


def test_a_handle_among_the_attributes(way):
    """A subclass that keeps one can be copied; the copy's handle takes nothing out of the original."""
    original, _ = trained()
    log = []
    original.handle = original.register_step_pre_hook(lambda *_: log.append("ran"))
    made = way(original)
    made.handle.remove()
    original.step()
    assert log == ["ran"]
    original.handle.remove()
    original.step()
    assert log == ["ran"]


def test_a_step_of_the_instance_stays_behind(way):
    """A scheduler put it there, and it steps the original."""
    original, p = trained()
    inner = original.step
    original.step = lambda *args: inner(*args)
    made = way(original)
    (q,) = params_of(made)
    backward(q, 1.0)
    made.step()
    assert (original.state[p]["step"], made.state[q]["step"]) == (1, 2)


def test_set_state_keeps_the_hooks_that_are_there():
    """As PyTorch's, which older subclasses call to load."""
    optimizer, p = trained()
    log = []
    optimizer.register_step_pre_hook(lambda *_: log.append("ran"))
    optimizer.__setstate__(optimizer.__getstate__())
    optimizer.step()
    assert log == ["ran"]
    assert optimizer.state[p]["step"] == 2


# --- subclasses -----------------------------------------------------------------------------------


class Mine(dragon_optim.RMSprop):
    """As timm's Lookahead and others: state of its own beside that of the base."""

    def __init__(self, params, **options):
        super().__init__(params, **options)
        self.steps_taken = 0
        self.slow = {param: param * 1.0 for param in params_of(self)}
        self.first = params_of(self)[0]
        self.me = self
        self._hidden = [self.defaults, self.param_groups]

    def step(self, closure=None):
        self.steps_taken += 1
        return super().step(closure)


class Remembers(dragon_optim.RMSprop):
    """PyTorch's way to bring an older pickle up to date."""

    def __setstate__(self, state):
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("new_key", 1)


def test_attributes_of_a_subclass(way):
    p = parameter([1.0, 2.0])
    original = Mine([p], momentum=0.9)
    backward(p, 1.0)
    original.step()
    made = way(original)
    (q,) = params_of(made)
    assert made.steps_taken == 1
    assert made.first is q
    assert made.me is made
    assert next(iter(made.slow)) is q
    assert values(made.slow[q]).tolist() == [1.0, 2.0]
    assert made._hidden[0] is made.defaults
    assert made._hidden[1] is made.param_groups
    made.step()
    assert (made.steps_taken, original.steps_taken) == (2, 1)


def test_a_subclass_that_updates_what_it_is_given(way):
    original = Remembers([parameter([1.0])])
    made = way(original)
    assert made.param_groups[0]["new_key"] == 1
    assert "new_key" not in original.param_groups[0]
    made.step()


def test_a_subclass_without_an_operator(way):
    made = way(dragon_optim.Optimizer([parameter([1.0])], {"mine": 5}, clip_norm=2))
    assert (made.defaults["mine"], made.defaults["clip_norm"]) == (5, 2)
    with pytest.raises(NotImplementedError, match="names no operator"):
        made.step()


# --- elsewhere ------------------------------------------------------------------------------------


def test_under_another_workspace(way):
    """The copy belongs to the workspace in which it was made."""
    original = Training(momentum=0.9).steps(0, 2).optimizer
    expected = bits(Training(momentum=0.9).steps(0, 4).optimizer)
    with workspace.Workspace().as_default():
        made = way(original)
        step(made, 2, 2)
        assert bits(made) == expected
    with pytest.raises(RuntimeError, match="another Dragon workspace"):
        made.step()
    step(original, 2, 2)
    assert bits(original) == expected


def test_in_another_thread(way):
    original = Training(momentum=0.9).steps(0, 2).optimizer

    def work():
        made = way(original)
        step(made, 2, 2)
        return bits(made)

    assert in_thread(work) == bits(Training(momentum=0.9).steps(0, 4).optimizer)


GO_ON = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    optimizer = pickle.load(file)
from tests.optim.test_copies import bits, step
step(optimizer, 3, 3)
with open(sys.argv[2], "wb") as file:
    pickle.dump(bits(optimizer), file)
"""


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_in_a_new_process(tmp_path, dtype):
    path, result = tmp_path / "optimizer", tmp_path / "bits"
    path.write_bytes(pickle.dumps(Training(dtype, **OPTIONS["everything"]).steps(0, 3).optimizer))
    done = run_script(GO_ON, str(path), str(result))
    assert done.returncode == 0, done.stderr
    expected = bits(Training(dtype, **OPTIONS["everything"]).steps(0, 6).optimizer)
    assert pickle.loads(result.read_bytes()) == expected


def echo(questions, answers):
    """What a worker process does: take an optimizer, step, send it back."""
    optimizer = questions.get()
    step(optimizer, 2, 2)
    answers.put((bits(optimizer), optimizer))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_through_a_queue(method, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(memory.__file__).rsplit("/tests/", 1)[0])  # for the spawned one
    context = multiprocessing.get_context(method)
    questions, answers = context.Queue(), context.Queue()
    original = Training(momentum=0.9).steps(0, 2).optimizer
    before = bits(original)
    process = context.Process(target=echo, args=(questions, answers), daemon=True)
    process.start()
    questions.put(original)
    there, made = answers.get(timeout=60)
    process.join(60)
    assert process.exitcode == 0
    assert bits(original) == before
    assert there == bits(made) == bits(Training(momentum=0.9).steps(0, 4).optimizer)
    step(made, 4, 1)


# --- shallow copies -------------------------------------------------------------------------------


def test_a_shallow_copy_shares_groups_and_state():
    """As PyTorch's. Steps through either are steps of one optimizer."""
    original, p = trained(momentum=0.9)
    twin = copy.copy(original)
    assert type(twin) is type(original)
    assert twin.param_groups is original.param_groups
    twin.step()
    original.step()
    assert original.state[p]["step"] == twin.state[p]["step"] == 3
    reference, q = trained(momentum=0.9)
    reference.step(), reference.step()
    assert values(p).tobytes() == values(q).tobytes()


def test_hooks_of_a_shallow_copy_are_its_own():
    original, _ = trained()
    log = []
    original.register_step_pre_hook(lambda *_: log.append("original"))
    twin = copy.copy(original)
    twin.register_step_pre_hook(lambda *_: log.append("twin"))
    twin.step()
    assert log == ["twin"]
    original.step()
    assert log == ["twin", "original"]


def test_a_shallow_copy_has_no_step_of_the_instance():
    """PyTorch's has none: a scheduler's would run the hooks of the original."""
    original, p = trained()
    log, inner = [], original.step

    def counted():
        log.append("counted")
        return inner()

    original.step = counted
    twin = copy.copy(original)
    twin.step()
    assert log == []
    assert original.state[p]["step"] == 2


# --- state dicts ----------------------------------------------------------------------------------


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


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("what", ["deepcopy", "pickle-4", "copy", "state-dict"])
def test_copies_leave_nothing_behind(ws, what):
    """200 copies: no names, no graphs, no memory, and none of it left to Python's collector."""
    p = parameter(np.ones(10000))
    original = dragon_optim.RMSprop([p], momentum=0.9)
    feed_gradient(p, np.ones(10000, "float32"))
    original.step()
    copied = {**WAYS, "copy": copy.copy, "state-dict": lambda each: copy.deepcopy(each.state_dict())}[what]
    gc.collect()
    grown = memory.growth(ws, lambda _: copied(original), 20, 200)
    assert grown.before == grown.after
    assert grown.resident < 4 * memory.MEGABYTE
