# SPDX-License-Identifier: BSD-2-Clause
"""Who takes part on a GPU, and in which cases. PyTorch is handed over: nothing here imports it."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field

from benchmarks.cuda_results import COMPILED, COPY, FOR_LOOP, FOREACH, GRAPH, OURS, TORCH_GRAPH
from tests.kernels import library
from tests.kernels.cuda_library import BUILT, CudaLibrary

LR = 1e-4  # thousands of steps with one gradient must not overflow
WARM_UP_STEPS = 3


@dataclass(frozen=True)
class Case:
    name: str
    tensors: int
    size: int  # elements of each, float32
    options: dict = field(default_factory=dict)

    @property
    def elements(self) -> int:
        return self.tensors * self.size

    @property
    def bytes_moved(self) -> int:
        """What the formula must read (gradient, parameter, states) and write (parameter, states)."""
        states = 1 + ("momentum" in self.options) + ("centered" in self.options)
        return (1 + 2 + 2 * states) * 4 * self.elements


MOMENTUM = {"momentum": 0.9}
CENTERED = dict(MOMENTUM, centered=True)
CASES = [
    Case("1 x 10M, plain", 1, 10_000_000),
    Case("1 x 10M, momentum", 1, 10_000_000, MOMENTUM),
    Case("1 x 10M, momentum + centered", 1, 10_000_000, CENTERED),
    Case("1 x 16M, plain", 1, 1 << 24),
    Case("1 x 16M, momentum", 1, 1 << 24, MOMENTUM),
    Case("1 x 64M, plain", 1, 1 << 26),
    Case("1 x 64M, momentum", 1, 1 << 26, MOMENTUM),
    Case("161 x 16K, momentum", 161, 16 * 1024, MOMENTUM),
    Case("1000 x 100, momentum", 1000, 100, MOMENTUM),
    Case("1 x 100, momentum", 1, 100, MOMENTUM),
]
QUICK = [Case("1 x 1M, momentum", 1, 1_000_000, MOMENTUM), CASES[-2]]


def parameters(torch, case: Case) -> list:
    """Parameters with gradients."""
    made = []
    for _ in range(case.tensors):
        param = torch.nn.Parameter(torch.randn(case.size, device="cuda"))
        param.grad = torch.randn(case.size, device="cuda")
        made.append(param)
    return made


class Ours:
    """The C function, given the same list of tensors at each step."""

    def __init__(self, torch, case: Case):
        self.cuda = CudaLibrary(BUILT / "libdragon_optim_cuda.so")
        self._torch = torch
        self.kept = [self._buffers(torch, param, case) for param in parameters(torch, case)]
        self.options = library.make_options(dict(case.options, lr=LR))
        self.tensors = (library.Tensor * case.tensors)()
        for tensor, buffers in zip(self.tensors, self.kept):
            tensor.size = case.size
            for name, buffer in buffers.items():
                setattr(tensor, name, buffer.data_ptr())

    @staticmethod
    def _buffers(torch, param, case: Case) -> dict:
        buffers = {"param": param, "grad": param.grad, "square_avg": torch.zeros_like(param)}
        if "momentum" in case.options:
            buffers["momentum_buffer"] = torch.zeros_like(param)
        if "centered" in case.options:
            buffers["grad_avg"] = torch.zeros_like(param)
        return buffers

    def launch(self, stream: int, numbers: int | None = None) -> None:
        self.cuda.stream = stream
        count, nothing = ctypes.c_int64(len(self.tensors)), ctypes.c_int64(0)
        options, numbers = ctypes.byref(self.options), ctypes.c_void_p(numbers)
        self.cuda.call("rmsprop", 1, 1, options, numbers, None, self.tensors, count, None, nothing)

    def __call__(self) -> None:
        self.launch(self._torch.cuda.current_stream().cuda_stream)


def captured(torch, case: Case):
    """The same in a CUDA graph, with the numbers in device memory."""
    ours = Ours(torch, case)
    values = [getattr(ours.options, name) for name in library.NUMBERS]
    numbers = torch.tensor(values, dtype=torch.float64, device="cuda")

    def launch() -> None:
        ours.launch(torch.cuda.current_stream().cuda_stream, numbers.data_ptr())

    launch()  # loads the kernels, which a capture may not
    graph = torch.cuda.CUDAGraph()
    return _replay(torch, graph, launch)


def _replay(torch, graph, step):
    """The replay of a graph of this step, whose tensors live as long as the replay."""
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        step()

    def replay() -> None:
        graph.replay()

    replay.step = step
    return replay


def _optimizer(torch, case: Case, **ways):
    return torch.optim.RMSprop(parameters(torch, case), lr=LR, **case.options, **ways)


def torch_graph(torch, case: Case):
    optimizer = _optimizer(torch, case, foreach=True, capturable=True)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # as PyTorch wants it before a capture
        for _ in range(WARM_UP_STEPS):
            optimizer.step()
    torch.cuda.current_stream().wait_stream(stream)
    return _replay(torch, torch.cuda.CUDAGraph(), optimizer.step)


def torch_compiled(torch, case: Case):
    # Else a case would be compiled for all sizes, because an earlier one had another.
    torch.compiler.reset()
    optimizer = _optimizer(torch, case, foreach=True, capturable=True)
    step = torch.compile(lambda: optimizer.step())
    for _ in range(WARM_UP_STEPS):
        step()
    torch.cuda.synchronize()
    return step


def copy(torch, case: Case):
    """Of half the bytes, each of which is read and written."""
    source = torch.ones(case.bytes_moved // 8, device="cuda")
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


# Each makes of PyTorch and a case what is called for one step.
MAKERS = {
    OURS: Ours,
    GRAPH: captured,
    FOR_LOOP: lambda torch, case: _optimizer(torch, case, foreach=False).step,
    FOREACH: lambda torch, case: _optimizer(torch, case, foreach=True).step,
    TORCH_GRAPH: torch_graph,
    COMPILED: torch_compiled,
    COPY: copy,
}


def launches(torch, step) -> int:
    """How many kernels one step launches: the nodes of a graph of it."""
    graph = torch.cuda.CUDAGraph(keep_graph=True)
    _replay(torch, graph, step)
    return nodes(graph.raw_cuda_graph())


def nodes(graph: int) -> int:
    count = ctypes.c_size_t(0)
    status = ctypes.CDLL("libcuda.so.1").cuGraphGetNodes(ctypes.c_void_p(graph), None, ctypes.byref(count))
    if status != 0:
        raise RuntimeError(f"cuGraphGetNodes: error {status}")
    return count.value
