# SPDX-License-Identifier: BSD-2-Clause
"""Learn the learning rate of RMSprop by going back through a training, with `differentiable=True`.

    python examples/learn_the_learning_rate.py     # some seconds; plot in out/learn_the_learning_rate.png

A small network is trained on scikit-learn's digits (part of its package: nothing is downloaded), for a few
steps from the same initial weights. All of its steps stay on Dragon's tape. One backward pass from the loss
on held-out digits then goes back through every step and gives the derivative by the learning rate, along
which the next training takes a better one. In the end a training with the learned rate is compared with one
that keeps the rate at which the search began.

For the exact derivative a step must know how its gradient depends on the weights. Dragon's own `.grad` are
constants, so the network's gradients are written down here, as expressions that Dragon records.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import digits
import matplotlib
import numpy as np
from dragon.vm import torch
from dragon.vm.torch.nn import functional
from matplotlib import ticker
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import dragon_optim

SEARCH_STEPS = 20
TRAINING_STEPS = 25
BATCH_SIZE = 64
HIDDEN = 32
START = 3e-4
SETTINGS = {"alpha": 0.9, "eps": 1e-4, "momentum": 0.5}

# The search itself is RMSprop on the logarithm of the rate.
SEARCH_RATE, SEARCH_DECAY = 0.45, 0.9

LEARNED, FIXED, SCAN = "#0072B2", "#E69F00", "#999999"  # of Okabe and Ito's colours, for every colour vision


# Data


class Data(NamedTuple):
    """Batches of (images, one row per image with a 1 at its digit), and a held-out set with labels."""

    batches: list
    images: torch.Tensor
    labels: torch.Tensor


def load_data(seed, steps):
    """Return the batches of one training, the same for each, and one digit in four held out."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 8 - 1).astype("float64")
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=0.25, stratify=labels, random_state=0
    )
    rng = np.random.default_rng(seed)
    batches = []
    for _ in range(steps):
        chosen = rng.permutation(len(train_labels))[:BATCH_SIZE]
        targets = np.eye(10)[train_labels[chosen]]
        batches.append((torch.tensor(train_images[chosen]), torch.tensor(targets)))
    return Data(batches, torch.tensor(test_images), torch.tensor(test_labels.astype("int64")))


# Network: one hidden layer of tanh, scores for ten digits


def initial_weights(seed):
    rng = np.random.default_rng(seed)
    shapes = [(64, HIDDEN), (HIDDEN,), (HIDDEN, 10), (10,)]
    return [rng.normal(0, shape[0] ** -0.5, shape) if len(shape) > 1 else np.zeros(shape) for shape in shapes]


def hidden_and_scores(params, images):
    first, first_bias, second, second_bias = params
    hidden = functional.tanh(torch.mm(images, first) + first_bias)
    return hidden, torch.mm(hidden, second) + second_bias


def loss_on(params, images, labels):
    """Return the mean cross entropy."""
    return functional.cross_entropy(hidden_and_scores(params, images)[1], labels)


def gradients(params, images, targets):
    """Return the gradient of the loss by each parameter: expressions of the parameters, not constants."""
    hidden, scores = hidden_and_scores(params, images)
    by_scores = (functional.softmax(scores, 1) - targets) * (1 / BATCH_SIZE)
    by_hidden = torch.mm(by_scores, params[2].permute(1, 0)) * (1.0 - hidden * hidden)
    return {
        params[0]: torch.mm(images.permute(1, 0), by_hidden),
        params[1]: by_hidden.sum(0),
        params[2]: torch.mm(hidden.permute(1, 0), by_scores),
        params[3]: by_scores.sum(0),
    }


# Training, and the search


def train(lr, weights, data, watch=False):
    """Train new parameters with `lr`, a number or a tensor on the tape.

    Return the loss on the held-out digits, as a tensor on the tape, and its values on the way if `watch`.
    """
    params = [torch.nn.Parameter(torch.tensor(each)) for each in weights]
    optimizer = dragon_optim.RMSprop(params, lr=lr, **SETTINGS, differentiable=True)
    values = []
    for images, targets in data.batches:
        optimizer.step(gradients=gradients(params, images, targets))
        if watch:
            with torch.no_grad():
                values.append(loss_on(params, data.images, data.labels).item())
    return loss_on(params, data.images, data.labels), values


class Search(NamedTuple):
    """The learning rates that the search tried, and the loss at the end of each training."""

    rates: list
    losses: list

    @property
    def best(self):
        """The rate of the best training."""
        return self.rates[int(np.argmin(self.losses))]


