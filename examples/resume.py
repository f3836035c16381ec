# SPDX-License-Identifier: BSD-2-Clause
"""Kill a training halfway, let a new process go on from its checkpoint, and compare with one left alone.

    python examples/resume.py                     # about half a minute on two cores; plot in out/resume.png
    python examples/resume.py --forget optimizer  # leaves something out of the checkpoint: no longer the same

The network and the data are those of digits.py. The images are shuffled and shifted at random, the learning
rate follows a schedule, and the optimizer has momentum, so that a checkpoint must hold more than the weights:
the optimizer's states and groups (`optimizer.state_dict()`), the state of the random generator, the epoch,
and the statistics of the normalization (part of `model.state_dict()`).

Three processes train, one after the other: the first is left alone, the second dies of SIGKILL in the middle
of an epoch, the third loads the last checkpoint of the second and goes on. The first and the third must agree
in every bit of the model, the optimizer and the random generator. The losses are not compared: they are means
over a batch, whose last bits depend on where the batch lies in memory, and no gradient depends on them.

The network computes in float64. In float32 it would not give the same bits in two processes, resumed or not:
Dragon takes the roots of BatchNorm2d, and the exponentials of CrossEntropyLoss, by an approximation for most
of an array but exactly for its first and last elements, and how many are first ones depends on the address of
the array, which differs from process to process. In float64 its roots are always exact, and the gradient of
BCEWithLogitsLoss is computed element by element. The optimizer itself gives the same bits in every dtype.
"""

import argparse
import functools
import hashlib
import math
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple, Optional

import digits
import matplotlib
import numpy as np
from dragon.vm import torch
from dragon.vm.torch import nn
from matplotlib import ticker
from matplotlib.figure import Figure
from tqdm import tqdm

from dragon_optim import RMSprop, checkpoint

EPOCHS = 12
BATCH_SIZE = 64
SEED = 0
BATCHES_BEFORE_DEATH = 5  # of the epoch after the last checkpoint: work that is lost, and must be done again
FORGETTABLE = ("model", "optimizer", "generator")


class Plan(NamedTuple):
    """What one process is to do; all files are checkpoints."""

    label: str
    epochs: int
    save_to: Path  # after every epoch; see also log_of()
    start_from: Optional[Path] = None
    dies_in: Optional[int] = None  # the epoch, counted from 0
    forget: Optional[str] = None  # a part of `start_from` not to load


# Data


def load_data():
    """Return the digits in float64, and for training a row of scores to reach (0 or 1) instead of a label."""
    data = digits.load_data()
    return data._replace(
        train_images=data.train_images.astype("float64"),
        train_labels=np.eye(10)[data.train_labels],
        test_images=data.test_images.astype("float64"),
    )


def shifted(images, rng):
    """Return `images`, each shifted by up to one pixel in both directions."""
    height, width = images.shape[2:]
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    places = zip(padded, *rng.integers(0, 3, (2, len(images))))
    return np.stack([image[:, top : top + height, left : left + width] for image, top, left in places])


# Training


def log_of(plan):
    """Return the file that gets a line for every batch: what is lost with a process can be seen in it."""
    return plan.save_to.with_suffix(".log")


def make_optimizer(model):
    groups = digits.param_groups(model)
    for group in groups:
        # What the schedule starts from, in each group its own; the optimizer keeps and saves it.
        group["initial_lr"] = group["lr"] = digits.learning_rate(0, BATCH_SIZE)
    return RMSprop(groups, **digits.RECIPE)


