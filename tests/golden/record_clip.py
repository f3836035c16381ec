# SPDX-License-Identifier: BSD-2-Clause
"""Record what PyTorch's own functions make of `clip_cases.py`: `clip.npz`.

    python -m tests.golden.record_clip            # in an environment with PyTorch
    python -m tests.golden.record_clip --check    # runs again and compares

Of each case the norm and its dtype and all gradients afterwards; of each recipe the norms and the parameters
after the last step.
"""

import json
import sys
import zlib
from pathlib import Path

import numpy as np
import torch

from tests.clip_cases import CLIP_CASES, RECIPES, flat

PATH = Path(__file__).with_name("clip.npz")


def leaves(arrays):
    return [torch.nn.Parameter(torch.tensor(each)) for each in arrays]


def feed(params, grads):
    for param, grad in zip(params, grads):
        param.grad = None if grad is None else torch.tensor(grad)


def clip(case, arguments, params):
    return getattr(torch.nn.utils, case.function)(params, *arguments)


def record_case(case):
    grads = case.gradients()
    params = leaves([np.zeros((), "float32") if each is None else each for each in grads])
    feed(params, grads)
    norm = clip(case, case.arguments, params)
    result = flat([None if each.grad is None else each.grad.numpy() for each in params])
    return result, None if norm is None else (float(norm), str(norm.dtype)[len("torch.") :])


def record_recipe(recipe):
    params = leaves(recipe.parameters())
    optimizer = torch.optim.RMSprop(params, **recipe.options)
    norms = []
    for step in range(recipe.steps):
        feed(params, recipe.gradients(step))
        norm = clip(recipe, (recipe.argument,), params)
        norms.append(0.0 if norm is None else float(norm))
        optimizer.step()
    return flat([each.detach().numpy() for each in params]), norms


def main():
    arrays, meta = {}, {"torch": torch.__version__, "norms": {}, "recipes": {}, "inputs": {}}
    for case in CLIP_CASES:
        arrays[f"case/{case}"], meta["norms"][case.name] = record_case(case)
        meta["inputs"][case.name] = zlib.crc32(flat(case.gradients()).tobytes())
    for recipe in RECIPES:
        arrays[f"recipe/{recipe}"], meta["recipes"][recipe.name] = record_recipe(recipe)
    # Most gradients were float32, and none more than float64: narrower where nothing is lost.
    for name, array in arrays.items():
        narrow = array.astype("float32")
        if np.array_equal(narrow, array, equal_nan=True):
            arrays[name] = narrow
    if "--check" in sys.argv:
        with np.load(PATH) as recorded:
            assert json.loads(str(recorded["meta"])) == json.loads(json.dumps(meta))
            assert all(np.array_equal(recorded[name], each, equal_nan=True) for name, each in arrays.items())
        return
    np.savez_compressed(PATH, meta=json.dumps(meta), **arrays)


if __name__ == "__main__":
    main()
