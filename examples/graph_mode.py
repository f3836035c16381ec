# SPDX-License-Identifier: BSD-2-Clause
"""Train on handwritten digits eagerly, and with the training step captured as one Dragon graph.

    python examples/graph_mode.py                 # some seconds; plot in out/graph_mode.png

Both trainings start from the same weights and see the same batches, the smaller last one of each epoch
included. The learning rate falls from epoch to epoch: the graph follows. One line tells the two apart.
"""

import argparse
import time
from pathlib import Path
from typing import List, NamedTuple

import numpy as np
from dragon.vm import torch
from dragon.vm.torch import nn
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import dragon_optim

BATCH_SIZE = 16
EPOCHS = 15
LR, LR_DECAY = 0.002, 0.8


class History(NamedTuple):
    """One training."""

    losses: List[float]  # the mean of each epoch
    accuracy: float
    steps_per_second: float


def load_data():
    """Return images and labels for training, then those held out."""
    images, labels = load_digits(return_X_y=True)
    images, labels = (images / 16).astype("float32"), labels.astype("int64")
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=0.2, stratify=labels, random_state=0
    )
    return train_images, train_labels, test_images, test_labels


def make_model():
    """Return a network whose weights are the same in every run."""
    model = nn.Sequential(
        nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, param in model.named_parameters():
            if param.dim() == 2:
                bound = param.shape[1] ** -0.5
                param.copy_(torch.tensor(rng.uniform(-bound, bound, tuple(param.shape)).astype("float32")))
            elif "bias" in name:
                param.zero_()
    return model


def train(capture, data, epochs):
    """Train, and return how it went."""
    images, labels, test_images, test_labels = data
    model = make_model()
    optimizer = dragon_optim.RMSprop(model.parameters(), lr=LR, momentum=0.9, centered=True)

    def train_step(images, labels):
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    step = dragon_optim.graph.capture(train_step) if capture else train_step
    rng, losses, steps, seconds = np.random.default_rng(0), [], 0, 0.0
    for _ in range(epochs):
        order = rng.permutation(len(labels))
        batches = [order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE)]
        inputs = [(torch.tensor(images[batch]), torch.tensor(labels[batch])) for batch in batches]
        start = time.perf_counter()
        results = [step(*each) for each in inputs]
        seconds += time.perf_counter() - start
        steps += len(results)
        losses.append(float(np.mean([float(loss) for loss in results])))
        optimizer.param_groups[0]["lr"] *= LR_DECAY
    model.eval()
    predicted = model(torch.tensor(test_images)).numpy().argmax(1)
    return History(losses, float((predicted == test_labels).mean()), steps / seconds)


def plot(histories, path):
    """Draw the losses of all trainings, and their speed."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, history), style in zip(histories.items(), ("-", "--")):
        left.plot(range(1, len(history.losses) + 1), history.losses, style, label=name)
    left.set(xlabel="epoch", ylabel="training loss", yscale="log")
    left.legend()
    right.barh(list(histories), [history.steps_per_second for history in histories.values()])
    right.set(xlabel="training steps in a second")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main():
    """Train both ways and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--output", type=Path, default=Path("out/graph_mode.png"))
    arguments = parser.parse_args()
    data = load_data()
    histories = {name: train(name == "captured", data, arguments.epochs) for name in ("eager", "captured")}
    for name, history in histories.items():
        print(
            f"{name:9} {history.steps_per_second:6.0f} steps/s, last loss {history.losses[-1]:.4f}, "
            f"accuracy on held-out digits {history.accuracy:.3f}"
        )
    eager, captured = histories["eager"], histories["captured"]
    print(f"captured is {captured.steps_per_second / eager.steps_per_second:.1f} times as fast")
    plot(histories, arguments.output)
    print(arguments.output)


if __name__ == "__main__":
    main()
