# SPDX-License-Identifier: BSD-2-Clause
"""Runs the cases of `RMSpropTF` through timm's class and writes what comes out; see README.md.

python -m tests.golden.record_timm            # writes the recordings
python -m tests.golden.record_timm --check    # runs again and compares the correctly rounded run, bit for bit
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import platform
import sys
import types

import numpy as np
import torch

from tests import tf_cases
from tests.golden import recording
from tests.golden.record import CorrectSqrt, crcs, make_step, snapshot, write_or_check

FILE = "rmsprop_tf"


def timm_class() -> type:
    """timm's RMSpropTF and the two modules that it needs, without the models and all that they import."""
    root = importlib.util.find_spec("timm").submodule_search_locations[0]
    for name, folder in (("timm", root), ("timm.optim", f"{root}/optim")):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [folder]
    return importlib.import_module("timm.optim.rmsprop_tf").RMSpropTF


RMSpropTF = timm_class()


def make(case, dtype, **arguments):
    params = [torch.nn.Parameter(torch.from_numpy(np.array(array))) for array in case.parameters(dtype)]
    groups = [
        dict(tf_cases.timm_arguments(options), params=[params[i] for i in places])
        for options, places in case.groups()
    ]
    return params, RMSpropTF(groups, **arguments)


def run(case, dtype, foreach) -> tuple:
    """A snapshot after each step, and the groups of the state dict after an early one."""
    params, optimizer = make(case, dtype, foreach=foreach)
    snapshots, groups = [], None
    for step in range(case.steps):
        make_step(case, dtype, step, optimizer, params)
        snapshots.append(snapshot(optimizer, params))
        if step + 1 == recording.EARLY:
            groups = json.loads(json.dumps(optimizer.state_dict()["param_groups"]))
    return snapshots, groups


def run_both_ways(case, dtype) -> tuple:
    loop, foreach = run(case, dtype, None), run(case, dtype, True)
    if not np.array_equal(crcs(loop[0]), crcs(foreach[0])):
        raise RuntimeError(f"{case}, {dtype}: timm's foreach and for-loop differ")
    return loop


def run_ieee(case, dtype) -> list:
    sqrt = CorrectSqrt()
    with sqrt.active():
        snapshots, _ = run_both_ways(case, dtype)
    updates = sum(entry["step"] for entry in snapshots[-1])
    if sqrt.calls != 2 * updates:
        raise RuntimeError(f"{case}, {dtype}: {sqrt.calls} square roots in twice {updates} updates")
    return snapshots


def record(dtype) -> dict:
    meta = {
        "format": recording.FORMAT,
        "timm": importlib.metadata.version("timm"),
        "arguments": [
            (name, each.default)
            for name, each in inspect.signature(RMSpropTF).parameters.items()
            if name != "params"
        ],
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "cases": {},
    }
    arrays = {}
    for case in tf_cases.TF_CASES:
        (native, groups), ieee = run_both_ways(case, dtype), run_ieee(case, dtype)
        runs = {"native": native[-1], "ieee": ieee[-1], "early": ieee[recording.EARLY - 1]}
        meta["cases"][case.name] = {name: recording.describe(entries) for name, entries in runs.items()}
        meta["cases"][case.name].update(inputs=recording.inputs_crc(case, dtype), early_groups=groups)
        arrays.update({f"{case.name}/{name}": recording.pack(entries) for name, entries in runs.items()})
        arrays[f"{case.name}/crcs"] = crcs(ieee)
    return dict(arrays, meta=np.array(json.dumps(meta)))


def main():
    versions = f"timm {importlib.metadata.version('timm')}, torch {torch.__version__}"
    write_or_check(__doc__, versions, record, tf_cases.TF_CASES, run_ieee, FILE)


if __name__ == "__main__":
    main()
