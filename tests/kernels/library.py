# SPDX-License-Identifier: BSD-2-Clause
"""The kernels' flat C functions, called through ctypes. `dragon_optim` itself is found, but not imported."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import itertools
from pathlib import Path

import numpy as np

# numpy has no bfloat16: here it goes about as its bits.
DTYPE_CODES = {"float16": 0, "float32": 1, "float64": 2, "uint16": 3}
SHORT = ("float16", "uint16")


NUMBERS = ("lr", "alpha", "eps", "weight_decay", "momentum", "grad_scale", "clip_norm", "clip_value")
FLAGS = ("centered", "maximize", "lr_in_momentum", "eps_inside_sqrt", "decoupled_weight_decay")
BUFFERS = ("grad", "param", "square_avg", "momentum_buffer", "grad_avg", "master_param")


class Options(ctypes.Structure):
    _fields_ = (*((name, ctypes.c_double) for name in NUMBERS), *((name, ctypes.c_int32) for name in FLAGS))


class Tensor(ctypes.Structure):
    _fields_ = (("size", ctypes.c_int64), *((name, ctypes.c_void_p) for name in BUFFERS))


class Gradient(ctypes.Structure):
    _fields_ = (("size", ctypes.c_int64), ("grad", ctypes.c_void_p))


class Sum(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_int64),
        ("grad", ctypes.c_void_p),
        ("sum", ctypes.c_void_p),
        ("first", ctypes.c_int32),
    )


chosen: list = []  # a path, where it is not the package's library that is tested


def use(file: Path) -> None:
    """Takes the library from here. Before its first use."""
    chosen[:] = [file]


def path() -> Path:
    if chosen:
        return chosen[0]
    spec = importlib.util.find_spec("dragon_optim")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the package dragon_optim is not installed, and this is not a checkout of it")
    file = Path(spec.submodule_search_locations[0]) / "_lib" / "libdragon_optim_kernels.so"
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing: build the kernels first")
    return file


@functools.lru_cache(maxsize=None)
def load() -> ctypes.CDLL:
    library = ctypes.CDLL(str(path()))
    for name in ("isa", "compiled_isas", "supported_isas", "last_error"):
        getattr(library, f"dragon_optim_{name}").restype = ctypes.c_char_p
    return library


def call(name: str, *arguments) -> None:
    """Calls `dragon_optim_<name>`; an error becomes a ValueError with the library's text."""
    if getattr(load(), f"dragon_optim_{name}")(*arguments) != 0:
        raise ValueError(load().dragon_optim_last_error().decode())


def isa() -> str:
    name = load().dragon_optim_isa()
    if name is None:
        raise ValueError(load().dragon_optim_last_error().decode())
    return name.decode()


def set_isa(name: str) -> None:
    call("set_isa", name.encode())


def supported_isas() -> list:
    return load().dragon_optim_supported_isas().decode().split(",")


