# SPDX-License-Identifier: BSD-2-Clause
"""Cases for the CUDA kernels: lists of tensors in one piece of memory, and what the CPU kernels make of it.

The same cases run on a GPU (`check_cuda.py`) and on its emulation (`test_cuda_on_cpu.py`).
"""

from __future__ import annotations

import ctypes
import itertools
from dataclasses import dataclass, field

import numpy as np

from tests.kernels import library
from tests.kernels.cuda_library import HostArray
from tests.kernels.forms import RICH
from tests.kernels.library import DTYPE_CODES, SHORT, same_bits

# (dtype of the parameters, dtype of the gradients); uint16 stands for bfloat16
DTYPES = [
    ("float32", "float32"),
    ("float64", "float64"),
    ("float16", "float16"),
    ("float16", "float32"),
    ("uint16", "uint16"),
    ("uint16", "float32"),
]
GRAD_DTYPES = ("float16", "float32", "float64", "uint16")

# Of each buffer, in elements, behind an aligned address: all alike, one of them different, all different.
BUFFERS = library.BUFFERS
SHIFTS = [
    *[dict.fromkeys(BUFFERS, shift) for shift in range(4)],
    *[dict.fromkeys(BUFFERS, 0) | {name: 1} for name in BUFFERS],
    {name: place % 4 for place, name in enumerate(BUFFERS)},
    {name: (3 * place + 1) % 8 for place, name in enumerate(BUFFERS)},
]

ALIGNMENT = 256
GUARD = 64


def bfloat16(values: np.ndarray) -> np.ndarray:
    """The bits of float32 values cut off after bfloat16's: which values they are does not matter here."""
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def random_array(size: int, dtype: str, seed: int, orders: float = 6) -> np.ndarray:
    random = np.random.RandomState(seed)
    values = random.standard_normal(size) * 10.0 ** random.uniform(2 - orders, 2, size)
    return bfloat16(values) if dtype == "uint16" else values.astype(dtype)


def random_bits(size: int, dtype: str, seed: int) -> np.ndarray:
    """Numbers of every exponent, denormals, infinities and NaNs among them."""
    item = np.dtype(dtype).itemsize
    return np.random.RandomState(seed).randint(0, 256, size * item).astype(np.uint8).view(dtype)


def state_dtype(dtype: str) -> str:
    return "float32" if dtype in SHORT else dtype


def decoded(values: np.ndarray) -> np.ndarray:
    """What a parameter is in the dtype of the arithmetic."""
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(state_dtype(values.dtype.name))


@dataclass
class Case:
    """Tensors of `sizes`, one behind the other in each buffer."""

    dtypes: tuple
    options: dict
    sizes: list
    shifts: dict = field(default_factory=dict)
    steps: int = 2
    buffers: dict = field(default_factory=dict)  # instead of random ones

    def start(self) -> dict:
        total = sum(self.sizes)
        dtype = state_dtype(self.dtypes[0])
        buffers = {
            "grad": random_array(total, self.dtypes[1], seed=1),
            "param": random_array(total, self.dtypes[0], seed=2, orders=3),
            "square_avg": np.abs(random_array(total, dtype, seed=3, orders=3)),
        }
        if self.options.get("momentum", 0) > 0:
            buffers["momentum_buffer"] = random_array(total, dtype, seed=4, orders=3)
        if self.options.get("centered"):
            buffers["grad_avg"] = random_array(total, dtype, seed=5, orders=3)
        buffers.update(self.buffers)
        if self.dtypes[0] in SHORT and "master_param" not in buffers:
            buffers["master_param"] = decoded(buffers["param"])
            with np.errstate(over="ignore", invalid="ignore"):
                buffers["master_param"][::7] *= 1.25  # as if those parameters had been overwritten
        return buffers

    @property
    def codes(self) -> tuple:
        return tuple(DTYPE_CODES[name] for name in self.dtypes)


