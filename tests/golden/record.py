# SPDX-License-Identifier: BSD-2-Clause
"""Runs the cases through real PyTorch on the CPU and writes what comes out; see README.md.

python -m tests.golden.record            # writes the recordings
python -m tests.golden.record --check    # runs again and compares the correctly rounded run, bit for bit
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform

import numpy as np
import torch

from tests import cases
from tests.golden import recording


class CorrectSqrt:
    """While active, PyTorch's square roots are IEEE's. numpy's are: it uses the processor's instruction."""

    def __init__(self):
        self.calls = 0

    def of(self, tensor):
        self.calls += 1
        with np.errstate(invalid="ignore"):
            return torch.from_numpy(np.array(np.sqrt(tensor.numpy())))

    def into(self, tensor):
        return tensor.copy_(self.of(tensor))

    @contextlib.contextmanager
    def active(self):
        """All four functions that the optimizer may call are replaced; afterwards PyTorch is as before."""
        with contextlib.ExitStack() as stack:
            self._replace(stack, torch.Tensor, "sqrt", lambda tensor: self.of(tensor))
            self._replace(stack, torch.Tensor, "sqrt_", lambda tensor: self.into(tensor))
            self._replace(
                stack, torch, "_foreach_sqrt", lambda tensors: [self.of(tensor) for tensor in tensors]
            )
            self._replace(
                stack, torch, "_foreach_sqrt_", lambda tensors: [self.into(tensor) for tensor in tensors]
            )
            yield

    @staticmethod
    def _replace(stack, owner, name, function):
        if name in vars(owner):
            stack.callback(setattr, owner, name, vars(owner)[name])
        else:  # inherited: what is set here hides it until it is deleted
            stack.callback(delattr, owner, name)
        setattr(owner, name, function)


def snapshot(optimizer, params) -> list:
    entries = []
    for param in params:
        state = optimizer.state.get(param, {})
        entry = {"step": int(state.get("step", 0)), "param": param.detach().numpy().copy()}
        unexpected = set(state) - {"step", *recording.NAMES}
        if unexpected:
            raise RuntimeError(f"PyTorch has a state that the recording does not know: {sorted(unexpected)}")
        for name in recording.NAMES[1:]:
            if name in state:
                entry[name] = state[name].numpy().copy()
        entries.append(entry)
    return entries


def make_step(case, dtype, step, optimizer, params) -> None:
    """Make a step of a case."""
    for group in optimizer.param_groups:
        group.update(case.schedule.get(step, {}))
    for place, param in enumerate(params):
        grad = case.gradient(step, place, dtype)
        param.grad = None if grad is None else torch.from_numpy(np.array(grad))
    optimizer.step()


def run(case, dtype, foreach) -> list:
    """A snapshot after each step."""
    params = [torch.nn.Parameter(torch.from_numpy(np.array(array))) for array in case.parameters(dtype)]
    groups = [dict(options, params=[params[i] for i in places]) for options, places in case.groups()]
    optimizer = torch.optim.RMSprop(groups, foreach=foreach)
    snapshots = []
    for step in range(case.steps):
        make_step(case, dtype, step, optimizer, params)
        snapshots.append(snapshot(optimizer, params))
    return snapshots


def crcs(snapshots) -> np.ndarray:
    return np.array([[recording.crc(entry) for entry in entries] for entries in snapshots], dtype=np.uint32)


def run_both_ways(case, dtype) -> list:
    """PyTorch promises the same numbers with and without foreach; on the CPU they are the same bits."""
    loop, foreach = run(case, dtype, False), run(case, dtype, True)
    if not np.array_equal(crcs(loop), crcs(foreach)):
        raise RuntimeError(f"{case}, {dtype}: PyTorch's foreach and for-loop differ")
    return loop


def run_ieee(case, dtype) -> list:
    sqrt = CorrectSqrt()
    with sqrt.active():
        snapshots = run_both_ways(case, dtype)
    updates = sum(entry["step"] for entry in snapshots[-1])
    if sqrt.calls != 2 * updates:
        raise RuntimeError(
            f"{case}, {dtype}: {sqrt.calls} square roots in twice {updates} updates: some were not replaced"
        )
    return snapshots


def record(dtype) -> dict:
    meta = {
        "format": recording.FORMAT,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "cases": {},
    }
    arrays = {}
    for case in cases.TORCH_CASES + cases.TORCH_EDGE_CASES:
        native, ieee = run_both_ways(case, dtype), run_ieee(case, dtype)
        runs = {"native": native[-1], "ieee": ieee[-1], "early": ieee[recording.EARLY - 1]}
        meta["cases"][case.name] = {name: recording.describe(entries) for name, entries in runs.items()}
        meta["cases"][case.name]["inputs"] = recording.inputs_crc(case, dtype)
        arrays.update({f"{case.name}/{name}": recording.pack(entries) for name, entries in runs.items()})
        arrays[f"{case.name}/crcs"] = crcs(ieee)
    return dict(arrays, meta=np.array(json.dumps(meta)))


def check(dtype, of_cases, run, name) -> int:
    """How many cases a run in correctly rounded arithmetic leaves the recording of this name in."""
    recorded = recording.Recording(dtype, name)
    wrong = [
        case.name for case in of_cases if not np.array_equal(crcs(run(case, dtype)), recorded.crcs(case))
    ]
    print(f"{dtype}: {len(recorded.meta['cases'])} cases, {len(wrong)} differ {wrong}")
    return len(wrong)


def write_or_check(description, versions, record, of_cases, run, name="rmsprop") -> None:
    """The command line of a recorder; `record` and `run` as in this file."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="compare with the recordings instead of writing them"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(versions)
    if arguments.check:
        raise SystemExit(1 if sum(check(dtype, of_cases, run, name) for dtype in recording.DTYPES) else 0)
    for dtype in recording.DTYPES:
        path = recording.path(dtype, name)
        np.savez_compressed(path, **record(dtype))
        print(f"{path.name}: {path.stat().st_size} bytes")


def differing(path, recorded) -> list:
    """The names of the arrays of which a file has other bits."""
    with np.load(path, allow_pickle=False) as kept:
        return [
            name
            for name in sorted(set(kept.files) | set(recorded))
            if name not in kept.files
            or name not in recorded
            or kept[name].tobytes() != recorded[name].tobytes()
        ]


def write_or_check_file(description, path, record) -> None:
    """The command line of a recorder of one file; `record()` gives all its arrays."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    torch.set_num_threads(1)
    recorded = record()
    if check:
        wrong = differing(path, recorded)
        print(f"{len(recorded)} arrays, differing: {wrong}")
        raise SystemExit(1 if wrong else 0)
    np.savez_compressed(path, **recorded)
    print(f"{path.name}: {path.stat().st_size} bytes")


def main():
    versions = f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"
    write_or_check(__doc__, versions, record, cases.TORCH_CASES + cases.TORCH_EDGE_CASES, run_ieee)


if __name__ == "__main__":
    main()
