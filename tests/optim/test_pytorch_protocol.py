# SPDX-License-Identifier: BSD-2-Clause
"""PyTorch's own tests of RMSprop, one by one: which of ours is the counterpart, or why there is none.

Those that exist nowhere else in tests/ stand in the other `test_pytorch_*.py` under PyTorch's names, with
PyTorch's option sets and what PyTorch asserts.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]

STEPS = "optim/test_pytorch_steps.py::"
STATE_DICTS = "optim/test_pytorch_state_dicts.py::"
HOOKS = "optim/test_pytorch_hooks.py::"
CUDA = "CUDA only"
COMPLEX = "Dragon has no complex tensors"
NO_DEFAULT_DTYPE = "Dragon has no default dtype that one could set"
SPARSE = "Dragon has no sparse gradients"
REASONS = (CUDA, COMPLEX, NO_DEFAULT_DTYPE, SPARSE)

# PyTorch's test -> ours, by path and name; or the reason why there is none.

OF_2_1 = {
    "test_rmsprop": STEPS + "test_rmsprop",
    "_test_basic_cases_template": STEPS + "test_rmsprop",
    "_test_state_dict": STATE_DICTS + "test_state_dict_deterministic",
    "_test_complex_2d": COMPLEX,
    "_test_complex_optimizer": COMPLEX,
    "test_multi_tensor_optimizers": "optim/test_golden.py::test_threads_and_foreach",
    "test_multi_tensor_optimizers_varying_tensors": "optim/test_golden.py::test_threads_and_foreach",
    "test_multi_tensor_optimizers_large_tensors": CUDA,
    "optim_base_constructors_rmsprop": STEPS + "test_optimizer_can_be_printed",
    "test_invalid_param_type": STEPS + "test_errors",
    "test_duplicate_params_in_one_param_group": STEPS + "test_errors",
    "test_duplicate_params_across_param_groups": STEPS + "test_errors",
    "test_step_is_noop_when_params_have_no_grad": STEPS + "test_step_is_noop_when_params_have_no_grad",
    "test_step_is_noop_for_empty_grads": STEPS + "test_step_is_noop_for_zero_grads",
    "test_post_hook": HOOKS + "test_step_post_hook",
    "test_pre_hook": HOOKS + "test_step_pre_hook",
    "test_pre_and_post_hook": HOOKS + "test_step_all_hooks",
    "test_state_dict_pre_hook": HOOKS + "test_state_dict_pre_hook",
    "test_state_dict_post_hook": HOOKS + "test_state_dict_post_hook",
    "test_state_dict_pre_post_hook": HOOKS + "test_state_dict_pre_post_hook",
    "test_load_state_dict_pre_hook_and_prepend": HOOKS + "test_load_state_dict_pre_hook_and_prepend",
    "test_load_state_dict_post_hook": HOOKS + "test_load_state_dict_post_hook",
    "test_load_state_dict_pre_post_hook": HOOKS + "test_load_state_dict_pre_post_hook",
    "TestDifferentiableOptimizer.test_rmsprop": (
        "optim/test_differentiable_gradients.py::test_every_input_in_every_form"
    ),
}

LATEST = {
    "test_errors": STEPS + "test_errors",
    "test_forloop_goes_right_direction": STEPS + "test_forloop_goes_right_direction",
    "test_forloop_goes_right_direction_multigpu": CUDA,
    "test_param_group_with_lrscheduler_goes_right_direction": (
        STEPS + "test_param_group_with_lrscheduler_goes_right_direction"
    ),
    "test_tensor_lr": STEPS + "test_tensor_lr",
    "test_tensor_lr_num_dim_1": STEPS + "test_tensor_lr",
    "test_foreach_matches_forloop": STEPS + "test_foreach_matches_forloop",
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
    "test_param_groups_weight_decay": STEPS + "test_param_groups_weight_decay",
    "test_param_groups_lr": STEPS + "test_param_groups_lr",
    "test_step_is_noop_when_params_have_no_grad": STEPS + "test_step_is_noop_when_params_have_no_grad",
    "test_step_is_noop_for_zero_grads": STEPS + "test_step_is_noop_for_zero_grads",
    "test_optimizer_can_be_printed": STEPS + "test_optimizer_can_be_printed",
    "test_state_dict_deterministic": STATE_DICTS + "test_state_dict_deterministic",
    "test_can_load_older_state_dict": STATE_DICTS + "test_can_load_older_state_dict",
    "test_can_load_from_to_named_state_dict": STATE_DICTS + "test_can_load_from_to_named_state_dict",
    "test_save_load_equality_with_weights_only": STATE_DICTS + "test_save_load_equality_with_weights_only",
    "test_load_nontensor_step": STATE_DICTS + "test_load_nontensor_step",
    "test_state_dict_pre_hook": HOOKS + "test_state_dict_pre_hook",
    "test_state_dict_post_hook": HOOKS + "test_state_dict_post_hook",
    "test_state_dict_pre_post_hook": HOOKS + "test_state_dict_pre_post_hook",
    "test_load_state_dict_pre_hook_and_prepend": HOOKS + "test_load_state_dict_pre_hook_and_prepend",
    "test_load_state_dict_post_hook": HOOKS + "test_load_state_dict_post_hook",
    "test_load_state_dict_pre_post_hook": HOOKS + "test_load_state_dict_pre_post_hook",
    "test_step_post_hook": HOOKS + "test_step_post_hook",
    "test_step_pre_hook": HOOKS + "test_step_pre_hook",
    "test_step_all_hooks": HOOKS + "test_step_all_hooks",
    "test_deepcopy_copies_all_public_attrs": STATE_DICTS + "test_deepcopy_copies_all_public_attrs",
    "test_non_empty_state": STEPS + "test_non_empty_state",
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


def test_what_is_named_after_pytorch_is_in_the_table():
    named = {*OF_2_1.values(), *LATEST.values()}
    for place in (STEPS, STATE_DICTS, HOOKS):
        tests = {name for name in functions(TESTS / place[: -len("::")]) if name.startswith("test_")}
        assert {place + name for name in tests} - named == set()
