# SPDX-License-Identifier: BSD-2-Clause
"""A step in a Dragon process group: two real processes, under mpirun.

Three scripts of `ranks/` do many things each, since a start of mpirun costs seconds. What they report is
looked at here, one test for one scenario. A rank that waits for ever is what can go wrong most easily, so the
scripts have a time limit: a scenario that was not reported hung, or ended the process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dragon_optim
from tests.optim.ranks import changes, errors, trajectories
from tests.optim.support import feed_gradient, parameter

pytestmark = pytest.mark.skipif(shutil.which("mpirun") is None, reason="there is no mpirun on the PATH")

FOLDER = Path(__file__).resolve().parent / "ranks"
ROOT = FOLDER.parents[2]
TIME_LIMIT = 45


class Reports:
    """What the two ranks of one script have reported."""

    def __init__(self, folder, script):
        self._script = script
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path]))
        command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "2", sys.executable]
        # A session of its own: when the time is up, both ranks go too, not mpirun alone.
        process = subprocess.Popen(
            [*command, str(FOLDER / f"{script}.py"), str(folder)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            self._output, _ = process.communicate(timeout=TIME_LIMIT)
            self.ending = f"exit code {process.returncode}"
        except subprocess.TimeoutExpired:
            process.terminate()  # mpirun passes it on to its ranks
            try:
                self._output, _ = process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                self._output, _ = process.communicate()
            self.ending = f"no end within {TIME_LIMIT} seconds"
        self._ranks = [self._read(folder / f"rank-{rank}.jsonl") for rank in range(2)]

    @staticmethod
    def _read(path):
        return dict(json.loads(line) for line in path.read_text().splitlines()) if path.exists() else {}

    def of(self, scenario) -> list:
        """What rank 0 and rank 1 say."""
        missing = [rank for rank in range(2) if scenario not in self._ranks[rank]]
        if missing:
            last = [list(reports)[-1:] for reports in self._ranks]
            pytest.fail(
                f"ranks {missing} did not come through {scenario!r}; last reports: {last}; "
                f"{self._script}.py: {self.ending}\n" + self._output[-2000:]
            )
        return [reports[scenario] for reports in self._ranks]


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    return Reports(tmp_path_factory.mktemp("train"), "train")


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    return Reports(tmp_path_factory.mktemp("errors"), "errors")


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    return Reports(tmp_path_factory.mktemp("changes"), "changes")


@pytest.mark.parametrize("trajectory", trajectories.TRAJECTORIES, ids=str)
def test_ranks_are_one_training_on_the_means(train, trajectory):
    """Both ranks end with the bits of one process that was given the means; `.grad` holds the mean.

    Where a rank has no gradient, zero counts in its place; where none has one, nothing is updated.
    """
    expected = trajectories.play(trajectory, trajectory.mean)
    for rank, entries in enumerate(train.of(trajectory.name)):
        for place, (ours, theirs) in enumerate(zip(entries, expected)):
            if trajectory.passes:  # the mean is in place of the sum; `.grad` is the last pass's, or none
                ours, theirs = dict(ours, grad=None), dict(theirs, grad=None)
            wrong = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
            assert not wrong, f"rank {rank}, parameter {place}: {wrong}"


def test_trajectories_mean_something():
    """The scenarios above differ from each other, and from what each rank would do by itself."""
    by_name = {each.name: each for each in trajectories.TRAJECTORIES}
    ends = {name: json.dumps(trajectories.play(each, each.mean)) for name, each in by_name.items()}
    # Twice the same: the order in which operators run does not matter.
    assert len(set(ends.values())) >= len(ends) - 1
    clipped = by_name["clip-norm"]
    norms = [
        np.linalg.norm(clipped.gradient(step, rank, 2)) for step in range(clipped.steps) for rank in range(2)
    ]
    assert min(norms) > 10 * clipped.options["clip_norm"]
    alone = trajectories.play(clipped, lambda step, place: clipped.gradient(step, 0, place))
    assert json.dumps(alone) != ends["clip-norm"]


@pytest.mark.parametrize("kind", ["a group of one rank", "the empty group", "no group"])
def test_without_others(train, kind):
    """A group in which there is nobody to wait for is no group."""
    for rank, entries in enumerate(train.of(f"alone: {kind}")):
        expected = trajectories.play(
            trajectories.ALONE, lambda step, place, rank=rank: trajectories.ALONE.gradient(step, rank, place)
        )
        assert entries == expected, f"rank {rank}"


def two_good_steps():
    params = [parameter(np.ones(shape)) for shape in ((3,), (2, 2))]
    optimizer = dragon_optim.RMSprop(params, lr=0.1, momentum=0.9)
    for param in params:
        feed_gradient(param, np.full(param.shape, 1.5, "float32"))
    optimizer.step()
    optimizer.step()
    return [dict(trajectories.snapshot(optimizer, param), grad=None) for param in params]


# What the rank says on which something is wrong.
WORDS = {
    errors.bad_lr: ("ValueError", "Invalid learning rate: -1.0"),
    errors.nan_alpha: ("ValueError", "Invalid alpha value: nan"),
    errors.no_eps: ("KeyError", "eps"),
    errors.no_list: ("TypeError", "must be a list of Tensors"),
    errors.bad_shape: ("ValueError", "float32 of shape (4,), but the parameter is float32 of shape (2, 2)"),
    errors.bad_dtype: ("ValueError", "float64 of shape (2, 2), but the parameter is float32"),
    errors.other_workspace: ("RuntimeError", "another Dragon workspace"),
    errors.fine: ("RuntimeError", "another rank of the process group found an error"),
}


@pytest.mark.parametrize("foreach", ["", ", foreach=False"])
@pytest.mark.parametrize("scenario", errors.WRONG)
def test_an_error_is_everyones(failures, scenario, foreach):
    """The rank that finds an error raises it, the others say that one did; nothing has changed.

    The error may lie in the second group: the first has not moved either. After it is put right, training
    goes on.
    """
    for rank, (result, sabotage) in enumerate(zip(failures.of(scenario + foreach), errors.WRONG[scenario])):
        kind, words = WORDS[sabotage]
        assert result["raised"] == kind, f"rank {rank}: {result['message']}"
        assert words in result["message"], f"rank {rank}"
        assert not result["changed"], f"rank {rank}"
        assert result["after"] == two_good_steps(), f"rank {rank}: the next good step"


def test_a_closure_that_raises(failures):
    """Also what a closure raises on one rank: the other one waits for it in the reduction."""
    other, failed = failures.of("failing-closure")
    assert (failed["raised"], failed["message"]) == ("ZeroDivisionError", "the loss of rank 1")
    assert other["raised"] == "RuntimeError"
    assert not failed["changed"]
    assert not other["changed"]
    assert failed["after"] == other["after"] == two_good_steps()


@pytest.mark.parametrize("difference", [*errors.DIFFERENT_MODELS, "requires_grad"])
def test_different_models(failures, difference):
    """Ranks with different models cannot be averaged.

    Float16 is the same on both, but MPI cannot reduce it on the CPU.
    """
    words = (
        "cannot reduce float16"
        if difference == "float16"
        else "the ranks of the process group hold different parameters"
    )
    for rank, result in enumerate(failures.of(f"different {difference}")):
        for attempt in (result, result["second"]):
            assert attempt["raised"] == "RuntimeError", f"rank {rank}"
            assert words in attempt["message"], f"rank {rank}"
            assert not attempt["changed"], f"rank {rank}"
        assert result["stepped"] == 0, f"rank {rank}: no state was made"


def test_group_works_after_different_models(failures):
    for result in failures.of("after different models"):
        assert result["after"] == two_good_steps()


def stepped(*steps):
    """Parameters of ones that took `steps[i]` steps with a gradient of ones."""
    entries = []
    for place, count in enumerate(steps):
        param = parameter(np.ones(SIZES[len(steps)][place]))
        feed_gradient(param, np.ones(param.shape, "float32"))
        optimizer = dragon_optim.RMSprop([param], lr=changes.LR)
        for _ in range(count):
            optimizer.step()
        entries.append(trajectories.snapshot(optimizer, param))
    return entries


SIZES = {1: [4], 2: [2, 3], 4: [2, 3, 2, 3]}

# Scenario -> the steps of each parameter.
CHANGES = {
    "group-comes": (2, 1),
    "lists-change": (3, 2, 2, 2),
}


@pytest.mark.parametrize("scenario", CHANGES)
def test_parameters_come_and_go(changed, scenario):
    for rank, entries in enumerate(changed.of(scenario)):
        assert entries == stepped(*CHANGES[scenario]), f"rank {rank}"


@pytest.mark.parametrize("scenario", ["other-groups", "made-anew", "cleared"])
def test_groups_and_workspaces_come_and_go(changed, scenario):
    """After `ws.clear()` or `reset_workspace()`, new optimizers work in a process group, too."""
    for rank, entries in enumerate(changed.of(scenario)):
        assert entries == stepped(1) * len(entries), f"rank {rank}"


@pytest.mark.parametrize("script", ["train", "failures", "changed"])
def test_scripts_end_well(script, request):
    assert request.getfixturevalue(script).ending == "exit code 0"
