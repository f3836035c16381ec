# SPDX-License-Identifier: BSD-2-Clause
"""Train with PyTorch, save a checkpoint, train on, and record what continue_in_dragon.py must arrive at.

    python examples/from_pytorch/record.py        # where PyTorch and scikit-learn are; a second
    python examples/from_pytorch/record.py --check out/from_pytorch_continued.pt  # PyTorch and numpy

The second command opens in PyTorch what Dragon has written. Neither Dragon nor dragon_optim is needed here.
"""

import argparse
import contextlib
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn
from units import LIMIT, distance

FOLDER = Path(__file__).parent
EPOCHS_BEFORE, EPOCHS_AFTER = 6, 2  # of the checkpoint
BATCH_SIZE, BATCHES = 128, 10  # of one epoch
LR_DECAY = 0.9  # for each epoch


def make_model():
    return nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


def make_optimizer(model):
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "lr": 3e-3, "weight_decay": 1e-4},
        {"params": [p for p in model.parameters() if p.dim() == 1], "lr": 1e-3},
    ]
    for group in groups:
        group["initial_lr"] = group["lr"]  # what the schedule starts from; it stays in the checkpoint
    # foreach=False only so that there is one function to replace below; the bits are the same.
    return torch.optim.RMSprop(groups, alpha=0.9, eps=1e-4, momentum=0.9, centered=True, foreach=False)


def set_lr(optimizer, epoch):
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * LR_DECAY**epoch


def train_epoch(model, optimizer, epoch, images, labels, after_backward=lambda: None):
    set_lr(optimizer, epoch)
    for chosen in torch.randperm(len(images))[: BATCHES * BATCH_SIZE].split(BATCH_SIZE):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
        loss.backward()
        after_backward()
        optimizer.step()
    return loss.item()


def named_arrays(model):
    return {name: param.detach().numpy().copy() for name, param in model.named_parameters()}


@contextlib.contextmanager
def correctly_rounded_roots():
    """Take numpy's square roots instead of PyTorch's, which on the CPU are often the next number."""
    calls = []

    def sqrt_(tensor):
        calls.append(tensor.shape)
        return tensor.copy_(torch.from_numpy(np.sqrt(tensor.numpy())))

    with mock.patch.object(torch.Tensor, "sqrt_", sqrt_):
        yield calls


def replay(gradients):
    """Train on from the checkpoint with given gradients; return the final parameters."""
    contents = torch.load(FOLDER / "checkpoint.pt", weights_only=True)
    model = make_model()
    model.load_state_dict(contents["model"])
    optimizer = make_optimizer(model)
    optimizer.load_state_dict(contents["optimizer"])
    for step, step_gradients in enumerate(gradients):
        set_lr(optimizer, contents["epoch"] + step // BATCHES)
        for name, param in model.named_parameters():
            param.grad = torch.from_numpy(step_gradients[name].copy())
        optimizer.step()
    return named_arrays(model)


def record():
    from sklearn.datasets import load_digits  # here, because --check does without

    images, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
    images = (images / 16).float()
    torch.manual_seed(0)
    model = make_model()
    optimizer = make_optimizer(model)
    for epoch in range(EPOCHS_BEFORE):
        loss = train_epoch(model, optimizer, epoch, images, labels)
        print(f"epoch {epoch + 1}: loss {loss:.4f}")
    contents = {"epoch": EPOCHS_BEFORE, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(contents, FOLDER / "checkpoint.pt")

    start, gradients = named_arrays(model), []

    def keep_gradients():
        gradients.append({name: param.grad.numpy().copy() for name, param in model.named_parameters()})

    for epoch in range(EPOCHS_BEFORE, EPOCHS_BEFORE + EPOCHS_AFTER):
        loss = train_epoch(model, optimizer, epoch, images, labels, keep_gradients)
        print(f"epoch {epoch + 1}: loss {loss:.4f}")
    final = named_arrays(model)
    if any((values != final[name]).any() for name, values in replay(gradients).items()):
        raise RuntimeError("PyTorch itself does not arrive at the same parameters from its checkpoint")
    with correctly_rounded_roots() as calls:
        exact = replay(gradients)
    if len(calls) != len(gradients) * len(final):
        raise RuntimeError(f"{len(calls)} roots were replaced, not one for each parameter and step")

    arrays = {
        "torch": np.array(torch.__version__),
        "lr_decay": np.array(LR_DECAY),
        "batches": np.array(BATCHES),
    }
    for name in final:
        arrays[f"start/{name}"] = start[name]
        arrays[f"gradients/{name}"] = np.stack([step[name] for step in gradients])
        arrays[f"final/{name}"] = final[name]
        arrays[f"final, correctly rounded roots/{name}"] = exact[name]
    np.savez_compressed(FOLDER / "recorded.npz", **arrays)


def check(path):
    """Open Dragon's checkpoint as a PyTorch user would, compare the parameters, and make one more step."""
    recorded = np.load(FOLDER / "recorded.npz")
    contents = torch.load(path, weights_only=True)
    model = make_model()
    model.load_state_dict(contents["model"])
    optimizer = make_optimizer(model)
    optimizer.load_state_dict(contents["optimizer"])
    units = {
        name: distance(values, recorded[f"final/{name}"]) for name, values in named_arrays(model).items()
    }
    for name, found in units.items():
        print(f"{name}: {found:.2f} units in the last place of the largest element")
    if not all(found <= LIMIT for found in units.values()):
        sys.exit(f"{path}: not the recorded parameters; at most {LIMIT} units are allowed.")
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    optimizer.step()
    steps = [int(entry["step"]) for entry in optimizer.state_dict()["state"].values()]
    print(f"{path}: epoch {contents['epoch']}, the recorded parameters; step counts one step later: {steps}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", type=Path, metavar="FILE", help="do not record; open this checkpoint")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.check:
        check(args.check)
        return
    record()
    for name in ("checkpoint.pt", "recorded.npz"):
        print(f"{name}: {(FOLDER / name).stat().st_size} bytes")


if __name__ == "__main__":
    main()
