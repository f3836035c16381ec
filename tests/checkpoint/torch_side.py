# SPDX-License-Identifier: BSD-2-Clause
"""What real PyTorch writes, and what it thinks of files written by us. Run by a Python that has torch.

python -m tests.checkpoint.torch_side write FOLDER    # the cases, and expected.json
python -m tests.checkpoint.torch_side check FOLDER    # each file against expected.json, which lies with them
"""

from __future__ import annotations

import collections
import json
import sys
from pathlib import Path

import torch

from tests.checkpoint.description import describe


def numbers(*shape, dtype=torch.float32):
    count = 1
    for each in shape:
        count *= each
    return (torch.arange(count, dtype=torch.float64) * 1.25 - 3).reshape(shape).to(dtype)


def shared():
    base = numbers(4, 3)
    return {"all": base, "row": base[2], "column": base[:, 1], "again": base, "pair": [base[0], base[0:2]]}


def training():
    torch.manual_seed(7)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01, momentum=0.9, centered=True)
    for _ in range(3):
        optimizer.zero_grad()
        model(numbers(5, 3)).square().sum().backward()
        optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    settings = {
        "lr": 0.1,
        "name": "digits",
        "sizes": (3, 4),
        "size": model[0].weight.shape,
        "half": torch.float16,
    }
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "settings": settings,
    }


def parameters():
    first = torch.nn.Parameter(numbers(2, 2))
    frozen = torch.nn.Parameter(numbers(3), requires_grad=False)
    leaf = numbers(2).requires_grad_()
    return collections.OrderedDict(first=first, frozen=frozen, leaf=leaf, again=[first, (first, leaf)])


def tied():
    model = torch.nn.ModuleDict(
        {"a": torch.nn.Linear(2, 2, bias=False), "b": torch.nn.Linear(2, 2, bias=False)}
    )
    model["a"].weight = model["b"].weight = torch.nn.Parameter(numbers(2, 2))
    return model.state_dict()


def plain():
    return {
        "none": None,
        "bools": [True, False],
        "ints": [0, 1, 255, 256, 65535, 65536, -1, 2**31 - 1, -(2**31), 2**31, 2**63, -(2**200)],
        "floats": [0.0, -0.0, 1.5, float("inf"), 1e-320],
        "strings": ["", "a", "naïve ☃ 😀", "\udc80", "x" * 300],
        "bytes": [b"", b"abc", bytes(range(256)), b"y" * 300],
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "nested": [[], {}, [[[{}]]]],
        1: "int key",
        -5: "negative key",
        2.5: "float key",
        None: "none key",
    }


DTYPES = ("int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64", "bfloat16")
UNTYPED = ("uint16", "uint32")

CASES = {
    "dtypes": lambda: {name: numbers(2, 3, dtype=getattr(torch, name)).abs() for name in DTYPES},
    "bool": lambda: numbers(7) > 0,
    "untyped": lambda: {name: numbers(5).abs().to(torch.int32).to(getattr(torch, name)) for name in UNTYPED},
    "bfloat16": lambda: {"model": [numbers(3, 3).bfloat16(), numbers(4).bfloat16()[::2]], "x": numbers(2)},
    "strided": lambda: numbers(6, 4)[::2, 1::2],
    "transposed": lambda: {"t": numbers(3, 5).t(), "permuted": numbers(2, 3, 4).permute(2, 0, 1)},
    "expanded": lambda: {"row": numbers(1, 3).expand(4, 3), "scalar": numbers(1)[0].expand(2, 2)},
    "sliced": lambda: numbers(100)[37:41],
    "diagonal": lambda: numbers(4, 4).diagonal(),
    "shared": shared,
    "zero_dim": lambda: [torch.tensor(2.5), torch.tensor(7), torch.tensor(True)],
    "empty": lambda: [
        torch.empty(0),
        torch.empty(2, 0, dtype=torch.float64),
        torch.empty(0, 3, dtype=torch.int64),
    ],
    "empty_slice": lambda: numbers(5)[5:],
    "channels_last": lambda: numbers(1, 2, 3, 4).to(memory_format=torch.channels_last),
    "training": training,
    "parameters": parameters,
    "tied": tied,
    "plain": plain,
    "bare": lambda: numbers(2, 2),
    "just_a_number": lambda: 7,
}
PROTOCOLS = (3, 4, 5)


def write(folder: Path) -> None:
    expected = {"torch": torch.__version__, "files": {}}
    files = {name: (make, 2) for name, make in CASES.items()}
    for protocol in PROTOCOLS:
        for name in ("training", "parameters", "plain"):
            files[f"{name}_protocol_{protocol}"] = (CASES[name], protocol)
    for name, (make, protocol) in files.items():
        value = make()
        torch.save(value, folder / f"{name}.pt", pickle_protocol=protocol)
        expected["files"][name] = describe(value)
    refused = {
        "complex": torch.zeros(2, dtype=torch.complex64),
        "quantized": torch.quantize_per_tensor(numbers(3), 0.1, 0, torch.quint8),
        "sparse": torch.eye(3).to_sparse(),
        "float8": numbers(3).to(torch.float8_e5m2),
        "uint64": numbers(3).abs().to(torch.int64).to(torch.uint64),
        "meta": torch.zeros(2, device="meta"),
        "negated": torch.view_as_complex(numbers(2, 2)).conj().imag,
        "module": torch.nn.Linear(2, 2),
        "set": {1, 2},
        "storage": numbers(3).untyped_storage(),
    }
    for name, value in refused.items():
        torch.save({"model": [value]}, folder / f"refused_{name}.pt")
    torch.save(numbers(3), folder / "refused_legacy.pt", _use_new_zipfile_serialization=False)
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), folder / "refused_script.pt")
    torch.serialization.set_crc32_options(False)
    torch.save(numbers(3), folder / "refused_no_checksums.pt")
    torch.serialization.set_crc32_options(True)
    (folder / "expected.json").write_text(json.dumps(expected, indent=0) + "\n")


def check(folder: Path, mmaps=(False, True)) -> None:
    expected = json.loads((folder / "expected.json").read_text())["files"]
    for name, description in expected.items():
        for mmap in mmaps:
            loaded = torch.load(folder / f"{name}.pt", weights_only=True, mmap=mmap)
            assert json.loads(json.dumps(describe(loaded))) == description, (name, mmap)
    print(f"torch {torch.__version__} accepts {len(expected)} files")


if __name__ == "__main__":
    JOBS = {"write": write, "check": check, "check_without_mmap": lambda folder: check(folder, (False,))}
    JOBS[sys.argv[1]](Path(sys.argv[2]))
