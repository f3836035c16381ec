# SPDX-License-Identifier: BSD-2-Clause
"""Record what PyTorch's autograd makes of its own `RMSprop(differentiable=True)`: `differentiable.json`.

    python -m tests.golden.record_differentiable     # in an environment with PyTorch

Each case holds all that goes into some steps, how much each result counts in the number that comes out, and
the derivatives of that number. Of the hyper-parameters PyTorch's RMSprop takes only eps and momentum as
tensors that require a gradient. Centered there is one step only: PyTorch's backward refuses two ("modified by
an inplace operation": lerp_).
"""

import itertools
import json
from pathlib import Path

import torch

from tests import inputs

SIZE = 6
FLAGS = [{"momentum": 0.8}, {"centered": True}, {"weight_decay": 0.1}, {"maximize": True}]
STATES = ("square_avg", "momentum_buffer", "grad_avg")


def numbers(seed):
    return torch.tensor(inputs.uniform(seed, (SIZE,)), requires_grad=True)


def record(options, seed):
    given = {"param": numbers(seed), "grad": numbers(seed + 1)}
    given["square_avg"] = (numbers(seed + 2) / 2 + 1).detach().requires_grad_()
    if options.get("momentum"):
        given["momentum_buffer"] = numbers(seed + 3)
    if options.get("centered"):
        given["grad_avg"] = (numbers(seed + 4) / 4).detach().requires_grad_()
    weights = {name: numbers(seed + 5 + place) for place, name in enumerate(("param", *STATES))}

    for name in ("eps", "momentum"):
        if name in options:
            given[name] = torch.tensor(options[name], dtype=torch.float64, requires_grad=True)

    param = given["param"].clone()
    tensors = {name: given[name] for name in ("eps", "momentum") if name in given}
    optimizer = torch.optim.RMSprop([param], **{**options, **tensors}, differentiable=True)
    states = {name: given[name].clone() for name in STATES if name in given}
    optimizer.state[param].update(step=torch.tensor(0.0), **states)
    steps = 1 if options.get("centered") else 3
    for step in range(steps):
        param.grad = given["grad"] * (step + 1) + param.clone() ** 2 * (0.02 * step)
        optimizer.step()
    results = {"param": param, **{name: optimizer.state[param][name] for name in states}}
    sum((weights[name] * result).sum() for name, result in results.items()).backward()
    return {
        "options": options,
        "steps": steps,
        "given": {name: each.tolist() for name, each in given.items()},
        "weights": {name: weights[name].tolist() for name in results},
        "results": {name: each.tolist() for name, each in results.items()},
        "gradients": {name: each.grad.tolist() for name, each in given.items()},
    }


def main():
    cases = []
    for flags in itertools.product(*[({}, flag) for flag in FLAGS]):
        options = {"lr": 0.05, "alpha": 0.9, "eps": 0.01}
        for flag in flags:
            options.update(flag)
        cases.append(record(options, 100 * len(cases)))
    path = Path(__file__).with_name("differentiable.json")
    path.write_text(json.dumps({"torch": torch.__version__, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