def make_options(options: dict) -> Options:
    defaults = {"lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "grad_scale": 1.0}
    return Options(**dict(defaults, **options))


def call_update(dtype: int, grad_dtype: int, options: dict, tensors, threads: int) -> None:
    options = make_options(options)
    call("rmsprop", dtype, grad_dtype, ctypes.byref(options), tensors, ctypes.c_int64(len(tensors)), threads)


class Guarded:
    """A copy of an array that starts `offset` elements behind an aligned address, between guard bytes."""

    GUARD = 128

    def __init__(self, values, offset: int = 0):
        values = np.ascontiguousarray(values)
        begin = self.GUARD + offset * values.itemsize
        memory = np.full(2 * self.GUARD + 64 + begin + values.nbytes, 0xA5, np.uint8)
        self._bytes = memory[-memory.ctypes.data % 64 :]
        self.array = self._bytes[begin : begin + values.nbytes].view(values.dtype)
        self.array[...] = values.ravel()
        self._before, self._after = self._bytes[:begin], self._bytes[begin + values.nbytes :]

    @property
    def pointer(self) -> int:
        return self.array.ctypes.data

    def check(self) -> None:
        assert (self._before == 0xA5).all(), "written in front of the buffer"
        assert (self._after == 0xA5).all(), "written behind the buffer"


class Parameters:
    """Parameters, gradients and states of one call, in guarded memory."""

    def __init__(self, params, grads, options: dict, offset: int = 0, states=None):
        self.options = options
        self.params = [Guarded(param, offset) for param in params]
        self.grads = [Guarded(grad, offset) for grad in grads]
        self.states = [
            {name: Guarded(value, offset) for name, value in (given or self._fresh(param)).items()}
            for param, given in zip(params, states or [None] * len(params))
        ]

    def _fresh(self, param) -> dict:
        """What the optimizer allocates; what the options do not use stays null."""
        dtype = np.float32 if param.dtype == np.float16 else param.dtype
        state = {"square_avg": np.full(param.size, self.options.get("initial_square_avg", 0), dtype)}
        if self.options.get("momentum", 0) > 0:
            state["momentum_buffer"] = np.zeros(param.size, dtype)
        if self.options.get("centered", False):
            state["grad_avg"] = np.zeros(param.size, dtype)
        if param.dtype == np.float16:
            state["master_param"] = param.ravel().astype(np.float32)
        return state

    def _tensors(self):
        tensors = (Tensor * len(self.params))()
        for tensor, param, grad, state in zip(tensors, self.params, self.grads, self.states):
            tensor.size, tensor.param, tensor.grad = param.array.size, param.pointer, grad.pointer
            for name, value in state.items():
                setattr(tensor, name, value.pointer)
        return tensors

    def _pieces(self, sizes):
        """The memory of the only parameter as a list of tensors, one behind the other."""
        tensors = (Tensor * len(sizes))()
        buffers = dict(self.states[0], param=self.params[0], grad=self.grads[0])
        begin = 0
        for tensor, size in zip(tensors, sizes):
            tensor.size = size
            for name, value in buffers.items():
                setattr(tensor, name, value.pointer + begin * value.array.itemsize)
            begin += size
        assert begin == self.params[0].array.size
        return tensors

    def update(self, threads: int = 1, sizes=None, **changed) -> None:
        """One step; guards and gradients are checked. `sizes` makes many tensors of the memory of one."""
        options = {name: value for name, value in self.options.items() if name != "initial_square_avg"}
        options.update(changed)
        tensors = self._tensors() if sizes is None else self._pieces(sizes)
        before = [grad.array.tobytes() for grad in self.grads]
        dtypes = (DTYPE_CODES[guarded[0].array.dtype.name] for guarded in (self.params, self.grads))
        call_update(*dtypes, options, tensors, threads)
        for guarded in itertools.chain(self.params, self.grads, *(state.values() for state in self.states)):
            guarded.check()
        assert before == [grad.array.tobytes() for grad in self.grads], "the gradient was changed"

    def arrays(self, index: int = 0) -> dict:
        """The parameter and its states, copied."""
        named = dict(self.states[index], param=self.params[index])
        return {name: value.array.copy() for name, value in named.items()}


def same_bits(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Per element: equal to the last bit, or both NaN (whose payload, of two operands', is not defined)."""
    unsigned = {2: np.uint16, 4: np.uint32, 8: np.uint64}[actual.itemsize]
    return (actual.view(unsigned) == expected.view(unsigned)) | (np.isnan(actual) & np.isnan(expected))


def assert_same_bits(actual: np.ndarray, expected: np.ndarray, what="") -> None:
    actual, expected = np.asarray(actual).ravel(), np.asarray(expected).ravel()
    assert (actual.dtype, actual.size) == (expected.dtype, expected.size), what
    wrong = np.flatnonzero(~same_bits(actual, expected))
    if wrong.size:
        i = wrong[0]
        raise AssertionError(f"{what}: {wrong.size} differ, first [{i}]: {actual[i]!r} {expected[i]!r}")


def assert_all_same_bits(actual: dict, expected: dict, what="") -> None:
    assert set(actual) == set(expected), what
    for name in expected:
        assert_same_bits(actual[name], expected[name], f"{what} {name}")
