# SPDX-License-Identifier: BSD-2-Clause
"""Whole steps with the operators for CUDA, beside the CPU's: test_on_emulated_cuda.py runs it."""

from __future__ import annotations

import copy
import pickle
import tempfile
from typing import Iterator

import dragon
import numpy as np
import pytest
from dragon.vm import torch

import dragon_optim
from dragon_optim import checkpoint, graph, native_optimizers
from dragon_optim._dragon import library
from tests.operators import edges, emulated

FORMS = [
    {},
    {"momentum": 0.9, "centered": True},
    {"momentum": 0.9, "clip_norm": 0.5, "grad_scale": 2.0},
    {"initial_square_avg": 1.0, "eps_inside_sqrt": True},
    {"initial_square_avg": 0.3, "foreach": False, "clip_norm": 0.1},
    {"maximize": True, "weight_decay": 0.1, "clip_value": 0.3},
]
SHAPES = [(5, 7), (4100,), (3,)]
DTYPES = [("float32", "float32", "float64"), ("float16", "float32", "float16")]
CPU, CUDA, SECOND = ("cpu", 0), ("cuda", 0), ("cuda", 1)


class Training:
    """Parameters on devices, and gradients for them."""

    def __init__(self, places, dtypes=DTYPES[0], **options):
        self.random = np.random.RandomState(0)
        self.params = [
            torch.nn.Parameter(torch.tensor(self.random.standard_normal(shape).astype(dtype)))
            for shape, dtype in zip(SHAPES, dtypes)
        ]
        self.move(places)
        self.optimizer = dragon_optim.RMSprop(self.params, **options)

    def move(self, places):
        for param, (kind, index) in zip(self.params, places):
            param.cuda(index) if kind == "cuda" else param.cpu()

    def give_gradients(self):
        for param in self.params:
            values = self.random.standard_normal(param.shape).astype(param.dtype)
            emulated.give_gradient(param, values)

    def step(self):
        """Return what it took of the devices."""
        self.give_gradients()
        emulated.launches()
        emulated.counts()
        self.optimizer.step()
        return emulated.counts()

    def arrays(self) -> list:
        found = [param.numpy().copy() for param in self.params]
        for param in self.params:
            for name, value in sorted(self.optimizer.state[param].items()):
                found.append(np.array(value if name == "step" else value.numpy()))
        return found

    def places(self) -> set:
        """Where the states say that they are."""
        states = [self.optimizer.state[param] for param in self.params]
        return {str(value.device) for state in states for name, value in state.items() if name != "step"}


def assert_same(actual: list, expected: list) -> None:
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected):
        assert ours.dtype == theirs.dtype
        assert ours.tobytes() == theirs.tobytes()


def same_bits(places) -> None:
    """Of every form; and once warm a step allocates, copies and fills nothing."""
    for options in FORMS:
        for dtypes in DTYPES:
            host, device = Training([CPU] * 3, dtypes, **options), Training(places, dtypes, **options)
            for number in range(3):
                host.step()
                taken = device.step()
                assert emulated.launches() > 0
                if number > 0:
                    assert taken == emulated.NOTHING, options
            assert_same(device.arrays(), host.arrays())
            emulated.counts()
            device.optimizer.zero_grad()
            assert emulated.counts().copies == 0
            assert not any(param.grad.numpy().any() for param in device.params)
            device.optimizer.zero_grad(set_to_none=True)
            assert all(param.grad is None for param in device.params)


def sums_of_gradients() -> None:
    host, device = Training([CPU] * 3, momentum=0.9), Training([CUDA, CPU, SECOND], momentum=0.9)
    for training in (host, device):
        for _ in range(2):
            for _ in range(2):
                training.give_gradients()
                for param in training.params:  # as a backward pass would
                    (param * 1).sum().backward()
                training.optimizer.sum_grad()
            emulated.counts()
            training.optimizer.step()
        assert emulated.counts() == emulated.NOTHING
    assert_same(device.arrays(), host.arrays())


def moved_between_steps() -> None:
    """The next step runs where the parameters are, and takes their states along."""
    for before, after in [(CPU, CUDA), (CUDA, CPU), (CUDA, SECOND)]:
        host, device = Training([CPU] * 3, momentum=0.9), Training([before] * 3, momentum=0.9)
        for number in range(5):
            if number == 2:
                device.move([after] * 3)
            host.step()
            taken = device.step()
            assert (emulated.launches() > 0) == (device.params[0].device.type == "cuda")
            assert taken == emulated.NOTHING or number in (0, 2), (before, after, number)
        assert device.places() == {"{}:{}".format(*after)}
        assert_same(device.arrays(), host.arrays())


