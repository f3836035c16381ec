# SPDX-License-Identifier: BSD-2-Clause
"""What is timed in this process: this package, stock Dragon, and the limit."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
from pathlib import Path
from typing import Any, Callable, Iterator

import numpy as np
from dragon.core.framework import workspace
from dragon.vm import torch
from dragon.vm.torch import nn

import dragon_optim
from benchmarks import inputs
from benchmarks.cases import CLIPPED_TO, Case
from benchmarks.limit import Limit
from benchmarks.timing import Side
from benchmarks.traffic import bytes_moved
from dragon_optim import checkpoint
from dragon_optim._dragon import tape

OURS, STOCK, LIMIT, CAPTURED = "dragon_optim", "stock", "limit", "captured"
NO_CENTERED = "stock Dragon takes centered=True and does nothing about it"
NO_FUNCTION = "stock Dragon has no such function"


def why_without_stock(case: Case) -> str:
    """Why stock Dragon takes no part in a case where it does not."""
    return NO_FUNCTION if case.kind == "clip_grad_norm_" else NO_CENTERED


def make(case: Case, folder: Path) -> dict[str, Side]:
    """The sides of a case, in the workspace that is the current one; files go into `folder`."""
    if case.kind == "train":
        return _train(case)
    if case.kind in ("save", "load"):
        return _files(case, folder)
    if case.kind == "clip_grad_norm_":
        clip = functools.partial(dragon_optim.clip_grad_norm_, parameters(case), CLIPPED_TO)
        return {LIMIT: Side(Limit(case)), OURS: Side(clip)}
    sides = {LIMIT: Side(Limit(case)), OURS: _optimizer(case, dragon_optim.RMSprop)}
    if not case.options.get("centered"):
        sides[STOCK] = _optimizer(case, torch.optim.RMSprop)
    return sides


_abandoned: list[workspace.Workspace] = []


@contextlib.contextmanager
def own_workspace() -> Iterator[None]:
    """A workspace whose memory goes with it. Whoever uses it must have let go of its tensors at the end."""
    own = workspace.Workspace()
    with own.as_default():
        try:
            yield
        except BaseException:
            _abandoned.append(own)  # the traceback holds tensors
            raise
        gc.collect()  # a tensor that outlives its workspace would touch memory that is no longer its own


def parameters(case: Case) -> list[nn.Parameter]:
    """Parameters with gradients, put where a backward pass would put them."""
    params = []
    for values, gradient in inputs.pairs(case):
        param = nn.Parameter(torch.tensor(values))
        workspace.get_workspace().create_tensor(param.id + "_grad").FromNumpy(gradient, True)
        params.append(param)
    return params


def _optimizer(case: Case, optimizer_class: Callable[..., Any]) -> Side:
    params = parameters(case)
    optimizer = optimizer_class(params, **case.options)
    if case.kind in ("step", "clip_norm"):
        return Side(optimizer.step)
    optimizer.step()  # from now on it knows the gradients
    if case.kind == "zero_grad":
        return Side(optimizer.zero_grad)
    # Only what a backward pass has reached is added: one is noted before each call. None is run, for that
    # would be the dearest part, and leave other caches behind than those of the limit.
    names = [param.id for param in params]
    return Side(optimizer.sum_grad, functools.partial(tape.mark, workspace.get_workspace(), names))


# --- files --------------------------------------------------------------------------------------------------


def _to_disk(path: Path, write: Callable[[Any], None]) -> None:
    """Write a file that a crash cannot take away: beside the old one, to the disk, renamed."""
    with open(path.with_suffix(".new"), "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path.with_suffix(".new"), path)


def _files(case: Case, folder: Path) -> dict[str, Side]:
    """Parameters and states of an optimizer. Dragon's own has no state dict: the same tensors in a dict."""
    params = parameters(case)
    optimizer = dragon_optim.RMSprop(params, **case.options)
    optimizer.step()
    content = {"parameters": params, "optimizer": optimizer.state_dict()}
    plain = [tensor for entry in content["optimizer"]["state"].values() for tensor in entry.values()]
    tensors = dict(enumerate([*params, *(tensor for tensor in plain if isinstance(tensor, torch.Tensor))]))
    raw = np.ones(bytes_moved(case), np.uint8)
    ours, stock, limit = (folder / f"{name}.checkpoint" for name in (OURS, STOCK, LIMIT))
    save = {
        LIMIT: lambda: _to_disk(limit, lambda file: file.write(raw)),
        OURS: lambda: checkpoint.save(content, ours),
        STOCK: lambda: _to_disk(stock, lambda file: torch.save(tensors, file)),
    }
    if case.kind == "load":
        for call in save.values():
            call()
        load = {
            LIMIT: lambda: np.fromfile(limit, np.uint8),
            OURS: lambda: checkpoint.load(ours),
            STOCK: lambda: torch.load(str(stock)),
        }
        return {name: Side(call) for name, call in load.items()}
    return {name: Side(call) for name, call in save.items()}


# --- a training step ----------------------------------------------------------------------------------------


def _train_step(case: Case, optimizer_class: Callable[..., Any]) -> Callable[..., Any]:
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    with torch.no_grad():
        for param, (values, _) in zip(model.parameters(), inputs.pairs(case)):
            param.copy_(torch.tensor(0.1 * values))
    optimizer = optimizer_class(model.parameters(), **case.options)

    def train_step(rows: Any, labels: Any) -> Any:
        loss = nn.functional.cross_entropy(model(rows), labels)
        loss.backward()
        optimizer.step()
        return loss

    return train_step


def _train(case: Case) -> dict[str, Side]:
    steps = {
        OURS: _train_step(case, dragon_optim.RMSprop),
        CAPTURED: dragon_optim.graph.capture(_train_step(case, dragon_optim.RMSprop)),
        STOCK: _train_step(case, torch.optim.RMSprop),
    }
    batch = [torch.tensor(array) for array in inputs.minibatch()]
    return {name: Side(functools.partial(step, *batch)) for name, step in steps.items()}


# --- memory -------------------------------------------------------------------------------------------------


def _buffers(optimizer_class: Callable[..., Any]) -> float:
    case, own = Case("step", "1 x 1M"), workspace.get_workspace()
    params = parameters(case)
    before = own.memory_allocated()
    optimizer = optimizer_class(params, **case.options)
    optimizer.step()
    return round((own.memory_allocated() - before) / (4 * case.elements), 2)


def state_buffers() -> dict[str, float]:
    """How much memory plain RMSprop keeps for its states, in buffers of the parameter's size."""
    found = {}
    for name, optimizer_class in ((OURS, dragon_optim.RMSprop), (STOCK, torch.optim.RMSprop)):
        with own_workspace():
            found[name] = _buffers(optimizer_class)
    return found
