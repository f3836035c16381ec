# SPDX-License-Identifier: BSD-2-Clause
"""Train a small convolutional network on handwritten digits with MobileNetV3's optimizer settings.

    python examples/digits.py                     # about half a minute on two cores; plot in out/digits.png
    python examples/digits.py --epochs 3 --no-stock

The network is built of MobileNetV3's blocks, the data are scikit-learn's 1797 digits of 8x8 pixels (part of
its package: nothing is downloaded), and the optimizer is RMSprop as MobileNetV3 was trained with it. The same
training is then repeated with Dragon's own RMSprop, from the same initial weights and on the same batches.
Both are plotted side by side: what was learned, and how long the optimizer took.

Only `main` names the two optimizers; `train` and `train_step` are an ordinary Dragon training loop.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from dragon.vm import torch
from dragon.vm.torch import nn
from matplotlib import ticker
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import dragon_optim

EPOCHS = 20
BATCH_SIZE = 64
ACCURACY_GOAL = 0.97

# MobileNetV3's published settings: https://github.com/pytorch/vision/tree/main/references/classification
RECIPE = {"alpha": 0.9, "eps": 0.0316, "momentum": 0.9}
WEIGHT_DECAY = 1e-5
RECIPE_LR, RECIPE_BATCH_SIZE = 0.064, 8 * 128
LR_DECAY, LR_DECAY_EPOCHS = 0.973, 2

OURS, STOCK = "dragon_optim", "stock Dragon"
COLORS = {OURS: "#0072B2", STOCK: "#E69F00"}  # Okabe and Ito's blue and orange, for every colour vision


# Data


class Digits(NamedTuple):
    """Images of shape (N, 1, 8, 8) in [0, 1] and their labels, for training and held out."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load_data():
    """Return the digits, one in five held out; the split is the same in every run."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).reshape(-1, 1, 8, 8).astype("float32")
    labels = labels.astype("int64")
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=0.2, stratify=labels, random_state=0
    )
    return Digits(train_images, train_labels, test_images, test_labels)


def batches(data, batch_size, rng):
    """Yield one epoch of shuffled training batches as Dragon tensors, without an incomplete last one."""
    order = rng.permutation(len(data.train_labels))
    for start in range(0, len(order) - batch_size + 1, batch_size):
        chosen = order[start : start + batch_size]
        yield torch.tensor(data.train_images[chosen]), torch.tensor(data.train_labels[chosen])


# Network


def conv_bn(in_channels, out_channels, kernel_size, stride=1, groups=1):
    """Return the layers of a convolution that keeps the image size (at stride 1), and its normalization."""
    padding = kernel_size // 2
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out_channels)]


class InvertedResidual(nn.Module):
    """MobileNet's block: widen by a 1x1 convolution, filter each channel by itself, narrow again."""

    def __init__(self, in_channels, hidden, out_channels, stride=1):
        super().__init__()
        self.layers = nn.Sequential(
            *conv_bn(in_channels, hidden, 1),
            nn.Hardswish(),
            *conv_bn(hidden, hidden, 3, stride, groups=hidden),
            nn.Hardswish(),
            *conv_bn(hidden, out_channels, 1),
        )
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x):
        return x + self.layers(x) if self.has_shortcut else self.layers(x)


