# SPDX-License-Identifier: BSD-2-Clause
"""`install()`: `torch.optim` hands out our classes, and gives its own back whatever happened meanwhile."""

from __future__ import annotations

import copy
import importlib
import inspect
import itertools
import pickle
import sys
import threading
import time

import numpy as np
import pytest
from dragon.vm import torch
from dragon.vm.torch.core.optim import rmsprop as core

import dragon_optim
from tests.optim.elsewhere import in_thread, run_script
from tests.optim.support import backward, parameter, values

STOCK = core.RMSprop
NAME = "dragon.vm.torch.optim"


@pytest.fixture(autouse=True)
def as_before():
    """Every test leaves Dragon's names as it found them."""
    modules, names = dict(sys.modules), dict(vars(torch.optim))
    assert names["RMSprop"] is STOCK
    yield
    assert dict(vars(torch.optim)) == names
    assert sys.modules.get(NAME) is modules.get(NAME)
    assert f"{NAME}.lr_scheduler" not in sys.modules


@pytest.fixture
def optim():
    return torch.optim


class Theirs:
    """What somebody else puts under the name."""


# --- what is handed out ---------------------------------------------------------------------------


def test_an_optimizer_made_meanwhile_is_ours(optim):
    handle = dragon_optim.install()
    try:
        optimizer = optim.RMSprop([parameter([1.0])], lr=0.5, centered=True)
        assert type(optimizer) is dragon_optim.RMSprop
        assert isinstance(optimizer, optim.Optimizer)
    finally:
        handle.remove()
    assert optim.RMSprop is STOCK
    param = optimizer.param_groups[0]["params"][0]
    backward(param, 1.0)
    optimizer.step()
    assert values(param) == pytest.approx([1 - 0.5 * 1 / np.sqrt(0.01 - 0.01**2)], rel=1e-5)


def test_everything_else_stays(optim):
    def others():
        ours = ("RMSprop", "lr_scheduler")
        return {name: each for name, each in vars(optim).items() if name not in ours}

    before = others()
    with dragon_optim.install():
        assert others() == before
        assert core.RMSprop is STOCK


def test_dragons_own_class_still_works():
    """It asks for itself by the name `RMSprop` of its module."""

    class Own(STOCK):
        pass

    with dragon_optim.install():
        for cls in (STOCK, Own):
            assert type(cls([parameter([1.0])], lr=0.5)) is cls
        stock = STOCK([parameter([1.0])])
        assert type(copy.deepcopy(stock)) is STOCK
        assert type(pickle.loads(pickle.dumps(stock))) is STOCK


def test_subclasses_are_of_ours(optim):
    with dragon_optim.install():

        class Own(optim.RMSprop):
            def __init__(self, params, lr):
                super().__init__(params, lr, momentum=0.5)

        optimizer = Own([parameter([1.0])], 0.25)
    assert isinstance(optimizer, dragon_optim.RMSprop)
    assert optimizer.param_groups[0]["momentum"] == 0.5


def test_what_dragon_takes_by_position_means_the_same_here():
    ours, stock = (
        [
            (name, each.default)
            for name, each in inspect.signature(cls).parameters.items()
            if each.kind is each.POSITIONAL_OR_KEYWORD
        ]
        for cls in (dragon_optim.RMSprop, STOCK)
    )
    assert ours == stock
    arguments = (0.5, 0.25, 0.125, 0.0625, 0.75, False)
    keywords = {"grad_scale": 0.5, "clip_norm": 2.0, "clip_value": 0.0}
    groups = [
        cls([parameter([1.0])], *arguments, **keywords).param_groups[0]
        for cls in (dragon_optim.RMSprop, STOCK)
    ]
    shared = set(groups[1]) - {"params", "name"}
    assert {key: groups[0][key] for key in shared} == {key: groups[1][key] for key in shared}
    assert set(keywords) < shared
    with pytest.raises(TypeError, match="positional"):
        dragon_optim.RMSprop([parameter([1.0])], *arguments, 1.0)


