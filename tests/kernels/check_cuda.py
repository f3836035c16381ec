# SPDX-License-Identifier: BSD-2-Clause
"""Check the CUDA kernels on a GPU, bit for bit against the CPU's: `python tests/kernels/check_cuda.py`.

Builds both libraries for this card, runs every form, dtype, alignment, shape of list and special value, then
streams that race, graphs that are replayed, more elements than 32 bits count, and a short selection of it all
under compute-sanitizer. Needs nvcc, g++, NumPy, and PyTorch or CuPy; no Dragon. The results go to
out/cuda/check.json. Some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from tests.kernels import cuda_cases as cases  # noqa: E402
from tests.kernels import device_memory, library  # noqa: E402
from tests.kernels.cuda_cases import DTYPES, GRAD_DTYPES, SHIFTS, Arena, Case  # noqa: E402
from tests.kernels.cuda_library import BUILT, CudaLibrary, HostArray, build  # noqa: E402
from tests.kernels.forms import FORMS, RICH  # noqa: E402

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
SANITIZER_SECONDS = 80  # for each tool
NO_GPU = 3

LENGTHS = [*range(1, 40), 255, 256, 257, 2047, 2048, 2049, 4095, 4096, 4097, 100003]


# --- what is checked; each function gives the number of its cases ------------------------------------------


def forms(cuda, memory, quick) -> int:
    chosen = FORMS[:: 17 if quick else 1]
    for dtypes in DTYPES:
        for number, options in enumerate(chosen):
            cases.check(cuda, Case(dtypes, options, [133], SHIFTS[number % len(SHIFTS)]))
    return len(DTYPES) * len(chosen)


def numbers_on_the_device(cuda, memory, quick) -> int:
    chosen = FORMS[:: 23 if quick else 1]
    for dtypes in DTYPES:
        for number, options in enumerate(chosen):
            cases.check_numbers(cuda, Case(dtypes, options, [57, 9], SHIFTS[number % len(SHIFTS)], steps=1))
    return len(DTYPES) * len(chosen)


def alignments(cuda, memory, quick) -> int:
    count = 0
    for dtypes in DTYPES:
        for length in (5, 2049) if quick else LENGTHS:
            for shifts in SHIFTS:
                cases.check(cuda, Case(dtypes, RICH, [length], shifts, steps=1))
                count += 1
    return count


def lists(cuda, memory, quick) -> int:
    counts = (0, 1, 60, 508) if quick else (0, 1, 58, 59, 60, 61, 506, 507, 508, 509, 566, 567, 568, 1000)
    for count in counts:
        cases.check(cuda, Case(DTYPES[0], RICH, [index % 7 for index in range(count)]))
    if quick:
        return len(counts)
    sizes = [index % 23 for index in range(8191)] + [50000, 0]
    for dtypes in DTYPES:
        cases.check(cuda, Case(dtypes, dict(RICH, clip_norm=0.5), sizes, SHIFTS[1], steps=1))
    return len(counts) + len(DTYPES)


def large_tensors(cuda, memory, quick) -> int:
    """More chunks than blocks, and more blocks of a norm than a tile of their sums."""
    if quick:
        cases.check(cuda, Case(DTYPES[0], dict(RICH, clip_norm=0.5), [70001], SHIFTS[0], steps=1))
        return 1
    for dtypes in DTYPES:
        for options in (RICH, {"clip_norm": 1.0, "momentum": 0.9}):
            cases.check(cuda, Case(dtypes, options, [5_000_011, 3], SHIFTS[1], steps=1))
    cases.check(cuda, Case(DTYPES[0], RICH, [40_000_003], SHIFTS[-1], steps=1))
    return 2 * len(DTYPES) + 1


def gradients(cuda, memory, quick) -> int:
    """Sums, norms, infinities and NaNs; and filling."""
    sizes = [*range(30), 0, 4095, 4096, 4097, 50001]
    for dtype in GRAD_DTYPES:
        for shifts in ({}, {"grad": 1, "sum": 1}, {"grad": 3}, {"sum": 2}):
            cases.check_accumulate(cuda, dtype, sizes, shifts)
        for shift, scale in ((0, 1.0), (1, -0.3), (3, 7.0)):
            cases.check_norms(cuda, dtype, sizes, shift, scale)
            cases.check_non_finite(cuda, dtype, [1, 0, 4096, 5, 9000], shift)
    for dtype in ("float32", "float64"):
        cases.check_fill(cuda, dtype, [0, 1, 255, 256, 257, 3_000_001], shift=1)
    return 10 * len(GRAD_DTYPES) + 2


def special_values(cuda, memory, quick) -> int:
    """Denormals, infinities, NaNs, every exponent; every float16 and bfloat16."""
    chosen = cases.SPECIAL_OPTIONS[:: 3 if quick else 1]
    for dtypes in DTYPES:
        for options in chosen:
            cases.check_special_values(cuda, dtypes, options)
    for dtype in library.SHORT:
        cases.check_all_halves(cuda, dtype)
    return 2 * len(DTYPES) * len(chosen) + len(library.SHORT)


def skipping(cuda, memory, quick) -> int:
    for flag in (0, 1):
        skip = memory.upload(np.array([flag], np.int32))
        cases.check_update(cuda, Case(DTYPES[0], RICH, [3000, 7]), skip=skip, on_host=None if flag else RICH)
    return 2


def racing_streams(cuda, memory, quick) -> int:
    """Threads with a stream each, over the same library at once; every one gets its own result."""
    repetitions = 3 if quick else 30
    case = Case(DTYPES[0], dict(RICH, clip_norm=0.5), [1 << 18, 3, 70001], SHIFTS[1])
    failures = []

    def run(seed: int) -> None:
        try:
            stream, pointer = memory.new_stream()
            mine = CudaLibrary(cuda.path, memory.upload, pointer)
            mine.kept = stream
            for _ in range(repetitions):
                grad = cases.random_array(sum(case.sizes), "float32", seed)
                cases.check(mine, Case(case.dtypes, case.options, case.sizes, case.shifts, 3, {"grad": grad}))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return repetitions * len(threads)


STEPS_OF_A_GRAPH = [
    {"lr": 0.1},
    {"lr": 0.03, "alpha": 0.4},
    {"lr": 0.3, "weight_decay": 0.01},
    {"momentum": 0.0},
]


def check_graph(cuda, memory, dtypes) -> None:
    options = {"momentum": 0.9, "centered": True, "clip_norm": 0.7}
    case = Case(dtypes, options, [5000] * 70, SHIFTS[0])
    arena = Arena(case.start(), case.shifts)
    host, device, other = HostArray(arena.image), memory.upload(arena.image), memory.upload(arena.image)
    on_host, on_device, on_other = ((library.Tensor * len(case.sizes))() for _ in range(3))
    for tensors, array in ((on_host, host), (on_device, device), (on_other, other)):
        arena.fill(tensors, case.sizes, array.pointer)
    numbers = memory.upload(np.zeros(8))
    size = cuda.rmsprop_workspace(library.make_options(options), on_device)
    workspace = cuda.scratch(size)
    cuda.rmsprop(*case.codes, options, on_other, numbers)  # loads the kernels, which a capture may not

    def launch(stream):
        captured = CudaLibrary(cuda.path, memory.upload, stream)
        captured.launch_rmsprop(*case.codes, options, on_device, workspace, size, numbers)

    replay = memory.capture(launch)
    for changed in STEPS_OF_A_GRAPH:
        current = library.make_options(dict(options, **changed))
        numbers.write(np.array([getattr(current, name) for name in library.NUMBERS]))
        memory.synchronize()
        replay()
        memory.synchronize()
        library.call_update(*case.codes, dict(options, **changed), on_host, threads=1)
    arena.assert_same(device.read(), host.read(), f"graph of {dtypes}")


def graphs(cuda, memory, quick) -> int:
    """A captured step, replayed with other numbers in device memory."""
    for dtypes in DTYPES:
        check_graph(cuda, memory, dtypes)
    return len(DTYPES) * len(STEPS_OF_A_GRAPH)


def beyond_32_bits(cuda, memory, quick) -> int:
    size = (1 << 31) + 4099
    if quick or memory.free_bytes() < 4 * 4 * size:
        print("    left out: it needs 35 GB of the card")
        return 0
    values = {"grad": 0.5, "param": 1.0, "square_avg": 0.25}
    small = {name: HostArray(np.full(4, value, np.float32)) for name, value in values.items()}
    large = {name: memory.full(size, value) for name, value in values.items()}
    for arrays, elements in ((small, 4), (large, size)):
        tensors = (library.Tensor * 1)()
        tensors[0].size = elements
        for name, array in arrays.items():
            setattr(tensors[0], name, array.pointer)
        if arrays is small:
            library.call_update(1, 1, {}, tensors, threads=1)
        else:
            cuda.rmsprop(1, 1, {}, tensors)
    for name in ("param", "square_avg"):
        expected = small[name].read().view(np.float32)[0]
        assert memory.all_equal(large[name], float(expected)), f"{name} of {size} elements"
    return 1


CHECKS = [
    forms,
    numbers_on_the_device,
    alignments,
    lists,
    large_tensors,
    gradients,
    special_values,
    skipping,
    racing_streams,
    graphs,
    beyond_32_bits,
]


# --- all of it ---------------------------------------------------------------------------------------------


def run_checks(cuda, memory, quick: bool) -> dict:
    results = {}
    for check in CHECKS:
        begin = time.monotonic()
        count = check(cuda, memory, quick)
        results[check.__name__] = {"cases": count, "seconds": round(time.monotonic() - begin, 1)}
        print(
            f"  {check.__name__}: {count} cases, the same bits ({results[check.__name__]['seconds']} s)",
            flush=True,
        )
    return results


def sanitize(tool: str) -> str:
    """What a tool of compute-sanitizer says to a short selection: "clean", or what is wrong."""
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(program).exists():
        return "not run: compute-sanitizer is not installed"
    # CuPy first: it loads fewer kernels of its own, all of which the tool looks at.
    names = [name for name in ("cupy", "torch") if device_memory.importlib.util.find_spec(name)]
    command = [
        program,
        "--tool",
        tool,
        "--error-exitcode",
        "9",
        sys.executable,
        __file__,
        "--quick",
        "--built",
    ]
    command += ["--memory", names[0], "--no-sanitizer", "--json", os.devnull]
    try:
        run = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SANITIZER_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not finished in {SANITIZER_SECONDS} s"
    if run.returncode == 0:
        return "clean"
    lines = run.stdout.decode(errors="replace").splitlines()
    print("\n".join(lines[-30:]))
    return f"exit status {run.returncode}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a short selection of each check")
    parser.add_argument("--built", action="store_true", help="take the libraries in build/native as they are")
    parser.add_argument("--no-sanitizer", action="store_true", help="leave compute-sanitizer out")
    parser.add_argument(
        "--memory", default="", choices=["", "torch", "cupy"], help="whose (the first that works)"
    )
    parser.add_argument("--json", type=Path, default=ROOT / "out" / "cuda" / "check.json")
    arguments = parser.parse_args()
    try:
        memory = device_memory.find(arguments.memory)
    except device_memory.NoGpuError as error:
        print(error)
        return NO_GPU
    begin = time.monotonic()
    if not arguments.built:
        build(memory.capability)
    library.use(BUILT / "libdragon_optim_kernels.so")
    cuda = CudaLibrary(BUILT / "libdragon_optim_cuda.so", memory.upload)
    report = {
        "card": memory.card,
        "capability": memory.capability,
        "architectures": cuda.handle.dragon_optim_cuda_architectures().decode(),
        "memory": f"{memory.name} {memory.version}",
        "cpu_instruction_set": library.isa(),
        "numpy": np.__version__,
    }
    print(f"{report['card']}, kernels for {report['architectures']}, the CPU with {library.isa()}")
    report["checks"] = run_checks(cuda, memory, arguments.quick)
    if not arguments.no_sanitizer:
        report["sanitizer"] = {}
        for tool in TOOLS:
            report["sanitizer"][tool] = sanitize(tool)
            print(f"  compute-sanitizer {tool}: {report['sanitizer'][tool]}", flush=True)
    report["seconds"] = round(time.monotonic() - begin, 1)
    if str(arguments.json) != os.devnull:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(f"Written to {arguments.json}")
    dirty = [said for said in report.get("sanitizer", {}).values() if said.startswith("exit status")]
    return 1 if dirty else 0


if __name__ == "__main__":
    sys.exit(main())
