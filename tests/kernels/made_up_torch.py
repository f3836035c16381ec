# SPDX-License-Identifier: BSD-2-Clause
"""As much of PyTorch as `benchmarks/cuda.py` uses, over the emulated device: its memory is the host's.

Its optimizers do nothing. A graph holds nothing but how many kernels were launched while it was captured.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import sys
import types

import numpy as np


class Tensor:
    def __init__(self, values):
        self.values, self.grad = np.ascontiguousarray(values), None

    def data_ptr(self) -> int:
        return self.values.ctypes.data

    def copy_(self, other) -> None:
        self.values[...] = other.values


class Stream:
    def __init__(self, cuda_stream: int = 0):
        self.cuda_stream = cuda_stream

    def wait_stream(self, other) -> None:
        assert isinstance(other, Stream)


class RMSprop:
    def __init__(self, params, lr, foreach, momentum=0, centered=False, capturable=False):
        assert all(param.grad.values.size == param.values.size for param in params)

    def step(self) -> None:
        pass


def module(cuda, monkeypatch) -> types.ModuleType:
    """The module, in the place of torch; `cuda` is the emulated library."""
    torch = types.ModuleType("torch")
    torch.__spec__ = importlib.machinery.ModuleSpec("torch", None)
    torch.__version__ = "0.made.up"
    monkeypatch.setitem(sys.modules, "torch", torch)

    def on_the_gpu(make):
        def made(values, *, device, dtype="float32"):
            assert device == "cuda"
            return Tensor(np.asarray(make(values), dtype))

        return made

    torch.float64 = "float64"
    torch.randn = on_the_gpu(np.random.RandomState(0).standard_normal)
    torch.zeros, torch.ones, torch.tensor = map(on_the_gpu, (np.zeros, np.ones, np.array))
    torch.zeros_like = torch.empty_like = lambda tensor: Tensor(np.zeros_like(tensor.values))
    torch.nn = types.SimpleNamespace(Parameter=lambda tensor: tensor)
    torch.optim = types.SimpleNamespace(RMSprop=RMSprop)
    torch.compile, torch.compiler = lambda step: step, types.SimpleNamespace(reset=lambda: None)
    torch.version = types.SimpleNamespace(cuda="13.0")
    torch.cuda = cuda_of(cuda)
    return torch


def cuda_of(cuda) -> types.SimpleNamespace:
    current = [Stream()]

    @contextlib.contextmanager
    def stream(chosen):
        current.append(chosen)
        yield
        current.pop()

    class CUDAGraph:
        def __init__(self, keep_graph=False):
            self.launches = None

        def raw_cuda_graph(self) -> int:
            return self.launches

        def replay(self) -> None:
            assert self.launches is not None, "it was not captured"

    @contextlib.contextmanager
    def graph(captured):
        cuda.launches()  # from now on
        with stream(Stream(7)):
            yield
        captured.launches = cuda.launches()

    return types.SimpleNamespace(
        Stream=Stream,
        CUDAGraph=CUDAGraph,
        stream=stream,
        graph=graph,
        current_stream=lambda: current[-1],
        synchronize=lambda: None,
        empty_cache=lambda: None,
        get_device_name=lambda: "a made-up card",
        get_device_capability=lambda: (9, 0),
        get_device_properties=lambda index: types.SimpleNamespace(L2_cache_size=50 << 20),
    )