def test_a_pickle_made_meanwhile_needs_no_installation(optim, tmp_path):
    with dragon_optim.install():
        optimizer = optim.RMSprop([parameter([1.0])], lr=0.5)
    path = tmp_path / "optimizer"
    path.write_bytes(pickle.dumps(optimizer))
    code = """
import pickle, sys
optimizer = pickle.load(open(sys.argv[1], "rb"))
import dragon_optim
assert type(optimizer) is dragon_optim.RMSprop
assert optimizer.param_groups[0]["lr"] == 0.5
"""
    outcome = run_script(code, str(path))
    assert outcome.returncode == 0, outcome.stderr


# --- every way to import it -----------------------------------------------------------------------

WAYS = {
    "attribute": "from dragon.vm import torch\nfound = torch.optim.RMSprop",
    "module": "from dragon.vm.torch import optim\nfound = optim.RMSprop",
    "name": "from dragon.vm.torch.optim import RMSprop as found",
    "star": "from dragon.vm.torch.optim import *\nfound = RMSprop",
    "dotted": "import dragon.vm.torch.optim\nfound = dragon.vm.torch.optim.RMSprop",
    "dotted-as": "import dragon.vm.torch.optim as optim\nfound = optim.RMSprop",
    "importlib": "import importlib\nfound = importlib.import_module('dragon.vm.torch.optim').RMSprop",
    "inner": "from dragon.vm.torch._api.optim import RMSprop as found",
}

CHECK_WAYS = """
import sys, dragon_optim
from dragon.vm.torch.core.optim.rmsprop import RMSprop as stock
ways = {ways!r}

def found(way):
    names = {{}}
    exec(ways[way], names)
    return names["found"]

{before}
with dragon_optim.install():
    for way in {order!r}:
        assert found(way) is dragon_optim.RMSprop, way
{after}
for way in {order!r}:
    assert found(way) is stock, way
with dragon_optim.install():
    for way in ways:
        assert found(way) is dragon_optim.RMSprop, way
for way in ways:
    assert found(way) is stock, way
"""


@pytest.mark.parametrize("before", ["", "import dragon.vm.torch.optim", "kept = found('attribute')"])
@pytest.mark.parametrize("first", ["attribute", "dotted"])
def test_every_way_to_import(before, first):
    """In processes of their own: which modules there are depends on what was imported first."""
    order = sorted(WAYS, key=lambda way: way != first)
    after = f"assert ('dragon.vm.torch.optim' in sys.modules) == ('import' in {before!r})"
    outcome = run_script(CHECK_WAYS.format(ways=WAYS, before=before, order=order, after=after))
    assert outcome.returncode == 0, outcome.stderr


def test_both_modules_are_covered():
    """`torch.optim` as it was at first, and the module that Dragon makes of the same file afterwards."""
    code = """
from dragon.vm import torch
first = torch.optim
import dragon.vm.torch.optim
assert torch.optim is not first
import dragon_optim
stock = first.RMSprop
with dragon_optim.install():
    assert first.RMSprop is torch.optim.RMSprop is dragon_optim.RMSprop
assert first.RMSprop is torch.optim.RMSprop is stock
"""
    outcome = run_script(code)
    assert outcome.returncode == 0, outcome.stderr


# --- handles --------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_nested_and_removed_in_any_order(optim, order):
    handles = [dragon_optim.install() for _ in range(3)]
    for number in order:
        assert optim.RMSprop is dragon_optim.RMSprop
        handles[number].remove()
    assert optim.RMSprop is STOCK


def test_to_remove_twice_does_nothing(optim):
    first, second = dragon_optim.install(), dragon_optim.install()
    first.remove()
    first.remove()
    assert optim.RMSprop is dragon_optim.RMSprop
    second.remove()
    second.remove()
    assert optim.RMSprop is STOCK


