# SPDX-License-Identifier: BSD-2-Clause
"""`update_graph()`: the update as a Dragon graph that runs anywhere, to the same bits."""

from __future__ import annotations

import dragon
import numpy as np
import pytest
from dragon.core.proto import dragon_pb2
from dragon.vm import torch

import dragon_optim
from tests import cases, exact
from tests.golden.recording import DTYPES
from tests.optim import test_forms, test_golden
from tests.optim.exported import ExportedRun, Home, run_exported
from tests.optim.memory import growth, kept
from tests.optim.support import backward, feed_gradient, parameter, snapshot, values

pytestmark = pytest.mark.usefixtures("ws")

P, Q = "param_groups/0/params/0", "param_groups/0/params/1"


def assert_is_next_step(optimizer):
    """The exported graph leaves what `step()` leaves: bits of parameters and states, and step counts."""
    graph, arrays = optimizer.update_graph()
    found = run_exported(graph, arrays)
    optimizer.step()
    after, expected = optimizer.update_graph()
    assert after == graph
    assert set(found) == set(expected) & set(graph.output)
    assert "optimizer/steps" in found
    for name in found:
        assert found[name].dtype == expected[name].dtype, name
        assert found[name].tobytes() == expected[name].tobytes(), name
    return found


# --- the numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", test_golden.RECORDED, ids=str)
def test_an_exported_graph_gives_pytorchs_numbers(case, dtype):
    """A whole trajectory by the graph of an optimizer that never steps, against PyTorch's recording."""
    test_golden.assert_is_recorded(case, dtype, ExportedRun(case, dtype))


@pytest.mark.parametrize("dtype", test_forms.DTYPES)
@pytest.mark.parametrize("case", test_forms.FORMS, ids=str)
def test_all_forms(case, dtype):
    test_forms.assert_is_exact(case, dtype, ExportedRun(case, dtype))


@pytest.mark.parametrize("case", cases.TORCH_CASES, ids=str)
def test_half_precision_and_one_operator_for_each_parameter(case):
    test_forms.assert_is_exact(case, "float16", ExportedRun(case, "float16", foreach=False))


@pytest.mark.parametrize("foreach", [None, False])
def test_a_shared_parameter_is_updated_for_each_occurrence(foreach):
    p, q = parameter([1.0, 2.0]), parameter([3.0])
    with pytest.warns(UserWarning, match="duplicate"):
        optimizer = dragon_optim.RMSprop([p, q, p], momentum=0.9, foreach=foreach)
    for _ in range(3):
        backward(p, 0.5, q, -1.0)
        found = assert_is_next_step(optimizer)
    assert found["optimizer/steps"].tolist() == [6, 3]


def test_mixed_dtypes_and_groups():
    p, q, r = parameter([1.0, 2.0], "float16"), parameter(3.0, "float64"), parameter([[4.0]])
    groups = [{"params": [p, q], "centered": True}, {"params": [r], "momentum": 0.9, "lr": 0.3}]
    optimizer = dragon_optim.RMSprop(groups, weight_decay=0.1)
    for _ in range(3):
        feed_gradient(p, np.float16([0.25, -3]))
        backward(q, 2.0)
        backward(r, -0.5)
        found = assert_is_next_step(optimizer)
    assert found[f"{P}/master_param"].dtype == np.float32
    assert found["param_groups/1/params/0/momentum_buffer"].shape == (1, 1)


def test_an_open_round_is_exported_with_its_sums():
    p, q = parameter([1.0]), parameter([1.0])
    optimizer = dragon_optim.RMSprop([p, q], lr=0.1)
    backward(q, 7.0)
    for number in (1.0, 2.0):
        backward(p, number)
        optimizer.sum_grad()
    optimizer.zero_grad()  # leaves an open sum alone
    _, arrays = optimizer.update_graph()
    assert arrays[f"{P}/grad"].tolist() == [3.0]
    backward(q, 5.0)  # after the last sum: not in this round
    expected, _ = exact.step({"lr": 0.1}, values(p), np.full(1, 3.0, "float32"), {})
    found = run_exported(*optimizer.update_graph())
    assert found[P].tobytes() == expected.tobytes()
    optimizer.step()
    assert found[P].tobytes() == values(p).tobytes()
    assert found[Q].tobytes() == values(q).tobytes()


