# SPDX-License-Identifier: BSD-2-Clause
"""The example scripts run, print what they promise, and learn."""

import re

import pytest

from tests.examples.running import EXAMPLES, needs_demo, png_size, run_example, run_python

pytestmark = needs_demo

# Two optimizers with one formula part by rounding only. The loss of this network, smooth by design (no ReLU),
# differs by less than 7e-7 of itself after two epochs (six seeds, sixteen processes). The least change of the
# formula that was tried, weight decay on biases too, moves it by 1.4e-5; one percent more eps by 7e-4.
SAME_LOSS = 5e-6


def number_after(label, text):
    """Return the number that follows `label`."""
    return float(re.search(re.escape(label) + r" ([0-9]+\.[0-9]+)", text).group(1))


class TestDigits:
    def test_compares_two_optimizers(self, tmp_path):
        plot = tmp_path / "plots" / "digits.png"
        done = run_example("digits.py", "--epochs", 1, "--output", plot, directory=tmp_path)
        assert done.returncode == 0, done.stderr
        accuracies, times, place = done.stdout.splitlines()

        assert accuracies.startswith("accuracy on held-out digits:")
        ours = number_after("dragon_optim", accuracies)
        assert ours > 30  # percent, where guessing gives 10
        one_image = 100 / 360
        assert ours == pytest.approx(number_after("stock Dragon", accuracies), abs=3 * one_image)

        assert times.startswith("time per optimizer step:")
        assert number_after("dragon_optim", times) > 0
        assert number_after("stock Dragon", times) > 0

        assert place.endswith(str(plot))
        width, height = png_size(plot)
        assert width > 1200
        assert height > 400
        assert plot.stat().st_size > 20_000

        for word in ("dragon_optim", "stock Dragon", "1/1", "loss=", "accuracy=", "lr=0.00400"):
            assert word in done.stderr  # the progress bars

    def test_leaves_stock_out_and_has_a_default_output(self, tmp_path):
        done = run_example("digits.py", "--epochs", 2, "--no-stock", directory=tmp_path)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 3
        assert "stock" not in done.stdout + done.stderr
        assert png_size(tmp_path / "out" / "digits.png")

    @pytest.mark.parametrize(("accuracy", "exit_status"), [(0.9694, 1), (0.9722, 0)])
    def test_fails_below_the_goal(self, accuracy, exit_status, tmp_path):
        """The training is left out, as one that fails takes as long as one that does not."""
        script = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
import digits
digits.train = lambda *_: digits.History([0.1] * 20, [{accuracy}] * 20, 0.1, 20.0)
digits.main()
"""
        done = run_python("-c", script, "--no-stock", directory=tmp_path)
        assert done.returncode == exit_status
        complaint = "The accuracy of dragon_optim, 96.9%, is below the goal of 97%."
        assert (complaint in done.stderr) == (exit_status == 1)

    @pytest.mark.parametrize("arguments", [("--epochs", 0), ("--batch-size", 0), ("--batch-size", 1438)])
    def test_refuses_what_cannot_be_trained(self, arguments, tmp_path):
        done = run_example("digits.py", *arguments, directory=tmp_path)
        assert done.returncode == 2
        assert "at least one epoch is needed, and batches of 1 to 1437 images" in done.stderr


class TestDragonScript:
    def final_losses(self, optimizer, seed, directory):
        """Run two epochs and return the losses on the training and on the held-out digits."""
        arguments = ("--optimizer", optimizer, "--epochs", 2, "--seed", seed)
        done = run_example("dragon_script.py", *arguments, directory=directory)
        assert done.returncode == 0, done.stderr
        assert "epoch 2: mean loss" in done.stdout
        return number_after("final loss:", done.stdout), number_after("held-out loss:", done.stdout)

    def test_only_the_import_differs(self, tmp_path):
        ours = self.final_losses("ours", 0, tmp_path)
        stock = self.final_losses("stock", 0, tmp_path)
        assert ours == pytest.approx(stock, rel=SAME_LOSS)
        assert ours[0] < 0.3  # guessing has log(10) = 2.3

    def test_seed_matters(self, tmp_path):
        first, second = (self.final_losses("ours", seed, tmp_path) for seed in (0, 1))
        assert first != pytest.approx(second, rel=1e-2)


class TestLearnTheLearningRate:
    def test_finds_a_better_rate(self, tmp_path):
        done = run_example(
            "learn_the_learning_rate.py", "--search-steps", 6, "--training-steps", 8, directory=tmp_path
        )
        assert done.returncode == 0, done.stderr
        rates, losses, place = done.stdout.splitlines()
        assert number_after("fixed", rates) == 0.0003
        assert number_after("learned", rates) > 0.001
        assert losses.startswith("loss on held-out digits after 8 steps:")
        assert number_after("learned", losses) < 0.8 * number_after("fixed", losses)
        plot = tmp_path / "out" / "learn_the_learning_rate.png"
        assert place == "plot: out/learn_the_learning_rate.png"
        width, height = png_size(plot)
        assert width > 1200
        assert height > 400
        for word in ("search", "6/6", "lr=", "loss=", "slope=-"):
            assert word in done.stderr  # the progress bar

    def test_the_slope_is_that_of_the_loss(self, tmp_path):
        """The hypergradient through all steps, against a difference of two trainings."""
        script = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
import numpy as np
import learn_the_learning_rate as example
from dragon.vm import torch
data, weights = example.load_data(0, 10), example.initial_weights(0)
rate = torch.tensor(np.array(0.003))
rate.requires_grad = True
example.train(rate, weights, data)[0].backward()
with torch.no_grad():
    up, down = (example.train(0.003 + shift, weights, data)[0].item() for shift in (1e-7, -1e-7))
print("slope", -rate.grad.item(), "difference", (down - up) / 2e-7)
"""
        done = run_python("-c", script, directory=tmp_path)
        assert done.returncode == 0, done.stderr
        slope = number_after("slope", done.stdout)
        assert slope > 1
        assert slope == pytest.approx(number_after("difference", done.stdout), rel=1e-5)

    @pytest.mark.parametrize("arguments", [("--search-steps", 0), ("--training-steps", 0), ("--start", 0)])
    def test_refuses_what_cannot_be_searched(self, arguments, tmp_path):
        done = run_example("learn_the_learning_rate.py", *arguments, directory=tmp_path)
        assert done.returncode == 2
        assert "at least one step of each kind is needed" in done.stderr