def follow_schedule(optimizer, epoch, epochs):
    """Set the learning rates of an epoch: from `initial_lr` down to nearly nothing, along a cosine."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * (1 + math.cos(math.pi * epoch / epochs)) / 2


def save(path, epoch, model, optimizer, rng, history):
    contents = {
        "epoch": epoch,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "generator": rng.bit_generator.state,
        "history": history,
    }
    checkpoint.save(contents, path)  # atomic: killed while it saves, it leaves the old file whole


def load(path, forget, model, optimizer, rng):
    """Put back everything but `forget`; return the number of epochs that are done, and their history."""
    contents = checkpoint.load(path)
    if forget != "model":
        model.load_state_dict(contents["model"])
    if forget != "optimizer":
        optimizer.load_state_dict(contents["optimizer"])
    if forget != "generator":
        rng.bit_generator.state = contents["generator"]
    return contents["epoch"], contents["history"]


def train(plan):
    """Train as `plan` says: what each of the three processes does."""
    # The bar's own lock is a semaphore, which a killed process would leave behind.
    tqdm.set_lock(threading.RLock())
    data = load_data()
    model = digits.DigitNet()
    digits.initialize(model, SEED)
    model.double()
    optimizer = make_optimizer(model)
    rng = np.random.default_rng(SEED)
    first, history = 0, {"losses": [], "accuracies": []}
    if plan.start_from:
        first, history = load(plan.start_from, plan.forget, model, optimizer, rng)

    log = log_of(plan).open("w", buffering=1)  # every line is written at once
    progress = tqdm(range(plan.epochs), desc=plan.label, initial=first, unit="epoch", dynamic_ncols=True)
    for epoch in range(first, plan.epochs):
        follow_schedule(optimizer, epoch, plan.epochs)
        note = functools.partial(print, epoch, file=log)
        loss = train_epoch(model, optimizer, data, rng, epoch == plan.dies_in, note)
        accuracy = digits.accuracy(model, data.test_images, data.test_labels)
        history["losses"].append(loss)
        history["accuracies"].append(accuracy)
        save(plan.save_to, epoch + 1, model, optimizer, rng, history)
        progress.set_postfix(loss=f"{loss:.4f}", accuracy=f"{accuracy:.1%}", refresh=False)
        progress.update()
    progress.close()
    log.close()


def train_epoch(model, optimizer, data, rng, dies, note):
    """Learn from all images once and return the mean loss, or die in the middle."""
    criterion = nn.BCEWithLogitsLoss(reduction="sum")
    shifted_data = data._replace(train_images=shifted(data.train_images, rng))
    losses = []
    for images, targets in digits.batches(shifted_data, BATCH_SIZE, rng):
        if dies and len(losses) == BATCHES_BEFORE_DEATH:
            os.kill(os.getpid(), signal.SIGKILL)  # no Python runs after this: nothing is saved or closed
        loss = criterion(model(images), targets) / BATCH_SIZE
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        note(losses[-1])
    return statistics.mean(losses)


# Comparison


def run(plan):
    """Train in a new process; return its exit status, negative if a signal has ended it."""
    # Spawned, not forked: it has nothing of this process but the plan.
    process = multiprocessing.get_context("spawn").Process(target=train, args=(plan,))
    process.start()
    process.join()
    return process.exitcode


def train_three_times(folder, epochs, forget):
    """Return the last checkpoint of each, with the losses of the batches of the epoch of death besides."""
    half = epochs // 2
    alone = Plan("left alone", epochs, folder / "alone.pt")
    killed = Plan("killed", epochs, folder / "killed.pt", dies_in=half)
    resumed = Plan("resumed", epochs, folder / "resumed.pt", start_from=killed.save_to, forget=forget)

    for plan in (alone, killed, resumed):
        status, expected = run(plan), -signal.SIGKILL if plan is killed else 0
        if plan is killed:
            print(file=sys.stderr)  # ends the line of its progress bar
        if status != expected:
            sys.exit(f"The process '{plan.label}' ended with status {status} instead of {expected}.")
    print(f"killed in epoch {half + 1}, {BATCHES_BEFORE_DEATH} batches after the checkpoint of epoch {half}")
    plans = (alone, resumed, killed)
    return [{**checkpoint.load(plan.save_to), "batches": logged(plan, half)} for plan in plans]


def logged(plan, epoch):
    """Return the losses of the batches of an epoch, as far as the process came."""
    lines = [line.split() for line in log_of(plan).read_text().splitlines()]
    return [float(loss) for number, loss in lines if int(number) == epoch]


def digest(value):
    """Return the SHA-256 of nested dicts and lists of tensors and plain values."""
    found = hashlib.sha256()

    def add(value):
        if isinstance(value, dict):
            found.update(b"{%d" % len(value))
            for key in sorted(value, key=str):
                add(key)
                add(value[key])
        elif isinstance(value, (list, tuple)):
            found.update(b"[%d" % len(value))
            for item in value:
                add(item)
        elif isinstance(value, torch.Tensor):
            found.update(f"{value.dtype}{tuple(value.shape)}".encode() + value.numpy().tobytes())
        else:
            found.update(f"{type(value).__name__} {value!r} ".encode())

    add(value)
    return found.hexdigest()


def compare(alone, resumed):
    """Print a table of both runs; return whether they are equal."""
    rows = [
        ("parameters, statistics", *(digest(end["model"])[:16] for end in (alone, resumed))),
        ("optimizer's states", *(digest(end["optimizer"]["state"])[:16] for end in (alone, resumed))),
        ("optimizer's groups", *(digest(end["optimizer"]["param_groups"])[:16] for end in (alone, resumed))),
        ("random generator", *(digest(end["generator"])[:16] for end in (alone, resumed))),
        ("accuracy", *(f"{end['history']['accuracies'][-1]:.1%}" for end in (alone, resumed))),
    ]
    print("at the end (SHA-256, its first 16 digits, and accuracy; the losses are not compared, see --help)")
    print(f"{'':<24}{'left alone':<18}{'killed, resumed':<18}")
    for name, first, second in rows:
        print(f"{name:<24}{first:<18}{second:<18}{'equal' if first == second else 'DIFFERENT'}")
    return all(first == second for _, first, second in rows)


# Plot

TITLE = "Handwritten digits: a training that was killed, and goes on from its checkpoint"
COLORS = {"left alone": "#999999", "killed": "#0072B2", "resumed": "#E69F00"}  # Okabe and Ito's


def plot(alone, resumed, killed, output):
    """Draw the losses of the three processes into the file `output`: of epochs, and of the epoch of death."""
    half = killed["epoch"]
    with matplotlib.rc_context(digits.STYLE):
        figure = Figure(figsize=(12, 5), layout="constrained")
        figure.suptitle(TITLE, x=0.01, ha="left", fontsize=15, fontweight="bold")
        of_epochs, of_batches = figure.subplots(1, 2, width_ratios=[5, 4])

        of_epochs.set_title("All epochs")
        losses = {
            "left alone": alone["history"]["losses"],
            "killed": killed["history"]["losses"],
            "resumed": resumed["history"]["losses"][half:],
        }
        draw(of_epochs, losses, starts={"resumed": half + 1})
        label = f"killed; a new process goes on\nfrom the checkpoint of epoch {half}"
        of_epochs.axvline(half + 0.5, color="#555555", linewidth=1.5, linestyle="dotted", label=label)
        of_epochs.set_yscale("log")
        of_epochs.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        of_epochs.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        of_epochs.yaxis.set_minor_formatter(ticker.NullFormatter())
        of_epochs.set_xlabel("epoch")
        of_epochs.set_ylabel("training loss")
        of_epochs.legend()

        of_batches.set_title(f"Epoch {half + 1}, batch by batch")
        losses = {"left alone": alone["batches"], "killed": killed["batches"], "resumed": resumed["batches"]}
        draw(of_batches, losses)
        end = len(losses["killed"]) + 0.5
        of_batches.axvspan(0.5, end, color=COLORS["killed"], alpha=0.12, linewidth=0)
        of_batches.axvline(end, color="#555555", linewidth=1.5, linestyle="dotted")
        top = 1.35 * max(map(max, losses.values()))
        of_batches.set_ylim(0, top)
        text = f"killed here: {len(losses['killed'])} batches are lost,\nand done again by the new process"
        of_batches.text(end + 0.3, 0.98 * top, text, verticalalignment="top")
        of_batches.set_xlabel("batch")
        of_batches.set_ylabel("training loss of the batch")
        output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(output, dpi=120)


def draw(axes, losses, starts=()):
    """Draw a curve for each process. Where they agree, the smaller lies on the larger."""
    forms = {
        "left alone": {"linewidth": 5},
        "killed": {"linestyle": "", "marker": "o", "markersize": 7, "zorder": 4},
        "resumed": {"linestyle": "", "marker": "D", "markersize": 10, "zorder": 3},
    }
    for label, form in forms.items():
        first = dict(starts).get(label, 1)
        numbers = range(first, first + len(losses[label]))
        axes.plot(numbers, losses[label], color=COLORS[label], label=label, **form)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.grid(True, axis="y")


# Command line


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("out/resume.png"), help="file name of the plot")
    parser.add_argument("--forget", choices=FORGETTABLE, help="do not load this part of the checkpoint")
    args = parser.parse_args()
    if args.epochs < 2:
        parser.error("at least two epochs are needed: one before the death, one after")
    return args


def main():
    args = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="resume-") as folder:
        alone, resumed, killed = train_three_times(Path(folder), args.epochs, args.forget)
        equal = compare(alone, resumed)
        plot(alone, resumed, killed, args.output)
    print("plot:", args.output)
    if not equal:
        sys.exit("The resumed run differs from the one left alone.")
    print("The resumed run ended with the bits of the one left alone.")


if __name__ == "__main__":
    main()
