# SPDX-License-Identifier: BSD-2-Clause
"""PyTorch's own tests of RMSprop, one by one: which of ours is the counterpart, or why there is none.

Those that exist nowhere else in tests/ stand here under PyTorch's names, with PyTorch's option sets
(`optim_inputs_func_rmsprop`) and what PyTorch asserts. A comparison of state dicts is one of every bit.
"""

from __future__ import annotations

import ast
import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim import checkpoint, lr_scheduler
from tests.optim.support import backward, parameter, values

TESTS = Path(__file__).resolve().parents[1]

HERE = "optim/test_pytorch_protocol.py::"
CUDA = "CUDA only"
COMPLEX = "Dragon has no complex tensors"
NO_DEFAULT_DTYPE = "Dragon has no default dtype that one could set"
SPARSE = "Dragon has no sparse gradients"
REASONS = (CUDA, COMPLEX, NO_DEFAULT_DTYPE, SPARSE)

# PyTorch's test -> ours, by path and name; or the reason why there is none.

OF_2_1 = {
    "test_rmsprop": HERE + "test_rmsprop",
    "_test_basic_cases_template": HERE + "test_rmsprop",
    "_test_state_dict": HERE + "test_state_dict_deterministic",
    "_test_complex_2d": COMPLEX,
    "_test_complex_optimizer": COMPLEX,
    "test_multi_tensor_optimizers": "optim/test_golden.py::test_threads_and_foreach",
    "test_multi_tensor_optimizers_varying_tensors": "optim/test_golden.py::test_threads_and_foreach",
    "test_multi_tensor_optimizers_large_tensors": CUDA,
    "optim_base_constructors_rmsprop": HERE + "test_optimizer_can_be_printed",
    "test_invalid_param_type": HERE + "test_errors",
    "test_duplicate_params_in_one_param_group": HERE + "test_errors",
    "test_duplicate_params_across_param_groups": HERE + "test_errors",
    "test_step_is_noop_when_params_have_no_grad": HERE + "test_step_is_noop_when_params_have_no_grad",
    "test_step_is_noop_for_empty_grads": HERE + "test_step_is_noop_for_zero_grads",
    "test_post_hook": HERE + "test_step_post_hook",
    "test_pre_hook": HERE + "test_step_pre_hook",
    "test_pre_and_post_hook": HERE + "test_step_all_hooks",
    "test_state_dict_pre_hook": HERE + "test_state_dict_pre_hook",
    "test_state_dict_post_hook": HERE + "test_state_dict_post_hook",
    "test_state_dict_pre_post_hook": HERE + "test_state_dict_pre_post_hook",
    "test_load_state_dict_pre_hook_and_prepend": HERE + "test_load_state_dict_pre_hook_and_prepend",
    "test_load_state_dict_post_hook": HERE + "test_load_state_dict_post_hook",
    "test_load_state_dict_pre_post_hook": HERE + "test_load_state_dict_pre_post_hook",
    "TestDifferentiableOptimizer.test_rmsprop": (
        "optim/test_differentiable_gradients.py::test_every_input_in_every_form"
    ),
}

