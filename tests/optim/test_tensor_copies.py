# SPDX-License-Identifier: BSD-2-Clause
"""Copies and pickles of Dragon's tensors, parameters and modules, which Dragon by itself cannot make.

What must end in an error stands in `misuse_of_hooks.py`.
"""

from __future__ import annotations

import copy
import gc
import pickle

import numpy as np
import pytest
from dragon.core.framework import workspace
from dragon.vm import torch

import dragon_optim
from dragon_optim._dragon import library
from tests.optim import memory
from tests.optim.elsewhere import in_thread, run_script
from tests.optim.support import backward, fresh_workspace, parameter, values

nn = torch.nn

DTYPES = ("bool", "int8", "uint8", "int32", "int64", "float16", "float32", "float64")
SHAPES = ((), (1,), (5,), (2, 3), (0,), (2, 0), (0, 3), (2, 1, 3))
WAYS: dict = {"deepcopy": copy.deepcopy}
for _protocol in range(pickle.HIGHEST_PROTOCOL + 1):
    WAYS[f"pickle-{_protocol}"] = lambda value, p=_protocol: pickle.loads(pickle.dumps(value, p))


def numbers(shape, dtype):
    """Every bit pattern may come: the copy must not go through another dtype."""
    size = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
    raw = np.random.RandomState(len(shape)).randint(0, 2 if dtype == "bool" else 256, size)
    return np.frombuffer(raw.astype("uint8").tobytes(), dtype).reshape(shape)


def tensor_of(array):
    return torch.tensor(array, dtype=str(array.dtype))


def bits(tensor):
    array = values(tensor)
    return tensor.dtype, tuple(tensor.shape), array.dtype, array.shape, array.tobytes()


@pytest.fixture(params=WAYS)
def way(request):
    """How a copy is made."""
    return WAYS[request.param]


# --- deep copies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_and_shapes(way, dtype):
    for shape in SHAPES:
        array = numbers(shape, dtype)
        tensor = tensor_of(array)
        made = way(tensor)
        assert type(made) is torch.Tensor
        assert bits(made) == bits(tensor) == (dtype, shape, array.dtype, shape, array.tobytes())
        assert made.id != tensor.id


