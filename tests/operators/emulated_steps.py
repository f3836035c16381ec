# SPDX-License-Identifier: BSD-2-Clause
"""Whole steps with the operators for CUDA, beside the CPU's: test_on_emulated_cuda.py runs it."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim._dragon import graphs, library, names, workspace

FORMS = [
    {},
    {"momentum": 0.9, "centered": True},
    {"momentum": 0.9, "clip_norm": 0.5, "grad_scale": 2.0},
    {"initial_square_avg": 1.0, "eps_inside_sqrt": True},
    {"initial_square_avg": 0.3, "foreach": False, "clip_norm": 0.1},
    {"maximize": True, "weight_decay": 0.1, "clip_value": 0.3},
]
SHAPES = [(5, 7), (4100,), (3,)]
DTYPES = [("float32", "float32", "float64"), ("float16", "float32", "float16")]

emulated = ctypes.CDLL(library._path(library._OPERATORS))
emulated.emulated_cuda_launches.restype = ctypes.c_int64


def counts() -> list:
    """Allocations, copies and fills since the last question."""
    result = (ctypes.c_int64 * 3)()
    emulated.emulated_cuda_counts(result)
    return list(result)


class Training:
    """Parameters on a device, as far as Dragon is told: their memory is the host's."""

    def __init__(self, devices, dtypes, **options):
        self.random = np.random.RandomState(0)
        self.params = [
            torch.nn.Parameter(torch.tensor(self.random.standard_normal(shape).astype(dtype)))
            for shape, dtype in zip(SHAPES, dtypes)
        ]
        for param, device in zip(self.params, devices):
            param._device = torch.device(*device)
        self.optimizer = dragon_optim.RMSprop(self.params, **options)

    def step(self):
        for param in self.params:
            grad = workspace.current().create_tensor(names.gradient_name(param))
            grad.FromNumpy(self.random.standard_normal(param.shape).astype(param.dtype), True)
        self.optimizer.step()

    def arrays(self) -> list:
        found = [param.numpy().copy() for param in self.params]
        for param in self.params:
            for name, value in sorted(self.optimizer.state[param].items()):
                found.append(np.array(value if name == "step" else value.numpy()))
        return found


def assert_same(actual: list, expected: list) -> None:
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected):
        assert ours.dtype == theirs.dtype
        assert ours.tobytes() == theirs.tobytes()


def same_bits(devices) -> None:
    """Of every form; and once warm a step allocates, copies and fills nothing."""
    for options in FORMS:
        for dtypes in DTYPES:
            host = Training([("cpu", 0)] * 3, dtypes, **options)
            device = Training(devices, dtypes, **options)
            for number in range(3):
                host.step()
                emulated.emulated_cuda_launches()
                counts()
                device.step()
                assert emulated.emulated_cuda_launches() > 0
                if number > 0:
                    assert counts() == [0, 0, 0], options
            assert_same(device.arrays(), host.arrays())
            device.optimizer.zero_grad()
            assert not any(param.grad.numpy().any() for param in device.params)
            device.optimizer.zero_grad(set_to_none=True)
            assert all(param.grad is None for param in device.params)


def a_step_that_fails() -> None:
    """A launch that is refused and memory that cannot be had are exceptions, and change nothing."""
    training = Training([("cuda", 0)] * 3, DTYPES[0], momentum=0.9)
    emulated.emulated_cuda_out_of_memory(1)
    with pytest.raises(MemoryError):
        training.step()
    emulated.emulated_cuda_out_of_memory(0)
    assert all(not training.optimizer.state[param] for param in training.params)
    training.step()
    before = training.arrays()
    emulated.emulated_cuda_fail_after(ctypes.c_int64(0))
    with pytest.raises(RuntimeError, match="CUDA error at the update"):
        training.step()
    emulated.emulated_cuda_fail_after(ctypes.c_int64(-1))
    assert_same(training.arrays(), before)


def what_is_for_the_cpu_only() -> None:
    message = "parameter 0 of group 0 is on cuda:0, but differentiable=True runs on the CPU only"
    with pytest.raises(ValueError, match=message):
        Training([("cuda", 0)] * 3, DTYPES[0], differentiable=True)
    training = Training([("cpu", 0), ("cuda", 0), ("cpu", 0)], DTYPES[0])
    training.step()
    before = [param.grad.numpy().copy() for param in training.params]
    for clip in (dragon_optim.clip_grad_norm_, dragon_optim.clip_grad_value_):
        message = rf"parameter 1 is on cuda:0, but {clip.__name__}\(\) runs on the CPU only"
        with pytest.raises(NotImplementedError, match=message):
            clip(training.params, 0.1)
    assert_same([param.grad.numpy().copy() for param in training.params], before)
    for kind in ("TotalNorm", "ClipNorm", "ClipValue"):
        operator = graphs.operator(f"DragonOptim{kind}", [], [], torch.device("cuda", 0))
        with pytest.raises(ValueError, match=f"DragonOptim{kind} runs on the CPU only"):
            graphs.run_once(workspace.current(), [operator])


if __name__ == "__main__":
    assert library.devices() == ("cpu", "cuda")
    assert library.cuda_architectures() == "emulated"
    same_bits([("cuda", 0)] * 3)
    same_bits([("cuda", 0), ("cpu", 0), ("cuda", 1)])
    a_step_that_fails()
    what_is_for_the_cpu_only()
    print("all the same")
