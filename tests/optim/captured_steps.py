# SPDX-License-Identifier: BSD-2-Clause
"""Training steps that are run eagerly and captured, side by side."""

from __future__ import annotations

import numpy as np
from dragon.vm import torch

import dragon_optim
from tests.optim.support import values

F = torch.nn.functional


def fill(model, seed=0, dtype="float64"):
    """Give a model its dtype, and parameters that depend on the seed alone."""
    random = np.random.RandomState(seed)
    if dtype == "float64":
        model.double()
    for param in model.parameters():
        array = (random.randn(*param.shape) * 0.2).astype(dtype)
        with torch.no_grad():
            param.copy_(torch.tensor(array, dtype=dtype))
    return model


def mlp(seed=0, dtype="float64", width=16):
    """Linear and ReLU only: its gradients do not depend on where memory lies, so bits can be compared."""
    nn = torch.nn
    layers = nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)
    return fill(nn.Sequential(*layers), seed, dtype)


def conv(seed=0, dtype="float64", drop=0.0):
    nn = torch.nn
    return fill(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AvgPool2d(4, stride=4),
            nn.Flatten(1),
            nn.Dropout(drop),
            nn.Linear(8 * 4, 10),
        ),
        seed,
        dtype,
    )


def batches(number, rows=6, seed=1, dtype="float64", shape=(8,), targets=4):
    random = np.random.RandomState(seed)
    for _ in range(number):
        x, y = random.randn(rows, *shape).astype(dtype), random.randn(rows, targets).astype(dtype)
        yield torch.tensor(x, dtype=dtype), torch.tensor(y, dtype=dtype)


class Side:
    """One training: a model, its optimizer, and a step that uses them."""

    def __init__(self, model, step, captured=None, **options):
        settings = dict(lr=0.01, alpha=0.9, momentum=0.9, centered=True)
        settings.update(options)
        self.model = model
        self.optimizer = dragon_optim.RMSprop(model.parameters(), **settings)
        self.eager = lambda *args: step(self, *args)
        self.run = self.eager
        if captured is not None:
            self.run = dragon_optim.graph.capture(self.eager, **captured)

    def everything(self):
        """All numbers of the training, as arrays."""
        found = {}
        for name, param in self.model.named_parameters():
            found[name] = values(param)
            found[name + ".grad"] = None if param.grad is None else values(param.grad)
            for key, value in self.optimizer.state[param].items():
                found[f"{name}.{key}"] = value if key == "step" else values(value)
        for name, buffer in self.model.named_buffers():
            found[name] = values(buffer)
        return found


def two_sides(make_model, step, optimization=2, **options):
    """The same training twice: captured, and eager."""
    return (
        Side(make_model(), step, {"optimization": optimization}, **options),
        Side(make_model(), step, **options),
    )


def same(one, other, exact=True):
    """Raise unless two trainings, or two results, hold the same."""
    if isinstance(one, Side):
        one, other = one.everything(), other.everything()
        assert one.keys() == other.keys()
        for key, value in one.items():
            same(value, other[key], exact)
    elif isinstance(one, (list, tuple)):
        assert type(one) is type(other)
        assert len(one) == len(other)
        for pair in zip(one, other):
            same(*pair, exact)
    elif one is None or other is None:
        assert one is other
    else:
        one, other = (
            np.asarray(values(each) if isinstance(each, torch.Tensor) else each) for each in (one, other)
        )
        if exact:
            np.testing.assert_array_equal(one, other)
        else:
            np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5)


def advance(sides, data, exact=True):
    """Step both sides through these batches, and compare them."""
    captured, eager = sides
    for inputs in data:
        same(captured.run(*inputs), eager.run(*inputs), exact)
    same(captured, eager, exact)


def mse(side, x, y):
    loss = F.mse_loss(side.model(x), y)
    loss.backward()
    side.optimizer.step()
    return loss
