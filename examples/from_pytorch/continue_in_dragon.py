# SPDX-License-Identifier: BSD-2-Clause
"""Open a checkpoint of PyTorch, continue the training in Dragon, and compare with PyTorch's own end.

    python examples/from_pytorch/continue_in_dragon.py    # a second; PyTorch is not needed

PyTorch trained on from the same checkpoint and recorded its gradients (record.py). Here the model and the
optimizer start from the checkpoint and get these gradients, so that every difference at the end comes from
the optimizer. Then a checkpoint is written that PyTorch can open.
"""

import argparse
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
from dragon.vm import torch
from dragon.vm.torch import nn
from units import LIMIT, distance

from dragon_optim import RMSprop, checkpoint

FOLDER = Path(__file__).parent

# What PyTorch arrived at, as it is and with numpy's square roots.
ENDS = ("final", "final, correctly rounded roots")


def make_model():
    return nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


def make_optimizer(model):
    """Group the parameters as PyTorch's script does; every setting comes from the checkpoint."""
    params = list(model.parameters())
    return RMSprop([{"params": [p for p in params if p.dim() == dims]} for dims in (2, 1)])


def set_gradients(params, gradients):
    """Give every parameter its gradient, exactly: that of ``sum(p * g)`` is 1 times ``g``."""
    loss = sum((param * torch.tensor(gradient)).sum() for param, gradient in zip(params, gradients))
    loss.backward()


def read_recorded(path, params):
    """Return the arrays of recorded.npz; numpy verifies the checksum of each."""
    names = ["torch", "lr_decay", "batches"]
    names += [f"{what}/{param}" for what in ("start", "gradients", *ENDS) for param in params]
    try:
        with np.load(path) as archive:
            return {name: archive[name] for name in names}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        sys.exit(f"{path} is missing, damaged or incomplete: {error}")


def train_on(optimizer, named_params, recorded, epoch):
    """Make the recorded steps, from the beginning of `epoch`; return the epoch at the end."""
    gradients = [recorded[f"gradients/{name}"] for name in named_params]
    for step, step_gradients in enumerate(zip(*gradients)):
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * float(recorded["lr_decay"]) ** epoch
        set_gradients(named_params.values(), step_gradients)
        optimizer.step()
        epoch += (step + 1) % int(recorded["batches"]) == 0
    return epoch


def compare(named_params, recorded):
    """Print how far PyTorch's final parameters are; return whether all are near enough."""
    print(f"{'':<12}{'largest change':>16}{'distance from':>18}{'PyTorch with':>18}")
    print(f"{'parameter':<12}{'in these epochs':>16}{'PyTorch as it is':>18}{'exact roots':>18}")
    good = True
    for name, param in named_params.items():
        values = param.numpy()
        native, exact = (recorded[f"{end}/{name}"] for end in ENDS)
        change = np.abs(values - recorded[f"start/{name}"]).max()
        units, equal = distance(values, native), values.tobytes() == exact.tobytes()
        print(f"{name:<12}{change:>16.4f}{units:>12.2f} units{'equal' if equal else 'DIFFERENT':>18}")
        good &= equal and units <= LIMIT
    print(f"units: in the last place of the parameter's largest element; at most {LIMIT} are allowed")
    print(
        "equal: bit for bit with PyTorch when its square roots are correctly rounded; as it is, not all are"
    )
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of checkpoint.pt and recorded.npz")
    output = Path("out/from_pytorch_continued.pt")
    parser.add_argument("--output", type=Path, default=output, help="the checkpoint to write")
    args = parser.parse_args()

    saved = checkpoint.load(args.folder / "checkpoint.pt")
    model = make_model()
    model.load_state_dict(saved["model"])
    optimizer = make_optimizer(model)
    optimizer.load_state_dict(saved["optimizer"])
    named_params = dict(model.named_parameters())
    recorded = read_recorded(args.folder / "recorded.npz", named_params)
    for name, param in named_params.items():
        if not np.array_equal(param.numpy(), recorded[f"start/{name}"]):
            sys.exit(f"{name} of checkpoint.pt is not what recorded.npz starts from.")

    epoch = train_on(optimizer, named_params, recorded, saved["epoch"])
    print(f"epochs {saved['epoch']} to {epoch}, with the gradients of PyTorch {recorded['torch']}")
    if not compare(named_params, recorded):
        sys.exit("The training went on in Dragon, and did not end with PyTorch's parameters.")

    args.output.parent.mkdir(parents=True, exist_ok=True)
    contents = {"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    checkpoint.save(contents, args.output)
    print("checkpoint for PyTorch:", args.output)
    print("The training went on in Dragon, and ended with PyTorch's parameters.")


if __name__ == "__main__":
    main()