class DigitNet(nn.Module):
    """A MobileNetV3 in small: 11 thousand weights in 35 tensors."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            *conv_bn(1, 16, 3),
            nn.Hardswish(),
            InvertedResidual(16, 32, 16),
            InvertedResidual(16, 48, 24, stride=2),
            InvertedResidual(24, 72, 24),
            *conv_bn(24, 64, 1),
            nn.Hardswish(),
            nn.AdaptiveAvgPool2d(1),
        )
        self.classifier = nn.Linear(64, 10)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def initialize(model, seed):
    """Draw all weights from `seed`, so that every optimizer starts at the same point."""
    rng = np.random.default_rng(seed)
    for name, param in model.named_parameters():
        if param.dim() > 1:
            fan_in = np.prod(param.shape[1:])
            values = rng.normal(0, np.sqrt(2 / fan_in), param.shape)
        else:  # a bias, or the factors of a normalization
            values = np.full(param.shape, 0 if name.endswith("bias") else 1)
        param.data.copy_(torch.tensor(values.astype("float32")))


# Training


def param_groups(model):
    """Return two parameter groups: weight decay is for weights, not for biases and normalization factors."""
    params = list(model.parameters())
    return [
        {"params": [p for p in params if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in params if p.dim() <= 1], "weight_decay": 0},
    ]


def learning_rate(epoch, batch_size):
    """Return the recipe's learning rate, scaled to the batch size, decayed every second epoch."""
    return RECIPE_LR * batch_size / RECIPE_BATCH_SIZE * LR_DECAY ** (epoch // LR_DECAY_EPOCHS)


def accuracy(model, images, labels):
    """Return the share of `images` that `model` names rightly."""
    model.eval()
    with torch.no_grad():
        scores = model(torch.tensor(images)).numpy()
    model.train()
    return float(np.mean(scores.argmax(axis=1) == labels))


def train_step(model, optimizer, images, labels):
    """Learn from one batch. Return its loss, and the milliseconds of the optimizer and of everything."""
    start = time.perf_counter()
    loss = nn.CrossEntropyLoss()(model(images), labels)
    loss.backward()
    before_update = time.perf_counter()
    optimizer.step()
    end = time.perf_counter()
    return loss.item(), 1000 * (end - before_update), 1000 * (end - start)


class History(NamedTuple):
    """What one training left behind: values per epoch, and median times per step."""

    losses: list
    accuracies: list
    optimizer_ms: float
    iteration_ms: float


def train(label, optimizer_class, data, args):
    """Train a new network with `optimizer_class` and return its `History`."""
    model = DigitNet()
    initialize(model, args.seed)
    optimizer = optimizer_class(param_groups(model), lr=learning_rate(0, args.batch_size), **RECIPE)
    rng = np.random.default_rng(args.seed)
    steps, losses, accuracies = [], [], []

    progress = tqdm(range(args.epochs), desc=label, unit="epoch", dynamic_ncols=True)
    for epoch in progress:
        lr = learning_rate(epoch, args.batch_size)
        for group in optimizer.param_groups:
            group["lr"] = lr
        epoch_steps = [train_step(model, optimizer, *batch) for batch in batches(data, args.batch_size, rng)]
        steps += epoch_steps
        losses.append(statistics.mean(loss for loss, _, _ in epoch_steps))
        accuracies.append(accuracy(model, data.test_images, data.test_labels))
        progress.set_postfix(loss=f"{losses[-1]:.4f}", accuracy=f"{accuracies[-1]:.1%}", lr=f"{lr:.5f}")

    _, optimizer_ms, iteration_ms = map(statistics.median, zip(*steps))
    return History(losses, accuracies, optimizer_ms, iteration_ms)


# Plot

STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.axisbelow": True,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#555555",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
}
TITLE = "Handwritten digits: a small MobileNetV3, trained by RMSprop with MobileNetV3's settings"
SUBTITLE = (
    "Same formula, initial weights and batches: the curves are one until differences in rounding have grown; "
    "later gaps are chance (one digit is 0.3%)."
)