def loaded_elsewhere() -> None:
    """A state dict goes from any device to any other."""
    for before, after in [(CPU, CUDA), (CUDA, CPU), (CUDA, SECOND)]:
        host, first = Training([CPU] * 3, momentum=0.9), Training([before] * 3, momentum=0.9)
        host.step()
        first.step()
        second = Training([after] * 3, momentum=0.9)
        for param, source in zip(second.params, first.params):
            param._impl.FromNumpy(source.numpy().copy(), True)
        second.random = first.random
        second.optimizer.load_state_dict(first.optimizer.state_dict())
        for number in range(2):
            host.step()
            taken = second.step()
            assert taken == emulated.NOTHING or number == 0
        assert second.places() == {"{}:{}".format(*after)}
        assert_same(second.arrays(), host.arrays())


def copied_and_saved() -> None:
    """Copies and pickles are on the same device; files are read to the CPU. Also of what has no elements."""
    training = Training([CUDA, SECOND, CUDA], momentum=0.9)
    training.step()
    values = {"state": training.optimizer.state_dict(), "empty": torch.nn.Parameter(torch.ones(0, 3)).cuda()}
    expected = training.arrays()
    for copied in (copy.deepcopy(training.optimizer), pickle.loads(pickle.dumps(training.optimizer))):
        training.optimizer, training.params = copied, copied.param_groups[0]["params"]
        assert training.places() == {"cuda:0", "cuda:1"}
        assert_same(training.arrays(), expected)
    assert pickle.loads(pickle.dumps(values["empty"])).shape == (0, 3)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(values, f"{folder}/saved")
        loaded = checkpoint.load(f"{folder}/saved")
    assert str(loaded["empty"].device) == "cpu:0"
    training.optimizer.load_state_dict(loaded["state"])
    assert_same(training.arrays(), expected)


def no_memory() -> None:
    """For states, for what has to be moved, for norms: always before anything has changed."""
    fresh = Training([CUDA] * 3, momentum=0.9)
    warm = Training([CUDA] * 3, momentum=0.9)
    warm.step()
    loaded = Training([CUDA] * 3, momentum=0.9)
    loaded.optimizer.load_state_dict(warm.optimizer.state_dict())
    moved = Training([CUDA] * 3, momentum=0.9)
    moved.step()
    moved.move([SECOND] * 3)
    summed = Training([CUDA] * 3)
    for param in summed.params:
        (param * 1).sum().backward()
    clipped = Training([CUDA] * 3, momentum=0.9)
    clipped.step()
    clipped.optimizer.param_groups[0]["clip_norm"] = 0.1
    for training, call in [
        (fresh, "step"),
        (loaded, "step"),
        (moved, "step"),
        (summed, "sum_grad"),
        (clipped, "step"),
    ]:
        if call == "step":
            training.give_gradients()
        before = [param.numpy().copy() for param in training.params]
        steps = [training.optimizer.state[param].get("step", 0) for param in training.params]
        with emulated.OutOfMemory(50), pytest.raises(MemoryError):
            getattr(training.optimizer, call)()
        assert [training.optimizer.state[param].get("step", 0) for param in training.params] == steps
        assert_same([param.numpy().copy() for param in training.params], before)
        getattr(training.optimizer, call)()


