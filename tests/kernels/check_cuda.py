# SPDX-License-Identifier: BSD-2-Clause
"""Check the CUDA kernels on a GPU, bit for bit against the CPU's: `python tests/kernels/check_cuda.py`.

Builds both libraries for this card, runs every form, dtype, alignment, shape of list and special value, then
streams that race, graphs that are replayed, more elements than 32 bits count, and a short selection of it all
under compute-sanitizer. Needs nvcc, g++, NumPy, and PyTorch or CuPy; no Dragon. The results go to
out/cuda/check.json, each as soon as it is there. Some minutes.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import platform
import sys
import threading
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# Without this folder, where Python looks first: nobody's `import library` is for a file of ours.
sys.path[:] = [str(ROOT), *(path for path in sys.path if Path(path).resolve() != HERE)]

import numpy as np  # noqa: E402

from benchmarks.commit import commit  # noqa: E402
from tests.kernels import (  # noqa: E402
    card,
    clip_cases,
    device_memory,
    library,
    sanitizer,
)
from tests.kernels import cuda_cases as cases  # noqa: E402
from tests.kernels.cuda_cases import DTYPES, GRAD_DTYPES, SHIFTS, Arena, Case  # noqa: E402
from tests.kernels.cuda_library import BUILT, CudaLibrary, HostArray, build, nvcc_version  # noqa: E402
from tests.kernels.forms import FORMS, RICH  # noqa: E402
from tests.kernels.sanitizer import TOOLS  # noqa: E402

OUTPUT = ROOT / "out" / "cuda" / "check.json"
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


def clipping(cuda, memory, quick) -> int:
    """Norms over lists, and what clips by them in place."""
    sizes = [*range(30), 0, 4095, 4096, 4097, 50001] + ([] if quick else [3_000_001])
    changes = [("scale", 0.3), ("clamp", 0.3)]
    for dtype in GRAD_DTYPES:
        for shift, order in itertools.product((0, 1, 3), clip_cases.ORDERS):
            clip_cases.check_norm(cuda, dtype, order, sizes, shift)
        for order in clip_cases.ORDERS[:: 2 if quick else 1]:
            clip_cases.check_special_norms(cuda, dtype, order)
        for shift, (name, number) in itertools.product((0, 1, 3), changes):
            clip_cases.check_change(cuda, name, dtype, number, sizes, shift)
        clip_cases.check_special_changes(cuda, dtype)
    many = [index % 5 for index in range(3000)]
    for order in clip_cases.ORDERS:
        clip_cases.check_norm(cuda, "float32", order, many, 1)
    for name, number in changes:
        clip_cases.check_change(cuda, name, "float32", number, many, 1)
    clip_cases.check_factors(cuda)
    return len(GRAD_DTYPES) * (3 * 5 + (3 if quick else 5) + 6 + 1) + 5 + 2 + 1


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
    clipping,
    special_values,
    skipping,
    racing_streams,
    graphs,
    beyond_32_bits,
]


# --- all of it ---------------------------------------------------------------------------------------------


def run_checks(cuda, memory, chosen, quick: bool, written) -> dict:
    """Calls written(results) after each. One that fails does not keep the others from running."""
    results = {}
    for check in chosen:
        name, begin = check.__name__, time.monotonic()
        try:
            count = check(cuda, memory, quick)
        except Exception as error:
            traceback.print_exc(limit=-3, file=sys.stdout)
            found, said = {"failed": device_memory.first_line(error)}, "FAILED"
        else:
            found, said = {"cases": count}, f"{count} cases, the same bits" if count else "left out"
        results[name] = {**found, "seconds": round(time.monotonic() - begin, 1)}
        print(f"  {name}: {said} ({results[name]['seconds']} s)", flush=True)
        written(results)
    return results


def few_kernels(memory) -> str:
    """CuPy where it works: it has fewer kernels of its own loaded, all of which a tool looks at."""
    try:
        return device_memory.find("cupy").name
    except device_memory.NoGpuError:
        return memory.name


def run_sanitizer(memory, chosen, seconds: float, written) -> dict:
    """The same of a short selection under each tool."""
    command = [sys.executable, __file__, "--quick", "--built", "--no-sanitizer"]
    command += ["--memory", few_kernels(memory)]
    command += ["--json", os.devnull, "--only", *(check.__name__ for check in chosen)]
    results = {}
    for tool in TOOLS:
        results[tool], printed = sanitizer.sanitize(tool, command, seconds)
        if results[tool] not in (sanitizer.CLEAN, sanitizer.NOT_INSTALLED):
            print("\n".join(printed.splitlines()[-30:]))
        print(f"  compute-sanitizer {tool}: {results[tool]}", flush=True)
        written(results)
    return results


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a short selection of each check")
    parser.add_argument("--built", action="store_true", help="take the libraries in build/native as they are")
    names = [check.__name__ for check in CHECKS]
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="CHECK", help=f"of {', '.join(names)}"
    )
    tools = parser.add_mutually_exclusive_group()
    tools.add_argument("--no-sanitizer", action="store_true", help="leave compute-sanitizer out")
    tools.add_argument("--only-sanitizer", action="store_true", help="compute-sanitizer, and nothing before")
    parser.add_argument(
        "--sanitizer-seconds", type=float, default=SANITIZER_SECONDS, help="for each tool (%(default)s)"
    )
    parser.add_argument(
        "--memory", default="", choices=["", "torch", "cupy"], help="whose (the first that works)"
    )
    parser.add_argument("--commit", help="of these sources, where there is no git to ask")
    parser.add_argument(
        "--json", type=Path, default=OUTPUT, help="where the results go (out/cuda/check.json)"
    )
    return parser.parse_args()


def describe(cuda, memory, named_commit: str | None) -> dict:
    return {
        "kind": "cuda check",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": named_commit or commit(),
        "card": {"name": memory.card, "capability": memory.capability, **card.ask(card.DRIVER)},
        "architectures": cuda.handle.dragon_optim_cuda_architectures().decode(),
        "cpu_instruction_set": library.isa(),
        "versions": {
            memory.name: memory.version,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "nvcc": nvcc_version(),
        },
    }


def earlier_checks(file: Path, report: dict) -> dict:
    """Those of a run before, of the same sources on the same card: the tools' results join them."""
    try:
        earlier = json.loads(file.read_text(encoding="utf-8"))
        same = all(earlier[part] == report[part] for part in ("kind", "commit", "card"))
    except (OSError, ValueError, KeyError):
        return {}
    return {part: earlier[part] for part in ("checks", "quick")} if same else {}


