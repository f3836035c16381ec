# SPDX-License-Identifier: BSD-2-Clause
"""The CUDA sources, compiled for the CPU by an emulation of CUDA, against the CPU kernels, bit for bit.

What that cannot show stands in `emulated_cuda/cuda_runtime.h`; `check_cuda.py` is for a GPU.
"""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from tests.kernels import cuda_cases as cases
from tests.kernels import library
from tests.kernels.cuda_cases import DTYPES, GRAD_DTYPES, SHIFTS, Case
from tests.kernels.cuda_library import HostArray
from tests.kernels.emulation import Emulated
from tests.kernels.float_mode import MODES, float_mode, needs_x86
from tests.kernels.forms import FORMS, RICH
from tests.kernels.library import DTYPE_CODES

LENGTHS = [*range(1, 20), 255, 256, 257, 1023, 2047, 2048, 2049, 4095, 4096, 4097, 10001]


@pytest.fixture(params=[False, True], ids=["forward", "reversed"])
def small_device(cuda, request):
    """Eight blocks at a time, so that blocks go round; in both orders."""
    cuda.device(multiprocessors=1, threads=256, reverse=request.param)
    return cuda


@pytest.mark.parametrize("dtypes", DTYPES, ids="/".join)
def test_every_form(cuda, dtypes):
    for number, options in enumerate(FORMS):
        cases.check(cuda, Case(dtypes, options, [133], SHIFTS[number % len(SHIFTS)]))


@pytest.mark.parametrize("dtypes", DTYPES, ids="/".join)
def test_every_form_with_the_numbers_on_the_device(cuda, dtypes):
    for number, options in enumerate(FORMS):
        cases.check_numbers(cuda, Case(dtypes, options, [57, 9], SHIFTS[number % len(SHIFTS)], steps=1))


@pytest.mark.parametrize("dtypes", DTYPES, ids="/".join)
def test_lengths_and_alignments(cuda, dtypes):
    for number, length in enumerate(LENGTHS):
        chosen = SHIFTS if length < 20 else [SHIFTS[number % len(SHIFTS)], SHIFTS[-1]]
        for shifts in chosen:
            cases.check(cuda, Case(dtypes, RICH, [length], shifts, steps=1))


@pytest.mark.parametrize("check", [cases.check, cases.check_numbers])
@pytest.mark.parametrize("dtypes", DTYPES, ids="/".join)
def test_more_chunks_than_blocks(small_device, dtypes, check):
    # First with other options: they stay in the emulation's shared memory, for threads that do not wait.
    check(small_device, Case(dtypes, {"lr": 0.5, "maximize": True}, [5], steps=1))
    check(small_device, Case(dtypes, RICH, [40001, 0, 3, 5000], SHIFTS[1]))


@pytest.mark.parametrize("count", [0, 1, 58, 59, 60, 506, 507, 508, 567, 1000])
def test_lists_around_the_capacity_of_a_launch(cuda, count):
    cases.check(cuda, Case(DTYPES[0], RICH, [index % 7 for index in range(count)]))


@pytest.mark.parametrize("dtypes", [DTYPES[0], DTYPES[5]], ids="/".join)
def test_8193_tensors(cuda, dtypes):
    sizes = [index % 5 for index in range(8191)] + [30000, 0]
    cases.check(cuda, Case(dtypes, dict(RICH, clip_norm=0.5), sizes, SHIFTS[1], steps=1))


def test_launches(cuda):
    """1000 tensors take two, and as many more for their norms; one takes one; none takes none."""
    for sizes, options, expected in [
        ([100] * 1000, {"momentum": 0.9}, 2),
        ([100] * 1000, {"momentum": 0.9, "clip_norm": 1.0}, 4),
        ([100], {}, 1),
        ([0] * 50, {}, 0),
        ([], {"clip_norm": 1.0}, 0),
    ]:
        cuda.launches()
        cases.check(cuda, Case(DTYPES[0], options, sizes, steps=1))
        assert cuda.launches() == expected, (len(sizes), options)