def test_a_sum_of_an_earlier_round_is_not_exported():
    p, q = parameter([1.0]), parameter([1.0])
    optimizer = dragon_optim.RMSprop([p, q], lr=0.1)
    backward(p, 3.0, q, 5.0)
    optimizer.sum_grad()
    optimizer.step()
    backward(p, 3.0)
    optimizer.sum_grad()
    graph, arrays = optimizer.update_graph()
    assert arrays["optimizer/mask"].tolist() == [1, 0]
    assert f"{Q}/grad" not in arrays
    found = run_exported(graph, arrays)
    optimizer.step()
    assert found[P].tobytes() == values(p).tobytes()
    assert found[Q].tobytes() == values(q).tobytes()
    assert found["optimizer/steps"].tolist() == [2, 1]


# --- what is in it --------------------------------------------------------------------------------


def test_before_the_first_gradient_the_graph_is_whole():
    """Gradients and states have no array yet; the update leaves alone what is not fed."""
    p, q = parameter([1.0]), parameter([2.0])
    graph, arrays = dragon_optim.RMSprop([p, q], lr=0.1, centered=True).update_graph()
    assert set(arrays) == {P, Q, "optimizer/hyper", "optimizer/mask", "optimizer/steps"}
    home = Home(graph, arrays)
    home.run()
    assert home.array(P).tolist() == [1.0]
    assert home.array("optimizer/steps").tolist() == [0, 0]
    home.feed({f"{Q}/grad": np.full(1, 2.0, "float32")})
    home.run()
    expected, state = exact.step(
        {"lr": 0.1, "centered": True}, np.full(1, 2.0, "float32"), np.full(1, 2.0, "float32"), {}
    )
    assert home.array("optimizer/steps").tolist() == [0, 1]
    assert home.array(P).tolist() == [1.0]
    assert home.array(Q).tobytes() == expected.tobytes()
    assert home.array(f"{Q}/grad_avg").tobytes() == state["grad_avg"].tobytes()
    assert home.array(f"{P}/square_avg") is None


def test_a_frozen_parameter_stays():
    p, q = parameter([1.0]), parameter([2.0])
    optimizer = dragon_optim.RMSprop([p, q])
    backward(p, 1.0, q, 1.0)
    q.requires_grad = False
    graph, arrays = optimizer.update_graph()
    assert arrays["optimizer/mask"].tolist() == [1, 0]
    assert f"{Q}/grad" not in arrays
    found = run_exported(graph, arrays)
    assert found["optimizer/steps"].tolist() == [1, 0]
    assert found[Q].tolist() == [2.0]


def test_a_state_out_of_use_is_left_out():
    p = parameter([1.0])
    optimizer = dragon_optim.RMSprop([p], momentum=0.9)
    backward(p, 1.0)
    optimizer.step()
    optimizer.param_groups[0]["momentum"] = 0
    graph, arrays = optimizer.update_graph()
    assert f"{P}/momentum_buffer" not in arrays
    assert set(arrays) <= set(graph.input)
    assert_is_next_step(optimizer)


def test_hyper_parameters_are_in_a_tensor():
    p = parameter([1.0], "float64")
    optimizer = dragon_optim.RMSprop([p], lr=0.1, alpha=0.5)
    backward(p, 2.0)
    graph, arrays = optimizer.update_graph()
    fields = [field.key for field in dragon_optim.RMSprop.hyper_fields]
    assert arrays["optimizer/hyper"].shape == (1, len(fields))
    arrays["optimizer/hyper"][0, fields.index("lr")] = 0.3
    expected, _ = exact.step({"lr": 0.3, "alpha": 0.5}, values(p), np.full(1, 2.0), {})
    assert run_exported(graph, arrays)[P].tobytes() == expected.tobytes()
    optimizer.param_groups[0]["lr"] = 0.3
    again, new = optimizer.update_graph()
    assert again == graph
    assert new["optimizer/hyper"][0, 0] == 0.3


def test_parameters_go_by_their_names():
    model = torch.nn.Linear(3, 2)
    optimizer = dragon_optim.RMSprop(model.named_parameters(), momentum=0.9)
    model(torch.ones(4, 3)).sum().backward()
    graph, arrays = optimizer.update_graph()
    assert {"weight", "weight/grad", "bias", "bias/grad"} < set(arrays)
    assert {"weight/momentum_buffer", "bias/square_avg"} < set(graph.output)
    assert_is_next_step(optimizer)