def good(report: dict) -> bool:
    failed = [found for found in report["checks"].values() if "failed" in found]
    said = {*report["sanitizer"].values()} - {sanitizer.CLEAN, sanitizer.NOT_INSTALLED}
    return not failed and not said


def main() -> int:
    arguments = parse_arguments()
    card.count_as_nvidia_smi_does()
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
    kept = str(arguments.json) != os.devnull  # the run under compute-sanitizer keeps nothing
    report = describe(cuda, memory, arguments.commit) if kept else {}
    report.update({"quick": arguments.quick, "checks": {}, "sanitizer": {}})
    if arguments.only_sanitizer:
        report.update(earlier_checks(arguments.json, report))

    def write(part: str, results: dict) -> None:
        """At once: whoever interrupts the run keeps what there is."""
        report[part] = results
        report["seconds"] = round(time.monotonic() - begin, 1)
        if kept:
            card.write_whole(arguments.json, json.dumps(report, indent=2) + "\n")

    built_for = cuda.handle.dragon_optim_cuda_architectures().decode()
    print(f"{memory.card}, kernels for {built_for}, the CPU with {library.isa()}", flush=True)
    chosen = [check for check in CHECKS if check.__name__ in arguments.only]
    if not arguments.only_sanitizer:
        run_checks(cuda, memory, chosen, arguments.quick, lambda results: write("checks", results))
    if not arguments.no_sanitizer:
        seconds = arguments.sanitizer_seconds
        run_sanitizer(memory, chosen, seconds, lambda results: write("sanitizer", results))
    if kept:
        print(f"Written to {arguments.json}")
    print("All good." if good(report) else "NOT all good: see above.")
    return 0 if good(report) else 1


if __name__ == "__main__":
    sys.exit(main())