LATEST = {
    "test_errors": HERE + "test_errors",
    "test_forloop_goes_right_direction": HERE + "test_forloop_goes_right_direction",
    "test_forloop_goes_right_direction_multigpu": CUDA,
    "test_param_group_with_lrscheduler_goes_right_direction": (
        HERE + "test_param_group_with_lrscheduler_goes_right_direction"
    ),
    "test_tensor_lr": HERE + "test_tensor_lr",
    "test_tensor_lr_num_dim_1": HERE + "test_tensor_lr",
    "test_foreach_matches_forloop": HERE + "test_foreach_matches_forloop",
    "test_set_default_dtype_works_with_foreach": NO_DEFAULT_DTYPE,
    "test_mixed_device_dtype": CUDA,
    "test_foreach_large_tensor": CUDA,
    "test_peak_memory_foreach": CUDA,
    "test_cpu_load_state_dict": CUDA,
    "test_state_dict_with_cuda_params": CUDA,
    "test_defaults_changed_to_foreach": CUDA,
    "test_complex": COMPLEX,
    "test_complex_2d": COMPLEX,
    "test_rosenbrock_sparse": SPARSE,
    "test_param_groups_weight_decay": HERE + "test_param_groups_weight_decay",
    "test_param_groups_lr": HERE + "test_param_groups_lr",
    "test_step_is_noop_when_params_have_no_grad": HERE + "test_step_is_noop_when_params_have_no_grad",
    "test_step_is_noop_for_zero_grads": HERE + "test_step_is_noop_for_zero_grads",
    "test_optimizer_can_be_printed": HERE + "test_optimizer_can_be_printed",
    "test_state_dict_deterministic": HERE + "test_state_dict_deterministic",
    "test_can_load_older_state_dict": HERE + "test_can_load_older_state_dict",
    "test_can_load_from_to_named_state_dict": HERE + "test_can_load_from_to_named_state_dict",
    "test_save_load_equality_with_weights_only": HERE + "test_save_load_equality_with_weights_only",
    "test_load_nontensor_step": HERE + "test_load_nontensor_step",
    "test_state_dict_pre_hook": HERE + "test_state_dict_pre_hook",
    "test_state_dict_post_hook": HERE + "test_state_dict_post_hook",
    "test_state_dict_pre_post_hook": HERE + "test_state_dict_pre_post_hook",
    "test_load_state_dict_pre_hook_and_prepend": HERE + "test_load_state_dict_pre_hook_and_prepend",
    "test_load_state_dict_post_hook": HERE + "test_load_state_dict_post_hook",
    "test_load_state_dict_pre_post_hook": HERE + "test_load_state_dict_pre_post_hook",
    "test_step_post_hook": HERE + "test_step_post_hook",
    "test_step_pre_hook": HERE + "test_step_pre_hook",
    "test_step_all_hooks": HERE + "test_step_all_hooks",
    "test_deepcopy_copies_all_public_attrs": HERE + "test_deepcopy_copies_all_public_attrs",
    "test_non_empty_state": HERE + "test_non_empty_state",
    "TestDifferentiableOptimizer.test_rmsprop": (
        "optim/test_differentiable_gradients.py::test_every_input_in_every_form"
    ),
    "TestDifferentiableOptimizer.test_rmsprop_differentiable_lr": (
        "optim/test_differentiable_gradients.py::test_every_input_in_every_form"
    ),
}


def functions(path) -> set:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


VERSIONS = {"2.1": OF_2_1, "latest": LATEST}


@pytest.mark.parametrize(
    ("version", "name"), [(version, name) for version, table in VERSIONS.items() for name in table]
)
def test_the_counterpart_exists(version, name):
    ours = VERSIONS[version][name]
    if ours in REASONS:
        return
    path, _, function = ours.partition("::")
    assert function.startswith("test_")
    assert function in functions(TESTS / path)


def test_what_stands_here_is_in_the_table():
    named = {each[len(HERE) :] for each in [*OF_2_1.values(), *LATEST.values()] if each.startswith(HERE)}
    tests = {name for name in functions(Path(__file__)) if name.startswith("test_")}
    assert tests - named == {"test_the_counterpart_exists", "test_what_stands_here_is_in_the_table"}


# --- what PyTorch's tests run over ----------------------------------------------------------------

# optim_inputs_func_rmsprop, without the three for CUDA.
INPUTS = {
    "default": {},
    "non-default-lr": dict(lr=1e-3),
    "nonzero-weight_decay": dict(weight_decay=0.1),
    "maximize": dict(maximize=True),
    "centered": dict(weight_decay=0.1, centered=True),
    "maximize-weight_decay": dict(maximize=True, weight_decay=0.1),
    "momentum": dict(weight_decay=0.1, centered=True, momentum=0.1),
    "maximize-centered-weight_decay-momentum": dict(
        weight_decay=0.1, centered=True, momentum=0.1, maximize=True
    ),
}
# optim_base_constructors_rmsprop of 2.1: "decay" is `weight_decay`.
CONSTRUCTORS = [
    dict(),
    dict(weight_decay=0.9),
    dict(weight_decay=0.9, centered=True),
    dict(weight_decay=0.9, centered=True, momentum=0.1),
    dict(weight_decay=0.9, centered=True, momentum=0.1, maximize=True),
]