def test_chunks_of_more_elements_than_32_bits_count(cuda):
    sizes = [5, 0, (1 << 31) + 4099, (1 << 45) + 1, 7]
    chunks = [-(-size // 2048) for size in sizes]
    places = [(2, 0), (2, chunks[2] - 1), (3, 0), (3, (1 << 33) + 1), (3, chunks[3] - 1), (4, 0)]
    for tensor, inside in places:
        expected = [tensor, inside * 2048, min(2048, sizes[tensor] - inside * 2048)]
        assert cuda.chunk(sizes, 2048, sum(chunks[:tensor]) + inside) == (sum(chunks), expected)
    cuda.device(multiprocessors=132, threads=2048)
    assert cuda.grid(sum(chunks), 256) == cuda.grid(1 << 32, 256) == 8 * 132 * 8


def test_a_driver_that_is_older_than_the_toolkit(cuda):
    """It takes short lists of arguments only: 1000 tensors in 17 launches instead of 2, their norms in 14."""
    case = Case(DTYPES[0], {"momentum": 0.9, "clip_norm": 1.0}, [100] * 1000, steps=1)
    for version, expected in ((12000, 17 + 2 * 7), (12010, 2 + 2 * 1)):
        cuda.driver(version)
        cuda.launches()
        cases.check(cuda, case)
        assert cuda.launches() == expected


@pytest.mark.parametrize("dtypes", DTYPES, ids="/".join)
def test_clip_norm(small_device, dtypes):
    sizes = [0, 1, 4095, 4096, 4097, 3 * 4096 + 5, 100, 20]
    for clip_norm in (0.5, 1e30):
        for shifts in (SHIFTS[0], SHIFTS[-1]):
            options = {"clip_norm": clip_norm, "grad_scale": 3.0}
            cases.check(small_device, Case(dtypes, options, sizes, shifts, steps=1))


def test_norms_of_more_blocks_than_a_tile_of_sums(small_device):
    cases.check_norms(small_device, "float16", [1024 * 4096 + 4099, 5], shift=1, scale=0.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtypes", DTYPES[:4], ids="/".join)
def test_clip_norm_of_gradients_that_are_not_finite(cuda, dtypes, bad):
    grad = cases.random_array(5000, dtypes[1], 0)
    grad[4321] = bad
    cases.check(cuda, Case(dtypes, {"clip_norm": 1.0}, [5000], steps=1, buffers={"grad": grad}))


@pytest.mark.parametrize("dtypes", DTYPES, ids="/".join)
@pytest.mark.parametrize("options", cases.SPECIAL_OPTIONS, ids=str)
def test_special_values(cuda, dtypes, options):
    cases.check_special_values(cuda, dtypes, options)


@pytest.mark.parametrize("dtype", library.SHORT)
def test_all_halves(cuda, dtype):
    cases.check_all_halves(cuda, dtype)


@pytest.mark.parametrize("flag", [0, 1, -1])
def test_skip(cuda, flag):
    """A flag that is set leaves everything as it was, its norms having been taken or not."""
    for options in (RICH, {"clip_norm": 0.1}):
        case = Case(DTYPES[0], options, [3000, 7])
        skip = cuda.upload(np.array([flag], np.int32))
        cases.check_update(cuda, case, skip=skip, on_host=None if flag else options)


def test_parts_that_are_off_stay_off_whatever_the_numbers_say(cuda):
    """Numbers on the device can switch on other parts, but none that needs memory which the call lacks."""
    numbers = library.make_options({"momentum": 0.9, "clip_norm": 1e-3, "clip_value": 0.4})
    on_device = cuda.upload(np.array([getattr(numbers, name) for name in library.NUMBERS]))
    cases.check_update(cuda, Case(DTYPES[0], {}, [300]), numbers=on_device, on_host={"clip_value": 0.4})


@pytest.mark.parametrize(
    ("options", "numbers"),
    [({"momentum": 0.9}, {"momentum": 0.0}), ({"clip_norm": 0.1}, {"clip_norm": 0.0, "clip_value": 0.4})],
    ids=["momentum", "clip_norm"],
)
def test_numbers_on_the_device_switch_parts_off(cuda, options, numbers):
    given = library.make_options(numbers)
    on_device = cuda.upload(np.array([getattr(given, name) for name in library.NUMBERS]))
    cases.check_update(cuda, Case(DTYPES[0], options, [300]), numbers=on_device, on_host=numbers)


@pytest.mark.parametrize("dtype", GRAD_DTYPES)
def test_accumulate(small_device, dtype):
    for shifts in ({}, {"grad": 1, "sum": 1}, {"grad": 3}, {"sum": 2}):
        cases.check_accumulate(small_device, dtype, [*range(30), 4096, 50001, 0, 4097], shifts)
    cases.check_accumulate(small_device, dtype, [index % 3 for index in range(3000)], {})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fill(small_device, dtype):
    for shift in (0, 1, 3):
        cases.check_fill(small_device, dtype, [0, 1, 255, 256, 257, 10001], shift)


def test_fill_of_what_it_cannot(cuda):
    cuda.launches()
    memory = np.zeros(8)
    for dtype, pointer, size, message in [
        (0, memory.ctypes.data, 8, "Invalid dtype of an array to fill"),
        (2, 0, 8, "Invalid data: null"),
        (2, memory.ctypes.data + 4, 4, "Invalid data: its address is no multiple of the 8 bytes"),
        (2, memory.ctypes.data, -1, "Invalid size: -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            cuda.fill(dtype, pointer, size, 1.0)
    assert cuda.launches() == 0
    assert (memory == 0).all()


@needs_x86
@pytest.mark.parametrize("bits", MODES.values(), ids=MODES)
def test_the_callers_float_mode_changes_nothing(cuda, bits):
    """What is computed before the launch has the bits that the device would give it."""
    options = {"lr": 0.1, "momentum": 0.7, "eps": 1e-40, "weight_decay": 3e-39, "clip_norm": 1.0}
    filled = HostArray(np.zeros(3, np.float32))
    with float_mode(bits):
        cases.check(cuda, Case(DTYPES[0], options, [300], steps=1))
        cuda.fill(DTYPE_CODES["float32"], filled.pointer, 3, 1.1e-39)
    assert (filled.read().view(np.float32) == np.float32(1.1e-39)).all()


@pytest.mark.parametrize("dtype", GRAD_DTYPES)
def test_norms(small_device, dtype):
    sizes = [*range(40), 0, 4095, 4096, 4097, 70000, *[9] * 300]  # more than all blocks take at a time
    for shift, scale in ((0, 1.0), (1, -0.3), (3, 7.0)):
        cases.check_norms(small_device, dtype, sizes, shift, scale)


@pytest.mark.parametrize("dtype", GRAD_DTYPES)
def test_non_finite(small_device, dtype):
    for shift in (0, 1, 5):
        cases.check_non_finite(small_device, dtype, [1, 0, 4096, 5, 9000], shift)


def test_the_emulation_refuses_what_a_device_would(cuda):
    array, last = HostArray(np.arange(8, dtype=np.float32)), ctypes.c_float()
    for element, status in ((0, 0), (1, 716), (4, 0)):
        pointer = ctypes.c_void_p(array.pointer + 4 * element)
        assert cuda.handle.emulated_cuda_load_four(pointer, ctypes.byref(last)) == status
    assert last.value == 7


def test_the_callers_stream(cuda):
    cases.check(cuda, Case(DTYPES[0], {"clip_norm": 1.0}, [10]))
    assert cuda.handle.emulated_cuda_last_stream() == Emulated.STREAM


@pytest.mark.parametrize("good_launches", [0, 1, 2])
def test_a_failed_launch_is_an_error(cuda, good_launches):
    """Of the squares, of the norms, of the update; and nobody else gets to see it."""
    cuda.fail_after(good_launches)
    case = Case(DTYPES[0], {"clip_norm": 1.0}, [10], steps=1)
    with pytest.raises(ValueError, match="CUDA error at the .*: too many resources .*OutOfResources"):
        cases.check(cuda, case)
    assert cuda.handle.emulated_cuda_last_error() == 0
    cuda.fail_after(-1)
    cases.check(cuda, case)


def test_a_card_that_the_kernels_are_not_compiled_for(cuda):
    cuda.fail_after(0, status=209)
    message = "no kernel image .* compiled for emulated: build them with DRAGON_OPTIM_CUDA_ARCHS set to this"
    with pytest.raises(ValueError, match=message):
        cases.check(cuda, Case(DTYPES[0], {}, [10], steps=1))


def tensors(**changed):
    given = (library.Tensor * 2)()
    memory = np.zeros(64)
    for tensor in given:
        tensor.size = 8
        for name in library.BUFFERS:
            setattr(tensor, name, memory.ctypes.data)
    for name, value in changed.items():
        setattr(given[1], name, value)
    return given, memory


WRONG = [
    ((1, 1), {}, {"size": -1}, "Invalid size of tensor 1: -1"),
    ((1, 1), {}, {"param": 0}, "Invalid param of tensor 1: null"),
    ((1, 1), {}, {"grad": 0x1002}, "Invalid grad of tensor 1: its address is no multiple of the 4 bytes"),
    (
        (2, 2),
        {},
        {"square_avg": 0x1004},
        "Invalid square_avg of tensor 1: its address is no multiple of the 8 bytes",
    ),
    ((1, 1), {"momentum": 0.9}, {"momentum_buffer": 0}, "Invalid momentum_buffer of tensor 1: null"),
    ((1, 1), {"centered": True}, {"grad_avg": 0}, "Invalid grad_avg of tensor 1: null"),
    ((0, 1), {}, {"master_param": 0}, "Invalid master_param of tensor 1: null"),
    ((3, 3), {}, {"master_param": 0}, "Invalid master_param of tensor 1: null"),
    ((1, 2), {}, {}, "Invalid dtype of the gradients"),
    ((1, 0), {}, {}, "Invalid dtype of the gradients"),
    ((4, 4), {}, {}, "Invalid dtype code: 4"),
]


@pytest.mark.parametrize(("codes", "options", "changed", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_arguments_launch_nothing(cuda, codes, options, changed, message):
    cuda.launches()
    given, memory = tensors(**changed)
    with pytest.raises(ValueError, match=message):
        cuda.rmsprop(*codes, options, given)
    assert cuda.launches() == 0
    assert (memory == 0).all()


def test_a_small_workspace_is_an_error(cuda):
    given, _memory = tensors()
    options = library.make_options({"clip_norm": 1.0})
    assert cuda.rmsprop_workspace(options, given) == 4 * 8
    with pytest.raises(ValueError, match=r"Invalid workspace: 31 bytes \(need 32\)"):
        cuda.call(
            "rmsprop",
            1,
            1,
            ctypes.byref(options),
            None,
            None,
            given,
            ctypes.c_int64(2),
            None,
            ctypes.c_int64(31),
        )


def test_some_momentum_buffers_are_an_error_where_the_numbers_are_on_the_device(cuda):
    given, _memory = tensors(momentum_buffer=0)
    with pytest.raises(ValueError, match="Invalid momentum_buffer: some tensors have one"):
        cuda.rmsprop(1, 1, {}, given, numbers=cuda.upload(np.zeros(8)))
