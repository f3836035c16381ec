# SPDX-License-Identifier: BSD-2-Clause
"""`update_graph()`: what another process makes of the graph, and of arrays that do not fit it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from google.protobuf import text_format

import dragon_optim
from tests.optim.elsewhere import run_script
from tests.optim.support import backward, parameter

pytestmark = pytest.mark.usefixtures("ws")

CHILD = """
import json, sys
import dragon, numpy
import dragon_optim
from dragon.core.proto import dragon_pb2
from google.protobuf import text_format
folder, form = sys.argv[1:]
graph = dragon_pb2.GraphDef()
if form == "text":
    text_format.Parse(open(folder + "/graph.txt").read(), graph)
else:
    graph.ParseFromString(open(folder + "/graph.bin", "rb").read())
workspace = dragon.get_workspace()
for name in graph.input:
    workspace.create_tensor(name)
for name, array in numpy.load(folder + "/arrays.npz").items():
    workspace.get_tensor(name).FromNumpy(array)
graph_name = workspace.create_graph(graph)
for _ in range(3):
    workspace.run_graph(graph_name)
print(json.dumps({name: workspace.get_tensor(name).ToNumpy().tobytes().hex() for name in graph.output}))
"""


@pytest.mark.parametrize("form", ["binary", "text"])
def test_another_process_runs_it_to_the_same_bits(form, tmp_path):
    params = [parameter(np.linspace(-1, 1, 37)), parameter([[1.0, 2.0]], "float64"), parameter(2.0)]
    optimizer = dragon_optim.RMSprop(params, momentum=0.9, centered=True, clip_norm=0.5)
    for param, grad in zip(params, (0.3, -2.0, 0.1)):
        backward(param, grad)
    optimizer.step()
    graph, arrays = optimizer.update_graph()
    (tmp_path / "graph.bin").write_bytes(graph.SerializeToString())
    (tmp_path / "graph.txt").write_text(text_format.MessageToString(graph))
    np.savez(tmp_path / "arrays.npz", **arrays)
    child = run_script(CHILD, str(tmp_path), form)
    assert child.returncode == 0, child.stderr
    for _ in range(3):
        optimizer.step()
    _, expected = optimizer.update_graph()
    found = json.loads(child.stdout)
    assert set(found) == set(graph.output)
    assert {name: array.tobytes().hex() for name, array in expected.items() if name in found} == found


TAMPERED = """
import dragon, numpy, sys
from dragon.vm import torch
import dragon_optim
p, q = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))
((p * p).sum() + (q * q).sum()).backward()
groups = [{"params": [("q", q)]}, {"params": [("p", p)], "momentum": 0.9}]
graph, arrays = dragon_optim.RMSprop(groups).update_graph()
exec(sys.argv[1])
workspace = dragon.Workspace()
for name in graph.input:
    workspace.create_tensor(name)
for name, array in arrays.items():
    workspace.get_tensor(name).FromNumpy(array, True)
graph_name = workspace.create_graph(graph)
try:
    workspace.run_graph(graph_name)
except (ValueError, RuntimeError) as error:
    print(type(error).__name__, error)
for name in graph.output:
    tensor = workspace.get_tensor(name)
    if name in arrays:
        assert tensor.ToNumpy().tolist() == arrays[name].tolist(), name
    else:
        assert tensor.size == 0, name
"""

TAMPERINGS = {
    "a-gradient-of-another-shape": ("arrays['p/grad'] = numpy.ones(4, 'float32')", "gradient of parameter 0"),
    "a-gradient-of-another-dtype": ("arrays['p/grad'] = numpy.ones(3)", "gradient of parameter 0"),
    "no-parameter": ("del arrays['p']", "has no data"),
    "no-hyper-parameters": ("del arrays['optimizer/hyper']", "hyper-parameters is gone"),
    "no-mask": ("del arrays['optimizer/mask']", "mask is gone"),
    "no-steps": ("del arrays['optimizer/steps']", "step counts is gone"),
    "hyper-parameters-of-float32": (
        "arrays['optimizer/hyper'] = arrays['optimizer/hyper'].astype('float32')",
        r"hyper-parameters is float32 of shape \(2, 14\), but must be float64 and have 28 elements",
    ),
    "hyper-parameters-of-one-group": (
        "arrays['optimizer/hyper'] = arrays['optimizer/hyper'][:1].copy()",
        r"hyper-parameters is float64 of shape \(1, 14\), but must be",
    ),
    "a-mask-of-int32": (
        "arrays['optimizer/mask'] = arrays['optimizer/mask'].astype('int32')",
        "mask is int32 .* must be int64 and have 2 elements",
    ),
    "momentum-without-a-buffer": (
        "arrays['optimizer/hyper'][0, 4] = 0.9",
        "a state that the hyper-parameters need is not among its edges",
    ),
    "centered-without-an-average-in-the-last-group": (
        "arrays['optimizer/hyper'][1, 8] = 1",
        "a state that the hyper-parameters need is not among its edges",
    ),
    "a-nan": ("arrays['optimizer/hyper'][0, 0] = numpy.nan", "NaN"),
    "a-state-of-another-shape": ("arrays['p/square_avg'] = numpy.ones(2, 'float32')", "state of parameter 0"),
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_wrong_arrays_raise_and_change_nothing(tampering):
    code, words = TAMPERINGS[tampering]
    child = run_script(TAMPERED, code)
    assert child.returncode == 0, child.stderr
    assert re.search(words, child.stdout), child.stdout