over_inputs = pytest.mark.parametrize("options", INPUTS.values(), ids=INPUTS)
over_foreach = pytest.mark.parametrize("foreach", [False, True], ids=["forloop", "foreach"])


class Problem:
    """The loss of PyTorch's tests, sum((W x + b)^2), over a weight and a bias."""

    def __init__(self, dtype="float32", seed=1):
        random = np.random.RandomState(seed)
        self.weight = parameter(random.standard_normal((10, 5)), dtype)
        self.bias = parameter(random.standard_normal(10), dtype)
        self.params = [self.weight, self.bias]
        self.input = torch.tensor(random.standard_normal((1, 5)).astype(dtype), dtype=dtype)

    def named(self):
        return [("weight", self.weight), ("bias", self.bias)]

    def closure(self):
        out = (self.weight * self.input).sum(1) + self.bias
        loss = (out * out).sum()
        loss.backward()
        return float(loss.numpy())

    def steps(self, optimizer, count):
        for _ in range(count):
            optimizer.step(self.closure)

    def bits(self):
        return [values(param).tobytes() for param in self.params]


def bits(saved):
    """A state dict, with the bits of its tensors."""
    state = {
        key: {name: each if name == "step" else values(each).tobytes() for name, each in entry.items()}
        for key, entry in saved["state"].items()
    }
    return state, saved["param_groups"]


def made(options, problem=None, **more):
    problem = problem or Problem()
    return problem, dragon_optim.RMSprop(problem.params, **options, **more)


# --- steps ----------------------------------------------------------------------------------------


@over_foreach
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        dict(lr=1e-2),
        dict(centered=True),
        dict(centered=True, momentum=0.1),
        dict(momentum=0.1),
        dict(momentum=0.1, weight_decay=1),
        dict(groups=True),
    ],
    ids=lambda options: "-".join(options),
)
def test_rmsprop(options, maximize, foreach):
    """200 steps with a closure lower the loss, or raise it; and the error of 2.1's test."""
    problem, options = Problem(), dict(options)
    params = problem.params
    if options.pop("groups", False):
        params = [{"params": [problem.weight]}, {"params": problem.bias, "lr": 1e-3}]
    optimizer = dragon_optim.RMSprop(params, maximize=maximize, foreach=foreach, **options)
    repr(optimizer)
    before = problem.closure()
    problem.steps(optimizer, 200)
    after = problem.closure()
    assert (after > before) if maximize else (after < before)
    with pytest.raises(ValueError, match="^Invalid momentum value: -1.0"):
        dragon_optim.RMSprop(None, lr=1e-2, momentum=-1.0, foreach=foreach)


@over_inputs
@over_foreach
def test_forloop_goes_right_direction(options, foreach):
    problem, optimizer = made(options, foreach=foreach)
    before = problem.closure()
    problem.steps(optimizer, 20)
    after = problem.closure()
    assert (after > before) if options.get("maximize") else (after < before)