def memory_of_states() -> None:
    """The first step takes memory for the states, and nothing else stays."""
    training = Training([CUDA] * 3, momentum=0.9)
    for param in training.params:
        emulated.give_gradient(param, param.numpy())
    training.optimizer.param_groups[0]["lr"] = float("nan")
    before = emulated.in_use()
    with pytest.raises(ValueError, match="learning rate"):
        training.optimizer.step()
    assert emulated.in_use() == before
    training.optimizer.param_groups[0]["lr"] = 0.1
    training.optimizer.step()
    states = [value for param in training.params for value in training.optimizer.state[param].values()]
    tensors = [*training.params, *(value for value in states if not isinstance(value, int))]
    assert emulated.in_use() - before == sum(-(-tensor._impl.nbytes // 512) * 512 for tensor in tensors)


def a_launch_that_is_refused() -> None:
    training = Training([CUDA] * 3, momentum=0.9)
    training.step()
    before = training.arrays()
    with emulated.FailingLaunches(), pytest.raises(RuntimeError, match="CUDA error at the update"):
        training.step()
    assert_same(training.arrays(), before)


def what_is_for_the_cpu_only() -> None:
    message = "parameter 0 of group 0 is on cuda:0, but differentiable=True runs on the CPU only"
    with pytest.raises(ValueError, match=message):
        Training([CUDA] * 3, differentiable=True)
    moved = Training([CPU] * 3, differentiable=True)
    moved.move([CUDA] * 3)
    moved.give_gradients()
    with pytest.raises(ValueError, match=message):
        moved.optimizer.step()


def captured_calls(place, after_backward) -> Iterator[tuple]:
    """Call a captured training step five times; the model comes to the place before the third.

    After each call: the weight, and what `after_backward(weight, optimizer, loss)` returned.
    """
    random = np.random.RandomState(0)
    weight = torch.nn.Parameter(torch.tensor(random.standard_normal((6, 3)).astype("float32")))
    optimizer = dragon_optim.RMSprop([weight], momentum=0.9)

    def train(inputs):
        loss = torch.mm(inputs, weight).sum()
        loss.backward()
        return after_backward(weight, optimizer, loss)

    replayed = graph.capture(train)
    for number in range(5):
        # Sums of whole numbers are exact: Dragon's others have bits that depend on addresses.
        inputs = torch.tensor(random.randint(-9, 10, (4, 6)).astype("float32"))
        if number >= 2 and place == CUDA:
            weight.cuda()
            inputs.cuda()
        emulated.launches()
        result = replayed(inputs)
        assert (emulated.launches() > 0) == (weight.device.type == "cuda")
        yield weight, result


def a_captured_function() -> None:
    """It follows the model to another device, and has the bits of the host there."""

    def step(weight, optimizer, loss):
        optimizer.step()
        return loss

    on_host, on_device = ([weight for weight, _ in captured_calls(place, step)] for place in (CPU, CUDA))
    assert_same([on_device[-1].numpy().copy()], [on_host[-1].numpy().copy()])


def _trained_natively(places, as_function) -> list:
    """The weight after a step under ``dragon.device()`` at each of these places."""
    random = np.random.RandomState(0)
    weight, inputs = dragon.Tensor((6, 3), "float32"), dragon.Tensor((4, 6), "float32")
    for tensor in (weight, inputs):
        tensor._impl.FromNumpy(random.randint(-9, 10, tensor.shape).astype("float32"), True)
    weight.requires_grad = True
    optimizer = native_optimizers.RMSprop(lr=0.05, momentum=0.9)

    def train(inputs):
        with dragon.GradientTape() as tape:
            loss = dragon.math.sum(dragon.math.matmul([inputs, weight]))
        gradient = tape.gradient(loss, [weight])[0]
        return loss, optimizer.apply_gradients([(gradient, weight)])

    call = dragon.function(train) if as_function else train
    for number, place in enumerate(places):
        with dragon.device(*place):
            emulated.launches()
            call(inputs)
            # A function stays where it was built.
            at = places[0] if as_function else places[number]
            assert (emulated.launches() > 0) == (at[0] == "cuda")
    at = places[0] if as_function else places[-1]
    assert str(optimizer.state_of(weight)["square_avg"].device) == "{}:{}".format(*at)
    return [weight.numpy().copy()]


def the_native_interface() -> None:
    """It updates where Dragon's own operators run, and its variables go there."""
    for as_function in (False, True):
        host = _trained_natively([CPU] * 6, as_function)
        assert_same(_trained_natively([CUDA] * 6, as_function), host)
        assert_same(_trained_natively([CPU, CPU, CUDA, CUDA, SECOND, SECOND], as_function), host)


def flags_of_a_process_group() -> None:
    """Nothing but the flags of a buffer is copied to the host, and nothing when it is unpacked."""
    sizes = [1000, 3]
    layout = dict(dtype=1, sizes=sizes)
    place = dict(indices=[0, 1])
    grads = [edges.Edge(np.full(size, 2, "float32")) for size in sizes]
    buffer, present, back = edges.Edge(), edges.Edge(np.zeros(2, "int64")), [edges.Edge(), edges.Edge()]
    mask, params = edges.Edge(np.array([1, 0])), [edges.Edge(np.zeros(size, "float32")) for size in sizes]
    pack = edges.operator("DragonOptimPack", [mask, *grads], [buffer], slots=[0, 1], **place, **layout)
    find = edges.operator("DragonOptimPresent", [buffer], [present], **layout)
    unpack = edges.operator("DragonOptimUnpack", [present, buffer, *params], back, **place, **layout)
    for _ in range(2):
        edges.run_graph(pack)
        emulated.counts()
        edges.run_graph(find)
        assert emulated.counts() == emulated.Counts(0, 1, 0, 2 * 4)
        edges.run_graph(unpack)
        assert emulated.counts().copies == 0
        assert present.array.tolist() == [1, 0]
        assert back[0].array.tolist() == [2] * 1000
        assert back[1].array is None


if __name__ == "__main__":
    assert library.devices() == ("cpu", "cuda")
    assert library.cuda_architectures() == "emulated"
    same_bits([CUDA] * 3)
    same_bits([CUDA, CPU, SECOND])
    sums_of_gradients()
    moved_between_steps()
    loaded_elsewhere()
    copied_and_saved()
    no_memory()
    memory_of_states()
    a_launch_that_is_refused()
    what_is_for_the_cpu_only()
    a_captured_function()
    the_native_interface()
    flags_of_a_process_group()
    print("all the same")