@pytest.mark.parametrize("requires_grad", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_parameters(way, dtype, requires_grad):
    for shape in SHAPES:
        param = nn.Parameter(tensor_of(numbers(shape, dtype)), requires_grad=requires_grad)
        made = way(param)
        assert type(made) is nn.Parameter
        assert (made.requires_grad, made.is_leaf, bits(made)) == (requires_grad, True, bits(param))


@pytest.mark.parametrize("requires_grad", [True, False])
def test_leaves_that_are_no_parameters(way, requires_grad):
    made = way(torch.ones(3, requires_grad=requires_grad))
    assert (made.requires_grad, made.is_leaf) == (requires_grad, True)
    if requires_grad:
        (made * 3).sum().backward()
        assert values(made.grad).tolist() == [3.0] * 3


def test_neither_reads_the_other(way):
    param = parameter([1.0, 2.0])
    made = way(param)
    made._impl.FromNumpy(np.zeros(2, "float32"), True)
    assert values(param).tolist() == [1.0, 2.0]
    param._impl.FromNumpy(np.full(2, 7, "float32"), True)
    assert values(made).tolist() == [0.0, 0.0]


def test_gradients_stay_behind(way):
    """As in PyTorch; and a backward pass through one is none through the other."""
    param = parameter([1.0, 2.0])
    backward(param, 5.0)
    made = way(param)
    assert made.grad is None
    backward(made, 3.0)
    assert (values(param.grad).tolist(), values(made.grad).tolist()) == ([5.0] * 2, [3.0] * 2)


def test_results_of_operations(way):
    """A copy has the values and no history."""
    param = parameter([1.0, 2.0])
    result = param * 3
    made = way(result)
    assert (values(made).tolist(), made.requires_grad, made.is_leaf) == ([3.0, 6.0], False, True)
    ((result + made) * 1.0).sum().backward()
    assert values(param.grad).tolist() == [3.0, 3.0]


def test_what_stands_twice_is_copied_once(way):
    param, tensor = parameter([1.0]), torch.ones(2)
    first, second, inner = way([param, param, {"t": tensor, param: tensor}])
    assert first is second
    assert list(inner)[1] is first
    assert inner["t"] is inner[first]


def test_attributes_of_the_user(way):
    """Such as ``param.no_weight_decay = True``, by which scripts divide parameters into groups."""
    for tensor in (torch.ones(2), parameter([1.0])):
        tensor.lr_scale = 0.25
        assert getattr(way(tensor), "lr_scale", "lost") == 0.25, type(tensor)


def test_under_another_workspace(way):
    param = parameter([1.0, 2.0])
    with workspace.Workspace().as_default():
        made = way(param)
        backward(made, 3.0)
        assert values(made.grad).tolist() == [3.0, 3.0]
        assert values(made).tolist() == [1.0, 2.0]
    assert param.grad is None


def test_in_another_thread(way):
    """Whose workspace is its own: the values come along."""
    param = parameter([1.0, 2.0])
    assert in_thread(lambda: values(way(param) * 2).tolist()) == [2.0, 4.0]


def test_many_at_once(way):
    """No name is given twice."""
    params = [parameter([float(i)]) for i in range(100)]
    made = way(params)
    del params
    gc.collect()
    others = [torch.zeros(1) for _ in range(200)]
    assert len({each.id for each in made + others}) == 300
    assert [float(each.numpy()[0]) for each in made] == list(range(100))


READ = """
import pickle, sys
from dragon.vm import torch
with open(sys.argv[1], "rb") as file:
    param, tensor = pickle.load(file)
assert type(param) is torch.nn.Parameter and not param.requires_grad, param
assert param.numpy().tolist() == [1.0, 2.0] and tensor.numpy().tolist() == [[3, 4]], (param, tensor)
(torch.ones(2, requires_grad=True) * param).sum().backward()
"""


@pytest.mark.skipif("cuda" in library.devices(), reason="this build has operators for CUDA")
@pytest.mark.parametrize("way", [way for way in WAYS if "pickle" in way])
def test_what_comes_from_a_device_that_is_not_here(way):
    """It is loaded to the CPU: on another device any operator would end the process."""
    param = parameter([1.0, 2.0])
    param._device = type(param.device)("cuda", 1)
    loaded = WAYS[way](param)
    assert str(loaded.device) == "cpu:0"
    assert (loaded + 1).numpy().tolist() == [2, 3]


def test_a_pickle_brings_what_it_needs(tmp_path):
    """A process that has not imported the package reads it."""
    param = nn.Parameter(torch.tensor([1.0, 2.0], dtype="float32"), requires_grad=False)
    path = tmp_path / "tensors.pickle"
    path.write_bytes(pickle.dumps([param, torch.tensor([[3, 4]], dtype="int64")]))
    done = run_script(READ, str(path))
    assert (done.returncode, done.stderr) == (0, "")


# --- shallow copies -------------------------------------------------------------------------------


def test_a_shallow_copy_shares_memory_and_not_attributes():
    for tensor in (torch.ones(2), parameter([1.0, 1.0])):
        twin = copy.copy(tensor)
        assert type(twin) is type(tensor)
        assert (twin.is_leaf, twin.requires_grad) == (tensor.is_leaf, tensor.requires_grad)
        tensor._impl.FromNumpy(np.full(2, 7, "float32"), True)
        assert values(twin).tolist() == [7.0, 7.0]
        tensor.mine = 1
        twin.requires_grad = not tensor.requires_grad
        assert not hasattr(twin, "mine")
        assert twin.requires_grad != tensor.requires_grad


@pytest.mark.parametrize("first", ["original", "copy"])
def test_a_shallow_copy_frees_the_name_once(first):
    """Dragon's own copy frees it with the first of the two: the other one reads a stranger's numbers."""
    with fresh_workspace():
        tensor = torch.ones(4)
        twin = copy.copy(copy.copy(tensor))
        name = tensor.id
        kept = twin if first == "original" else tensor
        del tensor, twin
        gc.collect()
        others = [torch.zeros(4) for _ in range(20)]
        assert name not in [each.id for each in others]
        assert values(kept).tolist() == [1.0] * 4
        del kept
        gc.collect()
        reused = [torch.zeros(4) for _ in range(3)]
        assert [each.id for each in reused].count(name) == 1


def test_gradients_of_a_shallow_copy_are_the_tensors():
    param = parameter([1.0, 2.0])
    twin = copy.copy(param)
    (twin * 3).sum().backward()
    assert values(param.grad).tolist() == values(twin.grad).tolist() == [3.0, 3.0]


def test_a_shallow_copy_is_the_same_parameter_to_an_optimizer():
    param = parameter([1.0])
    optimizer = dragon_optim.RMSprop([param])
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": [copy.copy(param)]})
    assert optimizer.state[copy.copy(param)] == optimizer.state[param]


def test_a_shallow_copy_of_a_state_keeps_it():
    """As any other holder of a state's tensor does."""
    param = parameter([1.0])
    optimizer = dragon_optim.RMSprop([param], alpha=0.75)
    backward(param, 2.0)
    optimizer.step()
    twin = copy.copy(optimizer.state[param]["square_avg"])
    optimizer.state.clear()
    optimizer.step()
    del optimizer
    gc.collect()
    assert values(twin).tolist() == [1.0]


# --- modules --------------------------------------------------------------------------------------

MODULES = {
    "linear": (lambda: nn.Linear(3, 2), (4, 3)),
    "conv": (lambda: nn.Conv2d(3, 4, 3), (2, 3, 6, 6)),
    "batch-norm": (lambda: nn.BatchNorm2d(3), (2, 3, 4, 4)),
    "group-norm": (lambda: nn.GroupNorm(1, 3), (2, 3, 4, 4)),
    "sequential": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)),
        (5, 3),
    ),
}