def search(weights, data, args):
    """Learn the rate by going back through trainings."""
    log_rate = torch.nn.Parameter(torch.tensor(np.array(np.log(args.start))))
    optimizer = dragon_optim.RMSprop([log_rate], lr=SEARCH_RATE, alpha=0.5)
    rates, losses = [], []
    progress = tqdm(range(args.search_steps), desc="search", unit="training", dynamic_ncols=True)
    for _ in progress:
        rate = log_rate.exp()
        loss, _ = train(rate, weights, data)
        rates.append(rate.item())
        losses.append(loss.item())
        loss.backward()  # through every step of the training, to the rate
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= SEARCH_DECAY
        progress.set_postfix(
            lr=f"{rates[-1]:.5f}", loss=f"{losses[-1]:.4f}", slope=f"{log_rate.grad.item():+.3f}"
        )
    return Search(rates, losses)


def scan(weights, data, rates):
    """Return the loss after a training with each of these rates: what the search could have found."""
    with torch.no_grad():
        return [train(float(rate), weights, data)[0].item() for rate in rates]


# Plot


def plot(found, scanned, curves, output):
    """Draw the search over the loss by rate, and both trainings, into the file `output`."""
    with matplotlib.rc_context({**digits.STYLE, "axes.titlepad": 6}):
        figure = Figure(figsize=(12, 5))
        figure.set_layout_engine("constrained", rect=(0.005, 0, 0.99, 0.9), wspace=0.05)
        title = "Handwritten digits: RMSprop's learning rate, learned through the training itself"
        figure.text(0.012, 0.93, title, fontsize=15, fontweight="bold")
        search_axes, training_axes = figure.subplots(1, 2)
        plot_search(search_axes, found, *scanned)
        plot_trainings(training_axes, curves)
        output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(output, dpi=120)


def plot_search(axes, found, rates, losses):
    axes.set_title("Loss after the training, by learning rate")
    axes.plot(rates, losses, color=SCAN, linewidth=5, alpha=0.5, label="a training with each rate")
    axes.plot(found.rates, found.losses, "o-", color=LEARNED, markersize=4, linewidth=1, label="the search")
    axes.plot(found.rates[0], found.losses[0], "o", color=FIXED, markersize=9, label="its start")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_xlabel("learning rate")
    axes.grid(True, axis="y")
    axes.legend(loc="best")


def plot_trainings(axes, curves):
    axes.set_title("Loss on held-out digits, step by step")
    for (label, values), color in zip(curves.items(), (FIXED, LEARNED)):
        axes.plot(
            range(1, len(values) + 1), values, color=color, linewidth=2, label=f"{label}: {values[-1]:.3f}"
        )
    axes.set_xlabel("step")
    axes.set_ylim(bottom=0)
    axes.grid(True, axis="y")
    axes.legend(loc="best")


# Command line


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--search-steps", type=int, default=SEARCH_STEPS, help="default: %(default)s")
    parser.add_argument("--training-steps", type=int, default=TRAINING_STEPS, help="default: %(default)s")
    parser.add_argument("--start", type=float, default=START, help="the first learning rate: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights and the batches")
    parser.add_argument("--output", type=Path, default=Path("out/learn_the_learning_rate.png"))
    args = parser.parse_args()
    if min(args.search_steps, args.training_steps) < 1 or not args.start > 0:
        parser.error("at least one step of each kind is needed, and a positive learning rate to start from")
    return args


def main():
    args = parse_arguments()
    data, weights = load_data(args.seed, args.training_steps), initial_weights(args.seed)
    found = search(weights, data, args)
    curves = {}
    with torch.no_grad():
        for label, rate in (("fixed", args.start), ("learned", found.best)):
            _, curves[f"{label} rate {rate:.5f}"] = train(rate, weights, data, watch=True)
    fixed, learned = (values[-1] for values in curves.values())
    rates = np.geomspace(min(found.rates) / 2, max(found.rates) * 4, 17)
    plot(found, (rates, scan(weights, data, rates)), curves, args.output)
    print(f"learning rate: fixed {args.start:.5f}, learned {found.best:.5f}")
    print(
        f"loss on held-out digits after {args.training_steps} steps: fixed {fixed:.4f}, learned {learned:.4f}"
    )
    print(f"plot: {args.output}")
    if args.search_steps >= SEARCH_STEPS and not learned < fixed:
        sys.exit("The learned rate is no better than the fixed one.")


if __name__ == "__main__":
    main()
