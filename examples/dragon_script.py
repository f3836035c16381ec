# SPDX-License-Identifier: BSD-2-Clause
"""A training script as Dragon users write it, and the one line to change in it.

    python examples/dragon_script.py --optimizer stock      # Dragon's own RMSprop
    python examples/dragon_script.py --optimizer ours       # dragon_optim's

All habits of scripts made for Dragon 0.3.0 are here, and all of them stay as they are: static loss scaling,
undone by `grad_scale`; `clip_norm`; no weight decay for biases; a learning rate that is computed by hand and
set in every group at every step; and `lr_scale`, a key of the script's own, by which early layers learn less.
"""

import argparse
import math

import numpy as np
from dragon.vm import torch
from dragon.vm.torch import nn
from sklearn.datasets import load_digits

BATCH_SIZE = 64
LOSS_SCALE = 1024  # keeps small gradients of half precision above zero; harmless in single precision
MAX_LR, WARMUP_STEPS = 0.002, 20
LAYER_LR_DECAY = 0.8
WEIGHT_DECAY = 1e-3
CLIP_NORM = 1.0  # of each gradient tensor on its own: Dragon's meaning


def load_data():
    """Return scikit-learn's handwritten digits, every fifth one held out."""
    digits = load_digits()
    images = (digits.images / 16).astype("float32")[:, np.newaxis]
    labels = digits.target.astype("int64")
    held_out = np.arange(len(labels)) % 5 == 0
    return (images[~held_out], labels[~held_out]), (images[held_out], labels[held_out])


def build_model(seed):
    """Return a plain convolutional network with weights drawn from `seed`."""
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10),
    )
    rng = np.random.default_rng(seed)
    for param in model.parameters():
        deviation = math.sqrt(2 / np.prod(param.shape[1:])) if param.dim() > 1 else 0
        param.data.copy_(torch.tensor(rng.normal(0, deviation, param.shape).astype("float32")))
    return model


def get_param_groups(model):
    """Return two groups per layer, weights and biases, each with its `lr_scale`."""
    layers = [layer for layer in model.children() if list(layer.parameters())]
    groups = []
    for depth, layer in enumerate(reversed(layers)):
        lr_scale = LAYER_LR_DECAY**depth
        groups.append({"params": [layer.weight], "lr_scale": lr_scale})
        groups.append({"params": [layer.bias], "lr_scale": lr_scale, "weight_decay": 0})
    return groups


def build_optimizer(name, model):
    """Return the optimizer of that name: the import is the whole difference."""
    if name == "stock":
        from dragon.vm.torch.optim import RMSprop
    else:
        from dragon_optim import RMSprop
    return RMSprop(
        get_param_groups(model),
        lr=MAX_LR,
        alpha=0.9,
        eps=1e-3,
        momentum=0.9,
        weight_decay=WEIGHT_DECAY,
        grad_scale=1 / LOSS_SCALE,
        clip_norm=CLIP_NORM,
    )


def get_lr(step, max_steps):
    """Return the learning rate of one step: linear warm-up, then half a cosine down to zero."""
    if step < WARMUP_STEPS:
        return MAX_LR * (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / (max_steps - WARMUP_STEPS)
    return MAX_LR * 0.5 * (1 + math.cos(math.pi * progress))


def train(model, optimizer, images, labels, epochs, seed):
    """Train `model` and print the mean loss of each epoch."""
    rng = np.random.default_rng(seed)
    loss_function = nn.CrossEntropyLoss()
    steps_per_epoch = len(labels) // BATCH_SIZE
    for epoch in range(epochs):
        order = rng.permutation(len(labels))
        mean_loss = 0
        for i in range(steps_per_epoch):
            batch = order[i * BATCH_SIZE : (i + 1) * BATCH_SIZE]
            loss = loss_function(model(torch.tensor(images[batch])), torch.tensor(labels[batch]))
            mean_loss += loss.item() / steps_per_epoch
            loss *= LOSS_SCALE
            loss.backward()
            lr = get_lr(epoch * steps_per_epoch + i, epochs * steps_per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = lr * group.get("lr_scale", 1.0)
            optimizer.step()
        print(f"epoch {epoch + 1}: mean loss {mean_loss:.6f}, last lr {lr:.6f}")


def evaluate(model, images, labels):
    """Return the loss and the accuracy of `model`."""
    with torch.no_grad():
        scores = model(torch.tensor(images))
        loss = nn.CrossEntropyLoss()(scores, torch.tensor(labels)).item()
    return loss, np.mean(scores.numpy().argmax(axis=1) == labels)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--optimizer", choices=["stock", "ours"], default="ours")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    train_data, test_data = load_data()
    model = build_model(args.seed)
    optimizer = build_optimizer(args.optimizer, model)
    train(model, optimizer, *train_data, args.epochs, args.seed)
    print("final loss: {:.8f}, accuracy: {:.4f}".format(*evaluate(model, *train_data)))
    print("held-out loss: {:.8f}, accuracy: {:.4f}".format(*evaluate(model, *test_data)))


if __name__ == "__main__":
    main()