def output(model, shape):
    return model(tensor_of(np.random.RandomState(0).standard_normal(shape).astype("float32")))


def train(model, shape, steps=3):
    optimizer = dragon_optim.RMSprop(model.parameters(), lr=0.1)
    for _ in range(steps):
        out = output(model, shape)
        (out * out).sum().backward()
        optimizer.step()


def contents(model):
    return {key: bits(value) for key, value in model.state_dict().items()}


@pytest.mark.parametrize("name", MODULES)
def test_modules_train_independently(way, name):
    make, shape = MODULES[name]
    model = make()
    train(model, shape, 1)  # so that batch norm has statistics
    first = contents(model)
    made = way(model)
    assert contents(made) == first
    assert all(type(param) is nn.Parameter for param in made.parameters())
    train(made, shape)
    assert contents(model) == first
    trained = contents(made)
    assert trained != first
    train(model, shape)
    assert contents(model) == trained  # the same training has the same end
    assert contents(made) == trained
    made.eval(), model.eval()
    assert bits(output(made, shape)) == bits(output(model, shape))


def test_dropout(way):
    """One mask each: a copy that drew from the original's would be the same."""
    model = nn.Sequential(nn.Dropout(0.5))
    made = way(model)
    ones = torch.ones(200)
    for each in (model, made):
        assert sorted(set(values(each(ones)).tolist())) == [0.0, 2.0]
    made.eval()
    assert values(made(ones)).tolist() == [1.0] * 200
    assert model.training


@pytest.mark.parametrize(
    "make", [lambda: nn.LSTM(3, 4), lambda: nn.MultiheadAttention(4, 2)], ids=["lstm", "attention"]
)
def test_modules_that_do_not_run_here(way, make):
    """LSTM needs cuDNN: at least its weights are copied."""
    model = make()
    made = way(model)
    assert [bits(param) for param in made.parameters()] == [bits(param) for param in model.parameters()]
    assert not {param.id for param in made.parameters()} & {param.id for param in model.parameters()}


def test_tied_weights_stay_tied(way):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    made = way(model)
    assert made[0].weight is made[1].weight
    assert made[0].weight is not model[0].weight


def test_a_frozen_layer_stays_frozen(way):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    for param in model[0].parameters():
        param.requires_grad = False
    assert [param.requires_grad for param in way(model).parameters()] == [False, False, True, True]


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_collector")
def test_copies_leave_nothing_behind(ws, way):
    param, tensor = parameter(np.ones(1000)), torch.ones(1000)

    def work(_):
        way([param, tensor, copy.copy(param), copy.copy(tensor)])

    grown = memory.growth(ws, work, 20, 100)
    assert grown.before == grown.after
