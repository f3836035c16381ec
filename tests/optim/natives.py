# SPDX-License-Identifier: BSD-2-Clause
"""The tables' cases on their way through `native_optimizers.RMSprop`, eagerly and in functions."""

from __future__ import annotations

import dragon
import numpy as np

from dragon_optim import native_optimizers
from dragon_optim._dragon import native
from tests.optim.support import values


def variable(numbers, dtype="float32"):
    tensor = dragon.Tensor(np.shape(numbers), dtype)
    feed(tensor, np.array(numbers, dtype))
    return tensor


def feed(tensor, array):
    tensor._impl.FromNumpy(np.array(array), True)


def canonical(var, array=None):
    """A gradient where `tape.gradient()` puts it, with these numbers."""
    impl = dragon.get_workspace().create_tensor(var.id + "_grad")
    if array is not None:
        impl.FromNumpy(np.array(array), True)
    return dragon.Tensor(impl=impl)


def computed(var, array):
    """A gradient that the program has computed itself, in a tensor of its own."""
    del var
    return None if array is None else variable(array, array.dtype)


def gradient(var, loss):
    """What a function and eager code alike start with."""
    with dragon.GradientTape() as tape:
        tape.watch(var)
        result = loss(var)
    return result, tape.gradient(result, [var])[0]


def loss_of(x):
    return dragon.math.sum(x * x * x)


class NativeRun:
    """A case, one optimizer for each group: the native interface has no groups."""

    def __init__(self, case, dtype, give=computed):
        self.case, self.dtype, self.give = case, dtype, give
        self.params = [variable(array, dtype) for array in case.parameters(dtype)]
        self.groups = [
            (native_optimizers.RMSprop(**{"alpha": 0.99, **options}), places)
            for options, places in case.groups()
        ]

    def steps(self):
        for step in range(self.case.steps):
            for optimizer, places in self.groups:
                for name, value in self.case.schedule.get(step, {}).items():
                    setattr(optimizer, name, value)
                grads = [self.case.gradient(step, place, self.dtype) for place in places]
                self.update(optimizer, [self.params[place] for place in places], grads)
            yield self.snapshot()

    def update(self, optimizer, params, grads):
        given = [None if grad is None else self.give(param, grad) for param, grad in zip(params, grads)]
        assert optimizer.apply_gradients(zip(given, params)) is None

    def snapshot(self) -> list:
        entries = [None] * len(self.params)
        for optimizer, places in self.groups:
            for place in places:
                entry = optimizer.state_of(self.params[place])
                step = entry.pop("step", 0)
                entry = {name: values(tensor) for name, tensor in entry.items()}
                entries[place] = dict(entry, param=np.array(self.params[place].numpy()), step=step)
        return entries


class FunctionRun(NativeRun):
    """Every update by a function. One for each set of parameters that have a gradient."""

    def __init__(self, case, dtype):
        super().__init__(case, dtype)
        self.functions = {}

    def update(self, optimizer, params, grads):
        present = tuple(number for number, grad in enumerate(grads) if grad is not None)
        given = [canonical(params[number], grads[number]) for number in present]
        key = (id(optimizer), present)
        if key not in self.functions:

            @dragon.function
            def function():
                assert not native.executing_eagerly()
                return optimizer.apply_gradients([(g, params[n]) for g, n in zip(given, present)])

            self.functions[key] = function
        self.functions[key]()
