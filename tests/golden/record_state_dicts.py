# SPDX-License-Identifier: BSD-2-Clause
"""Writes state dicts of real PyTorch's optimizers, and what the trainings came to; see README.md.

python -m tests.golden.record_state_dicts            # writes those of the installed version
python -m tests.golden.record_state_dicts --check    # runs again and compares, bit for bit
"""

from __future__ import annotations

import argparse
import copy
import json

import numpy as np
import torch

from tests import cases, inputs
from tests.golden import recording, state_dicts
from tests.golden.record import CorrectSqrt, make_step, snapshot

VERSION = ".".join(torch.__version__.split(".")[:2])
NAMES = ("first.weight", "first.bias", "scale", "last.bias")


# --- trajectories of cases.py ---------------------------------------------------------------------


def interrupted(case, dtype) -> dict:
    """The state dict of a case after EARLY steps, which must be those of the other recordings."""
    params = [torch.nn.Parameter(torch.from_numpy(np.array(array))) for array in case.parameters(dtype)]
    groups = [dict(options, params=[params[i] for i in places]) for options, places in case.groups()]
    optimizer = torch.optim.RMSprop(groups)
    recorded = recording.Recording(dtype)
    saved = None
    for step in range(case.steps):
        make_step(case, dtype, step, optimizer, params)
        crcs = [recording.crc(entry) for entry in snapshot(optimizer, params)]
        if not np.array_equal(crcs, recorded.crcs(case)[step]):
            raise RuntimeError(f"{case}, {dtype}, step {step}: not the bits of the other recordings")
        if step + 1 == recording.EARLY:
            saved = copy.deepcopy(optimizer.state_dict())
    return saved


# --- trainings of their own -----------------------------------------------------------------------


def parameters(dtype=torch.float32) -> list:
    return [
        torch.nn.Parameter(torch.from_numpy(inputs.uniform(place, shape)).to(dtype))
        for place, shape in enumerate(state_dicts.SHAPES)
    ]


def advance(optimizer, params, steps):
    for step in steps:
        for place, param in enumerate(params):
            grad = inputs.gradient("gentle", step, place, state_dicts.SHAPES[place], np.dtype("float32"))
            param.grad = torch.from_numpy(np.array(grad)).to(param.dtype)
        optimizer.step()


def training(make, dtype=torch.float32) -> dict:
    params = parameters(dtype)
    optimizer = make(params)
    steps = state_dicts.STEPS
    found = {}
    advance(optimizer, params, range(steps))
    found["params"] = [param.detach().clone() for param in params]
    found["state_dict"] = copy.deepcopy(optimizer.state_dict())
    advance(optimizer, params, range(steps, 2 * steps))
    found["end_params"] = [param.detach().clone() for param in params]
    found["end_state_dict"] = copy.deepcopy(optimizer.state_dict())
    return found


def rmsprop(params, **options):
    return torch.optim.RMSprop(params, **dict(dict(lr=0.01, alpha=0.9), **options))


def two_groups(params):
    groups = [{"params": params[:2], "momentum": 0.9}, {"params": params[2:], "lr": 0.02}]
    return rmsprop(groups, centered=True, weight_decay=0.1)


def shared(params):
    """The first parameter stands twice, and is updated twice."""
    return rmsprop([{"params": [params[0], params[0], params[1]]}, {"params": params[2:]}], momentum=0.5)


def scheduled(params):
    optimizer = rmsprop(params, momentum=0.9)
    torch.optim.lr_scheduler.StepLR(optimizer, step_size=10)  # writes initial_lr
    return optimizer


def named(params):
    return rmsprop(list(zip(NAMES, params)), momentum=0.9)


RMSPROPS = {
    "two-groups": two_groups,
    "shared": shared,
    "scheduled": scheduled,
    "for-loop": lambda params: rmsprop(params, foreach=False, maximize=True),
}
NEWER = {  # than 2.1
    "named": named,
    "tensor-lr": lambda params: rmsprop(params, lr=torch.tensor(0.01), momentum=0.9),
}
HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}

OTHERS = {
    "Adadelta": {},
    "Adagrad": {},
    "Adam": {},
    "Adam-amsgrad": dict(amsgrad=True),
    "AdamW": {},
    "Adamax": {},
    "ASGD": {},
    "NAdam": {},
    "RAdam": {},
    "Rprop": {},
    "SGD": dict(lr=0.1),
    "SGD-momentum": dict(lr=0.1, momentum=0.9),
}


def others():
    """Other optimizers' state dicts after a step."""
    for name, options in OTHERS.items():
        params = parameters()
        optimizer = getattr(torch.optim, name.split("-")[0])(params, **options)
        advance(optimizer, params, range(1))
        yield f"other/{name}", optimizer.state_dict()


def record() -> dict:
    found = {}
    by_name = {case.name: case for case in cases.TORCH_CASES}
    sqrt = CorrectSqrt()
    with sqrt.active():
        for name in state_dicts.CASES:
            for dtype in recording.DTYPES:
                found[f"case/{name}/{dtype}"] = interrupted(by_name[name], dtype)
        newer = NEWER if VERSION != "2.1" else {}
        for name, make in {**RMSPROPS, **newer}.items():
            found[name] = training(make)
        if sqrt.calls == 0:
            raise RuntimeError("no square root was replaced")
    for name, dtype in HALVES.items():
        if VERSION == "2.1" and dtype == torch.float16:
            continue  # it has no float16 arithmetic on the CPU
        found[name] = training(lambda params: rmsprop(params, momentum=0.9, eps=1e-3), dtype)
    found.update(others())
    found["model"] = dict(torch.nn.Linear(3, 2).state_dict())
    return found


def as_array(value):
    if not isinstance(value, torch.Tensor):
        return None
    tensor = value.detach()
    dtype = str(tensor.dtype)[len("torch.") :]
    if dtype == "bfloat16":
        return state_dicts.Array(tensor.view(torch.int16).numpy().view(np.uint16), dtype)
    return state_dicts.Array(tensor.numpy().copy(), dtype)


def packed(found) -> dict:
    arrays: dict = {}
    trees = {name: state_dicts.encode(value, arrays, as_array) for name, value in found.items()}
    meta = {
        "format": state_dicts.FORMAT,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "recordings": trees,
    }
    return dict(arrays, meta=np.array(json.dumps(meta)))


def check(arrays) -> int:
    """How many recordings differ."""
    recorded = state_dicts.StateDicts(VERSION)
    wrong = 0
    for name, tree in json.loads(str(arrays["meta"]))["recordings"].items():
        if state_dicts.decode(tree, arrays, bits) != recorded.get(name, bits):
            wrong += 1
            print(f"differs: {name}")
    return wrong


def bits(tensor) -> tuple:
    return tensor.dtype, tensor.array.shape, tensor.array.tobytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="compare with the recordings instead of writing them"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}")
    arrays = packed(record())
    if arguments.check:
        raise SystemExit(1 if check(arrays) else 0)
    np.savez_compressed(state_dicts.path(VERSION), **arrays)
    print(f"{state_dicts.path(VERSION).name}: {state_dicts.path(VERSION).stat().st_size} bytes")


if __name__ == "__main__":
    main()
