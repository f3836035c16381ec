# SPDX-License-Identifier: BSD-2-Clause
"""PyTorch's sides, in a process of their own: `python -m benchmarks.torch_side`, by a Python that has torch.

Reads one JSON object a line and answers each with one. Between two turns it waits for the next line and
computes nothing.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import sys
import warnings
from pathlib import Path
from typing import Any, Callable

import torch
import torch._dynamo
import torch._inductor.config

from benchmarks import inputs, timing
from benchmarks.cases import CLIPPED_TO, Case
from benchmarks.timing import Side

FOR_LOOP, FOREACH, COMPILED, PLAIN = "torch for-loop", "torch foreach", "torch.compile", "torch"


def parameters(case: Case) -> list[torch.nn.Parameter]:
    params = []
    for values, gradient in inputs.pairs(case):
        param = torch.nn.Parameter(torch.from_numpy(values))
        param.grad = torch.from_numpy(gradient)
        params.append(param)
    return params


def _optimizer(case: Case, params: list[torch.nn.Parameter], foreach: bool) -> torch.optim.Optimizer:
    options = {name: value for name, value in case.options.items() if name != "clip_norm"}
    return torch.optim.RMSprop(params, foreach=foreach, **options)


def _call(case: Case, foreach: bool) -> Callable[[], Any]:
    params = parameters(case)
    if case.kind == "clip_grad_norm_":
        return functools.partial(torch.nn.utils.clip_grad_norm_, params, CLIPPED_TO, foreach=foreach)
    optimizer = _optimizer(case, params, foreach)
    if case.kind == "zero_grad":
        return functools.partial(optimizer.zero_grad, set_to_none=False)
    if case.kind == "step":
        return optimizer.step
    limit = case.options["clip_norm"]

    def clip_and_step() -> None:
        for param in params:  # each on its own, as clip_norm does
            torch.nn.utils.clip_grad_norm_([param], limit, foreach=foreach)
        optimizer.step()

    return clip_and_step


def _compiled(case: Case) -> Callable[[], Any]:
    torch._inductor.config.cpp.threads = case.threads
    # foreach: its lists become one loop, faster than compiling the for-loop, to run and to compile.
    return torch.compile(_optimizer(case, parameters(case), foreach=True).step)


def _to_disk(content: Any, path: Path) -> None:
    """As safe as this package saves: beside the old file, to the disk, renamed."""
    with open(path.with_suffix(".new"), "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path.with_suffix(".new"), path)


def _file(case: Case, folder: Path) -> Callable[[], Any]:
    params = parameters(case)
    optimizer = _optimizer(case, params, foreach=False)
    optimizer.step()
    content, path = {"parameters": params, "optimizer": optimizer.state_dict()}, folder / "torch.checkpoint"
    _to_disk(content, path)
    if case.kind == "save":
        return functools.partial(_to_disk, content, path)
    return functools.partial(torch.load, path, weights_only=True)


class Sides:
    """The sides of the case at hand."""

    def __init__(self) -> None:
        self._case = Case("step", "1 x 100")
        self._folder = Path()
        self._sides: dict[str, Side] = {}

    def prepare(self, case: dict, folder: str) -> list[str]:
        """Take up a case. Returns the names of its sides; each is made at its first turn."""
        self._case, self._folder, self._sides = Case(**case), Path(folder), {}
        torch._dynamo.reset()  # lets go of the tensors of the last case
        torch.set_num_threads(self._case.threads)
        if self._case.kind in ("sum_grad", "train"):
            return []
        if self._case.kind in ("save", "load"):
            return [PLAIN]
        return [FOR_LOOP, FOREACH, *([COMPILED] if self._case.compiled and self._case.kind == "step" else [])]

    def turn(self, name: str, repetitions: int, long: bool) -> float:
        if name not in self._sides:
            make = {PLAIN: lambda: _file(self._case, self._folder), COMPILED: lambda: _compiled(self._case)}
            self._sides[name] = Side(make.get(name, lambda: _call(self._case, name == FOREACH))())
        return timing.sample(self._sides[name], repetitions, long)

    def state_buffers(self) -> dict[str, float]:
        """How much memory plain RMSprop keeps for its states, in buffers of the parameter's size."""
        found = {}
        for name, foreach in ((FOR_LOOP, False), (FOREACH, True)):
            case = Case("step", "1 x 1M")
            optimizer = _optimizer(case, parameters(case), foreach)
            optimizer.step()
            (state,) = optimizer.state.values()
            found[name] = round(sum(tensor.nbytes for tensor in state.values()) / (4 * case.elements), 2)
        return found

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__, "torch's python": platform.python_version()}


def main() -> None:
    # The answers get the standard output for themselves; whatever a library prints goes to the log.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    sides = Sides()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": getattr(sides, request.pop("do"))(**request)}
        except Exception as error:  # the other sides go on without this one
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