def test_a_with_block_that_raises_removes_it(optim):
    handles = []

    def fail():
        with dragon_optim.install() as handle:
            handles.append(handle)
            assert optim.RMSprop is dragon_optim.RMSprop
            raise KeyError("theirs")

    with pytest.raises(KeyError, match="theirs"):
        fail()
    assert optim.RMSprop is STOCK
    handles[0].remove()
    assert optim.RMSprop is STOCK


def test_what_somebody_put_over_ours_stays(optim):
    handle = dragon_optim.install()
    optim.RMSprop = Theirs
    handle.remove()
    assert optim.RMSprop is Theirs
    optim.RMSprop = STOCK


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=str)
def test_somebody_between_two_installations(optim, order):
    handles = [dragon_optim.install()]
    optim.RMSprop = Theirs
    handles.append(dragon_optim.install())
    assert optim.RMSprop is dragon_optim.RMSprop
    handles[order[0]].remove()
    assert optim.RMSprop is (Theirs if order[0] == 1 else dragon_optim.RMSprop)
    handles[order[1]].remove()
    assert optim.RMSprop is Theirs
    optim.RMSprop = STOCK


def test_somebody_who_gives_ours_back_too_late(optim):
    """As a patch does that began inside of the installation and ends after it."""
    with dragon_optim.install():
        kept = optim.RMSprop
        optim.RMSprop = Theirs
    optim.RMSprop = kept
    with dragon_optim.install():
        assert optim.RMSprop is dragon_optim.RMSprop
    assert optim.RMSprop is STOCK


def test_somebody_who_had_put_ours_there_by_hand():
    code = """
from dragon.vm import torch
import dragon_optim
torch.optim.RMSprop = dragon_optim.RMSprop
dragon_optim.install().remove()
assert torch.optim.RMSprop is dragon_optim.RMSprop
"""
    outcome = run_script(code)
    assert outcome.returncode == 0, outcome.stderr


def test_reload_brings_dragons_name_back_until_the_next_installation(optim):
    handle = dragon_optim.install()
    assert importlib.reload(optim) is optim
    assert optim.RMSprop is STOCK
    again = dragon_optim.install()
    assert optim.RMSprop is dragon_optim.RMSprop
    handle.remove()
    assert optim.RMSprop is dragon_optim.RMSprop
    again.remove()
    assert optim.RMSprop is STOCK


def test_holds_in_every_thread(optim):
    with dragon_optim.install():
        assert in_thread(lambda: optim.RMSprop) is dragon_optim.RMSprop
    handle = in_thread(dragon_optim.install)
    assert optim.RMSprop is dragon_optim.RMSprop
    handle.remove()
    assert in_thread(lambda: optim.RMSprop) is STOCK


def test_many_threads_install_and_remove(optim):
    """Each hands over to another one at every line of the module."""
    wrong = []

    def hand_over(frame, event, argument):
        if frame.f_globals.get("__name__") != "dragon_optim.installation":
            return None
        time.sleep(1e-6)
        return hand_over

    def work():
        sys.settrace(hand_over)
        for _ in range(20):
            with dragon_optim.install():
                if optim.RMSprop is not dragon_optim.RMSprop:
                    wrong.append(optim.RMSprop)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- schedulers -----------------------------------------------------------------------------------


def test_the_schedulers_of_the_package_are_handed_out_too(optim):
    schedulers = dragon_optim.lr_scheduler
    assert "lr_scheduler" not in vars(optim)  # Dragon has none
    with dragon_optim.install(), dragon_optim.install():
        assert optim.lr_scheduler is schedulers
        names = {}
        exec("from dragon.vm.torch.optim.lr_scheduler import StepLR", names)
        assert names["StepLR"] is schedulers.StepLR
        assert importlib.import_module(f"{NAME}.lr_scheduler") is schedulers
        importlib.reload(optim)
    assert [name for name in optim.__all__ if not hasattr(optim, name)] == []  # else no one could import *
    assert "lr_scheduler" not in vars(optim)
