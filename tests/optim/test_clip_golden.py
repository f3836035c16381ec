# SPDX-License-Identifier: BSD-2-Clause
"""Global clipping beside what PyTorch made of the same gradients, and beside numpy in float64.

PyTorch sums a norm of float32 in float32, and of float16 rounds it to float16; it also rounds the factor
twice. So the limits are relative: 4 units in the last place of float32 (of float16, where it takes part), and
16 where it has sums of powers.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

import dragon_optim
from tests import exact_clip
from tests.clip_cases import CLIP_CASES, RECIPES, flat
from tests.optim.support import feed_gradient, parameter, values

RECORDING = Path(__file__).resolve().parents[1] / "golden" / "clip.npz"
TOLERANCE = {"float16": 4 * 2.0**-11, "float32": 4 * 2.0**-24, "float64": 8 * 2.0**-53}


@pytest.fixture(scope="module")
def recording():
    with np.load(RECORDING, allow_pickle=False) as data:
        return {name: json.loads(str(data[name])) if name == "meta" else data[name] for name in data.files}


def leaves(arrays, grads):
    """Parameters with these gradients; a gradient that is None is absent."""
    params = []
    for array, grad in zip(arrays, grads):
        params.append(parameter(array, array.dtype))
        if grad is not None:
            feed_gradient(params[-1], grad)
    return params


def run(case):
    grads = case.gradients()
    params = leaves(
        [np.zeros((), "float32") if each is None else np.zeros_like(each) for each in grads], grads
    )
    norm = getattr(dragon_optim, case.function)(params, *case.arguments)
    return [None if each.grad is None else values(each.grad) for each in params], norm


def tolerance(case):
    present = {dtype for place, dtype in enumerate(case.dtypes) if place != case.absent}
    powers = len(case.arguments) > 1 and case.arguments[1] in (0.5, 3, -1)
    return max(TOLERANCE[dtype] for dtype in present) * (4 if powers else 1)


def close(actual, expected, relative):
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return np.allclose(actual, expected, rtol=relative, atol=0, equal_nan=True)


@pytest.mark.parametrize("case", CLIP_CASES, ids=str)
def test_as_pytorch(case, recording):
    meta = recording["meta"]
    assert zlib.crc32(flat(case.gradients()).tobytes()) == meta["inputs"][case.name], "record again"
    grads, norm = run(case)
    assert close(flat(grads), recording[f"case/{case}"], tolerance(case))
    recorded = meta["norms"][case.name]
    if recorded is None:
        assert norm is None
    else:
        assert tuple(norm.shape) == ()
        assert norm.dtype == ("float32" if recorded[1] == "float16" else recorded[1])
        assert close(values(norm), recorded[0], tolerance(case))


@pytest.mark.parametrize("case", CLIP_CASES, ids=str)
def test_to_the_last_bit_as_numpy(case):
    """What the documentation says: sums in float64, the norm rounded once, then the factor once."""
    given = [each for each in case.gradients() if each is not None]
    if case.function == "clip_grad_value_":
        expected = [exact_clip.clamp(each, case.arguments[0]) for each in given]
    else:
        order = float((*case.arguments, 2.0)[1])
        wide = any(each.dtype == np.float64 for each in given)
        terms = [exact_clip.norm_term(each, order) for each in given]
        expected_norm = (np.float64 if wide else np.float32)(exact_clip.norm_of_terms(order, terms))
        with np.errstate(all="ignore"):
            ratio = np.float64(case.arguments[0]) / (np.float64(expected_norm) + 1e-6)
        expected = given if ratio >= 1 else [exact_clip.scale(each, ratio) for each in given]
    grads, norm = run(case)
    for ours, theirs in zip([each for each in grads if each is not None], expected):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs, equal_nan=True)
    if norm is not None:
        assert values(norm).dtype == expected_norm.dtype
        assert np.array_equal(values(norm), expected_norm, equal_nan=True)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_recipes(recipe, recording):
    """PyTorch's parameters after twelve steps, of which some were clipped and some not."""
    params = leaves(recipe.parameters(), [None] * len(recipe.parameters()))
    optimizer = dragon_optim.RMSprop(params, **recipe.options)
    norms = []
    changed = 0
    for step in range(recipe.steps):
        for param, grad in zip(params, recipe.gradients(step)):
            feed_gradient(param, grad)
        norm = getattr(dragon_optim, recipe.function)(params, recipe.argument)
        norms.append(0.0 if norm is None else float(norm))
        changed += any(
            not np.array_equal(values(param.grad), grad)
            for param, grad in zip(params, recipe.gradients(step))
        )
        optimizer.step()
    assert 0 < changed < recipe.steps
    assert close(norms, recording["meta"]["recipes"][recipe.name], TOLERANCE["float32"])
    moved = flat([values(each) for each in params]) - flat(recipe.parameters())
    recorded = recording[f"recipe/{recipe}"] - flat(recipe.parameters())
    # Parameters are near 1, and each of the steps rounds them.
    assert np.allclose(moved, recorded, rtol=1e-5, atol=recipe.steps * 2.0**-24)
    assert np.abs(recorded).max() > 1000 * recipe.steps * 2.0**-24