@over_foreach
@pytest.mark.parametrize(
    "makers", [(), ("step",), ("step", "plateau"), ("warm-up", "exponential")], ids="-".join
)
def test_param_group_with_lrscheduler_goes_right_direction(makers, foreach):
    """Two groups, one with a learning rate of its own, and several schedulers on one optimizer."""
    problem = Problem()
    optimizer = dragon_optim.RMSprop(
        [{"params": [problem.weight]}, {"params": [problem.bias], "lr": 0.01}], lr=1e-3, foreach=foreach
    )
    make = {
        "step": lambda: lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.9),
        "plateau": lambda: lr_scheduler.ReduceLROnPlateau(optimizer),
        "warm-up": lambda: lr_scheduler.LinearLR(optimizer, start_factor=0.4, total_iters=4),
        "exponential": lambda: lr_scheduler.ExponentialLR(optimizer, gamma=0.9),
    }
    schedulers = [make[name]() for name in makers]
    before = problem.closure()
    for _ in range(20):
        loss = problem.closure()
        optimizer.step()
        for each in schedulers:
            each.step(loss) if isinstance(each, lr_scheduler.ReduceLROnPlateau) else each.step()
    assert problem.closure() < before
    ratio = optimizer.param_groups[1]["lr"] / optimizer.param_groups[0]["lr"]
    assert ratio == pytest.approx(10)
    assert (optimizer.param_groups[0]["lr"] == 1e-3) == (not makers)


@over_inputs
def test_foreach_matches_forloop(options):
    """Also with a step at which some parameters have no gradient, in float64: every bit."""
    ends = []
    for foreach in (False, True):
        problem, optimizer = made(options, Problem("float64"), foreach=foreach)
        problem.steps(optimizer, 3)
        optimizer.zero_grad(set_to_none=True)
        backward(problem.bias, 1.0)
        optimizer.step()
        problem.steps(optimizer, 3)
        assert [optimizer.state[param]["step"] for param in problem.params] == [6, 7]
        ends.append((problem.bits(), bits(optimizer.state_dict())[0]))
    assert ends[0] == ends[1]


@over_inputs
@pytest.mark.parametrize("shape", [(), (1,)], ids=["scalar", "one-element"])
def test_tensor_lr(options, shape):
    lr = torch.tensor(np.full(shape, 1e-3), dtype="float64")
    problem, optimizer = made({**options, "lr": 1e-3})
    twin, other = made({**options, "lr": lr})
    problem.steps(optimizer, 7)
    twin.steps(other, 7)
    assert twin.bits() == problem.bits()
    assert bits(other.state_dict())[0] == bits(optimizer.state_dict())[0]
    # And one that changes, as a scheduler changes it: in place, without a new value in the group.
    other.param_groups[0]["lr"]._impl.FromNumpy(np.full(shape, 0.5), True)
    optimizer.param_groups[0]["lr"] = 0.5
    problem.steps(optimizer, 1)
    twin.steps(other, 1)
    assert twin.bits() == problem.bits()


@over_inputs
def test_param_groups_weight_decay(options):
    problem = Problem()
    groups = [
        {"params": [problem.weight]},
        {"params": [problem.bias], "weight_decay": 0.5},
    ]
    optimizer = dragon_optim.RMSprop(groups, **{**options, "weight_decay": 0.1})
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.5]
    before = problem.closure()
    problem.steps(optimizer, 20)
    after = problem.closure()
    assert (after > before) if options.get("maximize") else (after < before)


@over_inputs
def test_param_groups_lr(options):
    """A group with its own learning rate takes it; one with 1e-28 stays where it is."""
    for first, second, third in ((1e-2, 1e-3, 1e-28), (1e-28, 1e-3, 1e-28), (1e-28, 1e-28, 1e-28)):
        problem, still = Problem(), parameter(np.ones(3))
        groups = [
            {"params": [problem.weight], "lr": first},
            {"params": problem.bias, "lr": second},
            {"params": [still]},
        ]
        optimizer = dragon_optim.RMSprop(groups, **{**options, "lr": third})
        starts, before = [values(param) for param in (*problem.params, still)], problem.closure()
        backward(still, 1.0)
        problem.steps(optimizer, 20)
        moved = [
            bool((values(param) != start).any()) for param, start in zip((*problem.params, still), starts)
        ]
        assert moved == [lr > 1e-20 for lr in (first, second, third)]
        after = problem.closure()
        if second == 1e-28:
            assert after == before
        else:
            assert (after > before) if options.get("maximize") else (after < before)