def plot(histories, output):
    """Draw loss, accuracy and optimizer time of all `histories` into the file `output`."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 5))
        figure.set_layout_engine("constrained", rect=(0.005, 0, 0.99, 0.87), wspace=0.04)
        figure.text(0.012, 0.935, TITLE, fontsize=15, fontweight="bold")
        if STOCK in histories:
            figure.text(0.012, 0.885, SUBTITLE, color="#555555")
        loss_axes, accuracy_axes, time_axes = figure.subplots(1, 3, width_ratios=[5, 5, 4.3])
        plot_losses(loss_axes, histories)
        plot_accuracies(accuracy_axes, histories)
        plot_times(time_axes, histories)
        output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(output, dpi=120)


def plot_losses(axes, histories):
    axes.set_title("Training loss")
    for label, history in histories.items():
        draw_curve(axes, label, history.losses, f"{history.losses[-1]:.4f}")
    axes.set_yscale("log")
    axes.set_ylim(min(0.1, 0.6 * axes.dataLim.ymin), 6)
    axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    finish_curves(axes, histories)


def plot_accuracies(axes, histories):
    axes.set_title("Accuracy on held-out digits")
    for label, history in histories.items():
        draw_curve(axes, label, history.accuracies, f"{history.accuracies[-1]:.1%}")
    goal = f"goal: {ACCURACY_GOAL:.0%}"
    axes.axhline(ACCURACY_GOAL, color="#777777", linewidth=1, linestyle="dotted", label=goal)
    well_trained = min(history.accuracies[-1] for history in histories.values()) > 0.9
    axes.set_ylim(0.8 if well_trained else 0, 1.002)  # the first epochs, far below, would flatten the rest
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(xmax=1, decimals=0))
    axes.yaxis.set_major_locator(ticker.MultipleLocator(0.05 if well_trained else 0.2))
    finish_curves(axes, histories)


def draw_curve(axes, label, values, final):
    """Draw one value per epoch. As curves may coincide, stock's is a wide band and ours a thin line on it."""
    epochs = range(1, len(values) + 1)
    width, order = (2, 3) if label == OURS else (6, 2)
    axes.plot(epochs, values, color=COLORS[label], linewidth=width, zorder=order, label=f"{label}: {final}")
    axes.plot(epochs[-1], values[-1], "o", color=COLORS[label], markersize=width + 4, zorder=order)


def finish_curves(axes, histories):
    epochs = len(histories[OURS].losses)
    axes.set_xlabel("epoch")
    axes.set_xlim(0, 1.02 * epochs)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(nbins=5, integer=True))
    axes.grid(True, axis="y")
    axes.legend(loc="best", title=f"after {epochs} epoch{'s' if epochs > 1 else ''}", alignment="left")


def plot_times(axes, histories):
    """Draw the optimizers' times as bars, with their share of an iteration."""
    axes.set_title("Time of optimizer.step()")
    iteration_ms = statistics.mean(history.iteration_ms for history in histories.values())
    for row, (label, history) in enumerate(histories.items()):
        axes.barh(row, history.optimizer_ms, height=0.36, color=COLORS[label])
        share = history.optimizer_ms / history.iteration_ms
        text = f"{label}: {history.optimizer_ms:.3f} ms, {share:.1%} of an iteration"
        axes.annotate(text, (0, row - 0.2), xytext=(2, 5), textcoords="offset points")
    axes.set_ylim(1.5, -0.6)
    axes.set_yticks([])
    axes.set_xlabel(f"milliseconds, median (a whole iteration: {iteration_ms:.0f})")
    axes.grid(True, axis="x")


# Command line


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help="scales the learning rate")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights and the order of images")
    parser.add_argument("--output", type=Path, default=Path("out/digits.png"), help="file name of the plot")
    parser.add_argument("--no-stock", action="store_true", help="train with dragon_optim only")
    args = parser.parse_args()
    if args.epochs < 1 or not 1 <= args.batch_size <= 1437:
        parser.error("at least one epoch is needed, and batches of 1 to 1437 images")
    return args


def print_summary(histories, output):
    def per_optimizer(form):
        return ", ".join(f"{label} {form(history)}" for label, history in histories.items())

    print("accuracy on held-out digits:", per_optimizer(lambda history: f"{history.accuracies[-1]:.1%}"))
    print("time per optimizer step:    ", per_optimizer(lambda history: f"{history.optimizer_ms:.3f} ms"))
    print("plot:                       ", output)


def main():
    args = parse_arguments()
    data = load_data()
    histories = {OURS: train(OURS, dragon_optim.RMSprop, data, args)}
    if not args.no_stock:
        histories[STOCK] = train(STOCK, torch.optim.RMSprop, data, args)
    plot(histories, args.output)
    print_summary(histories, args.output)
    reached = histories[OURS].accuracies[-1]
    if args.epochs >= EPOCHS and reached < ACCURACY_GOAL:
        sys.exit(f"The accuracy of {OURS}, {reached:.1%}, is below the goal of {ACCURACY_GOAL:.0%}.")


if __name__ == "__main__":
    main()