class Arena:
    """Buffers in one piece of memory, `shifts` elements behind aligned addresses, guard bytes around each."""

    def __init__(self, buffers: dict, shifts: dict):
        self.places = {}
        end = GUARD
        for name, values in buffers.items():
            begin = -(-end // ALIGNMENT) * ALIGNMENT + shifts.get(name, 0) * values.itemsize
            self.places[name] = (begin, values.dtype, values.size)
            end = begin + values.nbytes + GUARD
        self.image = np.full(end, 0xA5, np.uint8)
        for name, values in buffers.items():
            self.view(self.image, name)[...] = values.ravel()

    def view(self, image: np.ndarray, name: str) -> np.ndarray:
        begin, dtype, size = self.places[name]
        return image[begin : begin + size * dtype.itemsize].view(dtype)

    def address(self, base: int, name: str, element: int = 0) -> int:
        begin, dtype, _ = self.places[name]
        return base + begin + element * dtype.itemsize

    def fill(self, structures, sizes, base: int) -> None:
        """Point the fields of each structure at the tensors of these sizes, in memory at `base`."""
        element = 0
        names = [name for name in self.places if hasattr(structures._type_, name)]
        for structure, size in zip(structures, sizes):
            structure.size = size
            for name in names:
                setattr(structure, name, self.address(base, name, element))
            element += size

    def assert_same(self, actual: np.ndarray, expected: np.ndarray, what) -> None:
        """Every byte, but NaNs' payloads."""
        outside = np.ones(actual.size, bool)
        for name, (begin, dtype, size) in self.places.items():
            outside[begin : begin + size * dtype.itemsize] = False
            ours, theirs = self.view(actual, name), self.view(expected, name)
            wrong = np.flatnonzero(~alike(ours, theirs))
            if wrong.size:
                i = wrong[0]
                raise AssertionError(
                    f"{what}: {name}: {wrong.size} differ, first [{i}]: {ours[i]!r} {theirs[i]!r}"
                )
        assert (actual[outside] == 0xA5).all(), f"{what}: written outside of the buffers"


def alike(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    if actual.dtype != np.uint16:
        return same_bits(actual, expected)
    both_nan = ((actual & 0x7FFF) > 0x7F80) & ((expected & 0x7FFF) > 0x7F80)
    return (actual == expected) | both_nan


def check_update(cuda, case: Case, numbers=None, skip=None, on_host=None) -> None:
    """The device's memory after some steps is the CPU's, whose options are `on_host`; None: as it was."""
    arena = Arena(case.start(), case.shifts)
    host, device = HostArray(arena.image), cuda.upload(arena.image)
    host_tensors, device_tensors = ((library.Tensor * len(case.sizes))() for _ in range(2))
    arena.fill(host_tensors, case.sizes, host.pointer)
    arena.fill(device_tensors, case.sizes, device.pointer)
    for _ in range(case.steps):
        if on_host is not None:
            library.call_update(*case.codes, on_host, host_tensors, threads=1)
        cuda.rmsprop(*case.codes, case.options, device_tensors, numbers, skip)
    arena.assert_same(
        device.read(), host.read(), f"{case.dtypes} {case.options} {case.shifts} {case.sizes[:5]}"
    )


def check(cuda, case: Case) -> None:
    check_update(cuda, case, on_host=case.options)


def with_numbers(options: dict) -> tuple:
    """Options in whose numbers only the parts can be seen, and the numbers themselves."""
    full = library.make_options(options)
    numbers = np.array([getattr(full, name) for name in library.NUMBERS])
    misleading = dict(
        options, lr=77.0, alpha=-3.0, eps=5.0, weight_decay=0.7, grad_scale=9.0, clip_value=1e-9
    )
    misleading["momentum"] = 0.3
    misleading["clip_norm"] = 1e-9 if options.get("clip_norm") else 0.0
    return misleading, numbers


def check_numbers(cuda, case: Case) -> None:
    """The same with the numbers in device memory, and misleading ones in the call."""
    options, numbers = with_numbers(case.options)
    moved = Case(case.dtypes, options, case.sizes, case.shifts, case.steps, case.buffers or case.start())
    check_update(cuda, moved, numbers=cuda.upload(numbers), on_host=case.options)


SPECIAL_OPTIONS = (
    {},
    {"eps": 0.0},
    RICH,
    {"lr": float("inf"), "alpha": 1.5, "centered": True},
    {"lr": 1e-3, "momentum": 0.9, "lr_in_momentum": True, "eps": 1e-30, "clip_norm": 1e3},
)


def check_special_values(cuda, dtypes: tuple, options: dict) -> None:
    """Zeros of both signs, denormals, infinities and NaNs meet each other; then numbers of every exponent."""
    tiny = float(np.finfo(dtypes[0]).tiny) if dtypes[0] != "uint16" else float(np.finfo(np.float32).tiny)
    values = np.array([0.0, -0.0, 1.0, 3e4, tiny, tiny / 2, np.inf, -np.inf, np.nan])

    def stored(array, dtype):
        return bfloat16(array) if dtype == "uint16" else array.astype(dtype)

    state = state_dtype(dtypes[0])
    with np.errstate(over="ignore"):
        grad, param, square = (array.ravel() for array in np.meshgrid(values, values, np.abs(values)))
        buffers = {
            "grad": stored(grad, dtypes[1]),
            "param": stored(param, dtypes[0]),
            "square_avg": square.astype(state),
        }
    check(cuda, Case(dtypes, options, [grad.size], buffers=buffers, steps=1))
    size = 20011
    buffers = {"grad": random_bits(size, dtypes[1], 1), "param": random_bits(size, dtypes[0], 2)}
    buffers["square_avg"] = np.abs(random_bits(size, state, 3))
    for seed, (name, option) in enumerate((("momentum_buffer", "momentum"), ("grad_avg", "centered"))):
        if options.get(option):
            buffers[name] = random_bits(size, state, 4 + seed)
    check(cuda, Case(dtypes, options, [size], SHIFTS[2], buffers=buffers))


def check_all_halves(cuda, dtype: str) -> None:
    """Every number of 16 bits, decoded."""
    halves = np.arange(1 << 16).astype(np.uint16).view(dtype)
    arena = Arena({"grad": halves, "sum": np.zeros(halves.size, np.float32)}, {})
    host, device = HostArray(arena.image), cuda.upload(arena.image)
    on_host, on_device = (
        gradients(arena, [halves.size], memory.pointer, library.Sum) for memory in (host, device)
    )
    on_host[0].first = on_device[0].first = 1
    library.call("accumulate", DTYPE_CODES[dtype], on_host, ctypes.c_int64(1), 1)
    cuda.accumulate(DTYPE_CODES[dtype], on_device)
    arena.assert_same(device.read(), host.read(), f"all numbers of {dtype}")


def gradients(arena: Arena, sizes, base: int, kind=library.Gradient):
    structures = (kind * len(sizes))()
    arena.fill(structures, sizes, base)
    return structures


def check_accumulate(cuda, dtype: str, sizes, shifts: dict) -> None:
    """Some of the sums begin, some go on."""
    total = sum(sizes)
    buffers = {"grad": random_array(total, dtype, 1), "sum": random_array(total, state_dtype(dtype), 2)}
    arena = Arena(buffers, shifts)
    host, device = HostArray(arena.image), cuda.upload(arena.image)
    on_host, on_device = (gradients(arena, sizes, memory.pointer, library.Sum) for memory in (host, device))
    for index in range(len(sizes)):
        on_host[index].first = on_device[index].first = index % 3 == 0
    for _ in range(2):
        library.call("accumulate", DTYPE_CODES[dtype], on_host, ctypes.c_int64(len(sizes)), 1)
        cuda.accumulate(DTYPE_CODES[dtype], on_device)
    arena.assert_same(device.read(), host.read(), f"sums of {dtype}, {shifts}")


def check_fill(cuda, dtype: str, sizes, shift: int) -> None:
    for size, value in itertools.product(sizes, (0.1, 0.0, -0.0, np.inf)):
        arena = Arena({"sum": random_array(size, dtype, 2)}, {"sum": shift})
        host, device = HostArray(arena.image), cuda.upload(arena.image)
        pointer = arena.address(host.pointer, "sum", 0)
        arguments = (ctypes.c_void_p(pointer), ctypes.c_int64(size), ctypes.c_double(value))
        library.call("fill", DTYPE_CODES[dtype], *arguments)
        cuda.fill(DTYPE_CODES[dtype], arena.address(device.pointer, "sum", 0), size, value)
        arena.assert_same(device.read(), host.read(), f"{size} of {dtype} filled with {value}, shift {shift}")


def check_norms(cuda, dtype: str, sizes, shift: int, scale: float) -> None:
    arena = Arena({"grad": random_array(sum(sizes), dtype, 1)}, {"grad": shift})
    host, device = HostArray(arena.image), cuda.upload(arena.image)
    actual = cuda.squared_norms(DTYPE_CODES[dtype], gradients(arena, sizes, device.pointer), scale)
    expected = [
        squared_norm(dtype, arena.address(host.pointer, "grad", begin), size, scale)
        for begin, size in zip(itertools.accumulate([0, *sizes]), sizes)
    ]
    library.assert_same_bits(actual, np.array(expected), f"norms of {dtype}, shift {shift}, scale {scale}")


def squared_norm(dtype: str, pointer: int, size: int, scale: float) -> float:
    result = ctypes.c_double(-1)
    arguments = (
        ctypes.c_void_p(pointer),
        ctypes.c_int64(size),
        ctypes.c_double(scale),
        1,
        ctypes.byref(result),
    )
    library.call("squared_norm", DTYPE_CODES[dtype], *arguments)
    return result.value


NON_FINITE = {
    "float16": (0x7C00, 0xFC00, 0x7E01),
    "uint16": (0x7F80, 0xFF80, 0x7FC1),
    "float32": (0x7F800000, 0xFF800000, 0x7FC00001),
    "float64": (0x7FF << 52, 0xFFF << 52, (0x7FF << 52) + 1),
}


def check_non_finite(cuda, dtype: str, sizes, shift: int) -> None:
    """Nothing is found in numbers of all sizes; an infinity or NaN at any place is."""
    bits = {2: np.uint16, 4: np.uint32, 8: np.uint64}[np.dtype(dtype).itemsize]
    total = sum(sizes)
    # Everything below the exponent of infinities, and its negative.
    clean = (np.arange(total, dtype=np.float64) / max(total, 1) * NON_FINITE[dtype][0]).astype(bits)
    clean[::2] |= bits(1 << (8 * clean.itemsize - 1))
    code = DTYPE_CODES[dtype]

    def found(values, before=0):
        arena = Arena({"grad": values}, {"grad": shift})
        device = cuda.upload(arena.image)
        return cuda.find_non_finite(code, gradients(arena, sizes, device.pointer), before)

    assert found(clean) == 0, dtype
    assert found(clean, before=1) == 1, "an earlier finding was taken back"
    places = {0, total - 1, total // 2, *itertools.accumulate(sizes[:3])} & set(range(total))
    for place, bad in itertools.product(sorted(places), NON_FINITE[dtype]):
        values = clean.copy()
        values[place] = bad
        assert found(values) == 1, f"{dtype} {bad:x} at {place}"