@over_inputs
@over_foreach
def test_step_is_noop_when_params_have_no_grad(options, foreach):
    problem, optimizer = made(options, foreach=foreach)
    before = problem.bits()
    optimizer.step()
    assert problem.bits() == before
    assert len(optimizer.state) == 0


@over_inputs
@over_foreach
def test_step_is_noop_for_zero_grads(options, foreach):
    problem, optimizer = made({**options, "weight_decay": 0}, foreach=foreach)
    before = problem.bits()
    backward(problem.weight, 0.0, problem.bias, 0.0)
    optimizer.step()
    assert problem.bits() == before
    assert [optimizer.state[param]["step"] for param in problem.params] == [1, 1]


@pytest.mark.parametrize("options", [*INPUTS.values(), *CONSTRUCTORS], ids=str)
def test_optimizer_can_be_printed(options):
    _, optimizer = made(options)
    text = repr(optimizer)
    for key, value in options.items():
        assert f"    {key}: {value}\n" in text


# --- errors ---------------------------------------------------------------------------------------

# get_error_inputs_for_all_optims, and what optim_error_inputs_func_rmsprop adds.
ERRORS = {
    "invalid-param-type": (
        lambda p, q: dragon_optim.RMSprop(p),
        TypeError,
        "params argument given to the optimizer should be an iterable of Tensors or dicts",
    ),
    "duplicate-in-a-group": (
        lambda p, q: dragon_optim.RMSprop([p, p]),
        UserWarning,
        ".*a parameter group with duplicate parameters.*",
    ),
    "duplicate-across-groups": (
        lambda p, q: dragon_optim.RMSprop([{"params": p}, {"params": p}]),
        ValueError,
        "some parameters appear in more than one parameter group",
    ),
    "tensor-lr-of-two-elements": (
        lambda p, q: dragon_optim.RMSprop([p], lr=torch.tensor([0.001, 0.001])),
        ValueError,
        "Tensor lr must be 1-element",
    ),
    "some-names": (
        lambda p, q: dragon_optim.RMSprop([("weight", p), q]),
        ValueError,
        "all optimizer params should be with/without names. Some param names are missing",
    ),
    "named-group-after-unnamed": (
        lambda p, q: dragon_optim.RMSprop([{"params": [p], "lr": 1e-2}, {"params": [("weight", q)]}]),
        ValueError,
        (
            "all optimizer param groups should be with/without names. "
            "cannot add param group with names to the optimizer"
        ),
    ),
    "momentum": (
        lambda p, q: dragon_optim.RMSprop([p], lr=1e-2, momentum=-1.0),
        ValueError,
        "Invalid momentum value: -1.0",
    ),
}


@pytest.mark.parametrize("what", ERRORS)
def test_errors(what):
    make, kind, words = ERRORS[what]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(kind, match=words):
            make(parameter([[1.0]]), parameter([[2.0]]))


# --- state dicts ----------------------------------------------------------------------------------


@over_inputs
@pytest.mark.parametrize("named", [False, True], ids=["unnamed", "named"])
@over_foreach
def test_state_dict_deterministic(options, named, foreach):
    """Runs that go on in parallel from a loaded copy stay equal, and so do their state dicts.

    What was loaded does not change, and parameters that stand in two groups have the same numbers in both.
    """
    problem, twin = Problem(), Problem()
    optimizer = dragon_optim.RMSprop(problem.named() if named else problem.params, foreach=foreach, **options)
    problem.steps(optimizer, 3)
    saved = copy.deepcopy(optimizer.state_dict())
    kept = bits(copy.deepcopy(saved))
    for ours, theirs in zip(twin.params, problem.params):
        ours._impl.FromNumpy(values(theirs), True)
    other = dragon_optim.RMSprop(twin.named() if named else twin.params, foreach=foreach, **options)
    other.load_state_dict(saved)
    for _ in range(5):
        problem.steps(optimizer, 1)
        twin.steps(other, 1)
        assert twin.bits() == problem.bits()
    assert bits(saved) == kept
    assert bits(other.state_dict()) == bits(optimizer.state_dict())
    assert ("param_names" in saved["param_groups"][0]) == named
    other.param_groups.extend(other.param_groups)
    assert other.state_dict()["param_groups"][-1] == optimizer.state_dict()["param_groups"][-1]