@pytest.mark.parametrize(
    "names", [["a", "a/grad"], ["a", "optimizer/hyper"], ["a", ""], ["a/square_avg", "a"]], ids=str
)
def test_names_that_would_collide_give_way_to_places(names):
    p, q = parameter([1.0]), parameter([2.0])
    optimizer = dragon_optim.RMSprop(list(zip(names, [p, q])))
    backward(p, 1.0, q, 2.0)
    assert {P, Q} < set(optimizer.update_graph()[1])
    assert_is_next_step(optimizer)


def test_the_graph_does_not_depend_on_the_process():
    """Optimizers that are alike have equal graphs, whatever else there was before and between them."""

    def make():
        p, q = parameter([1.0]), parameter([2.0])
        return dragon_optim.RMSprop([{"params": [p]}, {"params": [q], "momentum": 0.9}])

    first = make()
    kept_alive = [parameter([0.0]) for _ in range(5)], make()
    second = make()
    assert first.update_graph()[0] == second.update_graph()[0]
    assert kept_alive
    shrunk = make()
    shrunk.param_groups[0]["params"].insert(0, parameter([5.0]))
    backward(shrunk.param_groups[0]["params"][1], 1.0)
    shrunk.step()
    del shrunk.param_groups[0]["params"][0]
    assert shrunk.update_graph()[0] == first.update_graph()[0]


def test_arrays_are_copies():
    p = parameter([1.0])
    optimizer = dragon_optim.RMSprop([p])
    backward(p, 1.0)
    optimizer.step()
    before = snapshot(optimizer, p)
    for array in optimizer.update_graph()[1].values():
        array[...] = 77
    assert snapshot(optimizer, p) == before


def test_an_empty_group_has_no_part():
    p = parameter([1.0])
    optimizer = dragon_optim.RMSprop([{"params": []}, {"params": [p], "lr": 0.1}])
    backward(p, 1.0)
    found = assert_is_next_step(optimizer)
    assert "param_groups/1/params/0" in found
    graph, arrays = dragon_optim.RMSprop([{"params": []}]).update_graph()
    assert (list(graph.op), arrays) == ([], {})


# --- calling it changes nothing -------------------------------------------------------------------


def test_calling_it_changes_nothing(ws):
    p, q = parameter([1.0, 2.0]), parameter([3.0])
    optimizer = dragon_optim.RMSprop([p, q], momentum=0.9)
    backward(p, 1.0)
    before, holdings = snapshot(optimizer, p, q), kept(ws)
    groups = repr(optimizer)
    optimizer.update_graph()
    assert snapshot(optimizer, p, q) == before
    assert kept(ws) == holdings  # no graph, no tensor, no memory
    assert repr(optimizer) == groups
    assert len(optimizer.state[p]) == 0


def test_many_calls_leave_nothing_behind(ws):
    p = parameter(np.ones(1000))
    optimizer = dragon_optim.RMSprop([p], momentum=0.9)
    backward(p, 1.0)
    optimizer.step()
    grown = growth(ws, lambda _: optimizer.update_graph(), first=200, then=1000)
    assert grown.after == grown.before
    assert grown.resident <= 1 << 20


# --- errors ---------------------------------------------------------------------------------------


def test_errors():
    p = parameter([1.0, 2.0])
    optimizer = dragon_optim.RMSprop([("p", p)])
    optimizer.param_groups[0]["lr"] = -1
    with pytest.raises(ValueError, match="^Invalid learning rate: -1"):
        optimizer.update_graph()
    optimizer.param_groups[0]["lr"] = 0.1
    feed_gradient(p, np.ones(3, "float32"))
    with pytest.raises(ValueError, match=r"gradient of p is float32 of shape \(3,\), but the parameter"):
        optimizer.update_graph()
    feed_gradient(p, np.ones(2, "float64"))
    with pytest.raises(ValueError, match="gradient of p is float64"):
        optimizer.update_graph()
    feed_gradient(p, np.ones(2, "float32"))
    optimizer.update_graph()
    with dragon.Workspace().as_default(), pytest.raises(RuntimeError, match="another Dragon workspace"):
        optimizer.update_graph()


def test_a_class_without_an_operator():
    with pytest.raises(NotImplementedError, match="names no operator"):
        dragon_optim.Optimizer([parameter([1.0])], {}).update_graph()


def test_a_subclass_gives_its_name():
    class Mine(dragon_optim.RMSprop):
        pass

    graph, _ = Mine([parameter([1.0])]).update_graph()
    assert isinstance(graph, dragon_pb2.GraphDef)
    assert graph.name == "Mine"
