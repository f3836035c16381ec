# SPDX-License-Identifier: BSD-2-Clause
"""Running an exported update far from the optimizer that it came from."""

from __future__ import annotations

import dragon
import numpy as np

import dragon_optim
from tests.optim.runs import STATES, Run
from tests.optim.support import parameter


class Home:
    """A workspace in which one exported graph lives."""

    def __init__(self, graph, arrays):
        self.workspace = dragon.Workspace()
        self.load(graph)
        self.feed(arrays)

    def load(self, graph):
        self.graph = graph
        for name in graph.input:
            self.workspace.create_tensor(name)
        self._name = self.workspace.create_graph(graph)

    def feed(self, arrays):
        for name, array in arrays.items():
            self.workspace.get_tensor(name).FromNumpy(np.array(array), True)

    def run(self):
        self.workspace.run_graph(self._name)

    def array(self, name):
        """A copy, or None where the tensor has no data."""
        tensor = self.workspace.get_tensor(name)
        return None if tensor is None or tensor.size == 0 else np.array(tensor.ToNumpy())


def run_exported(graph, arrays) -> dict:
    """The values of everything that the graph writes."""
    home = Home(graph, arrays)
    home.run()
    found = {name: home.array(name) for name in graph.output}
    return {name: array for name, array in found.items() if array is not None}


class ExportedRun(Run):
    """A case of the tables that never calls `step()`: the graph of a fresh optimizer does all of it."""

    def __init__(self, case, dtype, **arguments):
        self.case, self.dtype = case, dtype
        self.params = [parameter(array, dtype) for array in case.parameters(dtype)]
        groups = [dict(options, params=[self.params[i] for i in places]) for options, places in case.groups()]
        self.optimizer = dragon_optim.RMSprop(groups, **arguments)
        self.names = [
            f"param_groups/{number}/params/{position}"
            for number, group in enumerate(groups)
            for position in range(len(group["params"]))
        ]
        self.home = Home(*self.optimizer.update_graph())

    def steps(self):
        home = self.home
        for step in range(self.case.steps):
            for group in self.optimizer.param_groups:
                group.update(self.case.schedule.get(step, {}))
            graph, arrays = self.optimizer.update_graph()
            if graph != home.graph:  # a state has come or gone
                home.load(graph)
            home.feed({"optimizer/hyper": arrays["optimizer/hyper"]})
            for place, name in enumerate(self.names):
                grad = self.case.gradient(step, place, self.dtype)
                if grad is None:
                    home.workspace.get_tensor(f"{name}/grad").Reset()
                else:
                    home.feed({f"{name}/grad": grad})
            home.run()
            yield self.snapshot()

    def snapshot(self):
        steps = self.home.array("optimizer/steps")
        entries = []
        for number, name in enumerate(self.names):
            entry = {state: self.home.array(f"{name}/{state}") for state in STATES}
            entry = {state: array for state, array in entry.items() if array is not None}
            entries.append(dict(entry, param=self.home.array(name), step=int(steps[number])))
        return entries