@over_inputs
def test_can_load_older_state_dict(options):
    """Without the flags that came one after another: they are off, and training goes on."""
    problem, optimizer = made(options)
    problem.steps(optimizer, 1)
    older = copy.deepcopy(optimizer.state_dict())
    for group in older["param_groups"]:
        for flag in ("maximize", "foreach", "differentiable", "capturable", "fused"):
            group.pop(flag, None)
    optimizer.load_state_dict(older)
    assert [optimizer.param_groups[0][flag] for flag in ("maximize", "foreach")] == [False, None]
    problem.steps(optimizer, 1)
    assert optimizer.state[problem.weight]["step"] == 2


@over_inputs
@pytest.mark.parametrize("names", [(False, True), (True, False), (True, True)], ids=str)
def test_can_load_from_to_named_state_dict(options, names):
    """The names of the loaded state dict are taken; where it has none, the optimizer's stay."""
    problem, twin = Problem(), Problem()
    saving, loading = (
        dragon_optim.RMSprop(each.named() if named else each.params, **options)
        for each, named in zip((problem, twin), names)
    )
    problem.steps(saving, 2)
    loading.load_state_dict(saving.state_dict())
    twin.steps(loading, 1)
    assert loading.param_groups[0].get("param_names") == ["weight", "bias"]
    saved, loaded = saving.state_dict(), loading.state_dict()
    assert saved["state"].keys() == loaded["state"].keys()


@over_inputs
def test_save_load_equality_with_weights_only(options, tmp_path):
    """Through our file, which PyTorch reads with ``weights_only=True``."""
    problem, optimizer = made(options)
    problem.steps(optimizer, 3)
    saved = optimizer.state_dict()
    checkpoint.save(saved, tmp_path / "optimizer.pt")
    loaded = checkpoint.load(tmp_path / "optimizer.pt")
    assert bits(loaded) == bits(saved)
    twin, other = made({})
    for ours, theirs in zip(twin.params, problem.params):
        ours._impl.FromNumpy(values(theirs), True)
    other.load_state_dict(loaded)
    problem.steps(optimizer, 2)
    twin.steps(other, 2)
    assert twin.bits() == problem.bits()
    assert bits(other.state_dict()) == bits(optimizer.state_dict())


@over_inputs
@pytest.mark.parametrize(
    "kind",
    [int, float, np.float32, np.int64, lambda step: torch.tensor(float(step))],
    ids=["int", "float", "np.float32", "np.int64", "tensor"],
)
def test_load_nontensor_step(options, kind):
    problem, optimizer = made(options)
    problem.steps(optimizer, 1)
    saved = copy.deepcopy(optimizer.state_dict())
    for entry in saved["state"].values():
        entry["step"] = kind(entry["step"])
    optimizer.load_state_dict(saved)
    problem.steps(optimizer, 1)
    assert optimizer.state_dict()["state"][0]["step"] == 2


# --- hooks ----------------------------------------------------------------------------------------


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


# --- the rest -------------------------------------------------------------------------------------


@over_inputs
def test_deepcopy_copies_all_public_attrs(options):
    _, optimizer = made(options)
    optimizer.added_by_somebody = 5

    def public(each):
        return {name for name in vars(each) if not name.startswith("_")}

    twin = copy.deepcopy(optimizer)
    assert public(twin) == public(optimizer)
    assert "added_by_somebody" in public(twin)
    assert twin.defaults == optimizer.defaults


@over_inputs
def test_non_empty_state(options):
    problem, optimizer = made(options)
    problem.steps(optimizer, 1)
    expected = {"step", "square_avg"}
    expected |= {"momentum_buffer"} if options.get("momentum") else set()
    expected |= {"grad_avg"} if options.get("centered") else set()
    for param in problem.params:
        assert set(optimizer.state[param]) == expected
