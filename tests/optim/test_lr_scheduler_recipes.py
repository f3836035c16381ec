# SPDX-License-Identifier: BSD-2-Clause
"""The schedules of well-known trainings with RMSprop, with their settings, and those of PyTorch's pages.

What a schedule must come to is computed here from its description.
"""

from __future__ import annotations

import math

import pytest

import dragon_optim
from dragon_optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from tests.optim.support import backward, parameter

TENSORFLOW = dict(eps_inside_sqrt=True, lr_in_momentum=True, initial_square_avg=1.0)


class Training:
    """A parameter, the recipe's RMSprop over it, and the learning rate of each step."""

    def __init__(self, **options):
        self.weight = parameter([1.0, -2.0])
        self.optimizer = dragon_optim.RMSprop([self.weight], **options)
        self.group = self.optimizer.param_groups[0]

    def steps(self, scheduler, count, metrics=None):
        """Make steps; return the rate of each. The scheduler steps after each."""
        found = []
        for number in range(count):
            found.append(self.group["lr"])
            backward(self.weight, 1.0)
            self.optimizer.step()
            scheduler.step() if metrics is None else scheduler.step(metrics[number])
        return found


def test_efficientnet():
    """Paper and TPU code: 5 epochs of warm-up, then times 0.97 every 2.4 epochs, by step, as a staircase."""
    per_epoch = 10
    options = dict(lr=0.256, alpha=0.9, eps=0.001, momentum=0.9, weight_decay=1e-5, **TENSORFLOW)
    training = Training(**options)

    def factor(step):
        epoch = step / per_epoch
        return epoch / 5 if epoch < 5 else 0.97 ** math.floor(round(epoch / 2.4, 9))

    found = training.steps(LambdaLR(training.optimizer, factor), 30 * per_epoch)
    assert found[0] == 0
    assert found[5 * per_epoch // 2] == pytest.approx(0.128)
    assert found[5 * per_epoch] == pytest.approx(0.256 * 0.97**2)  # the decay counts from the start
    assert found[24 * per_epoch] == pytest.approx(0.256 * 0.97**10)
    assert found[24 * per_epoch - 1] == pytest.approx(0.256 * 0.97**9)


def test_efficientnet_by_parts():
    """The same with a warm-up of its own and StepLR, of which 2.4 epochs are a number of steps."""
    per_epoch, epochs = 10, 20
    training = Training(lr=0.256, alpha=0.9, eps=0.001, momentum=0.9, **TENSORFLOW)
    warm_up = LinearLR(training.optimizer, start_factor=1e-6 / 0.256, total_iters=5 * per_epoch)
    decay = StepLR(training.optimizer, step_size=round(2.4 * per_epoch), gamma=0.97)
    scheduler = SequentialLR(training.optimizer, [warm_up, decay], milestones=[5 * per_epoch])
    found = training.steps(scheduler, epochs * per_epoch)
    assert found[0] == pytest.approx(1e-6)
    assert found[25] == pytest.approx(0.128, rel=1e-4)
    for step in range(5 * per_epoch, epochs * per_epoch):
        assert found[step] == pytest.approx(0.256 * 0.97 ** ((step - 5 * per_epoch) // 24))


def test_mobilenet_v3():
    """torchvision: times 0.973 every 2 epochs."""
    training = Training(lr=0.064, alpha=0.9, eps=0.0316, momentum=0.9, weight_decay=1e-5)
    found = training.steps(StepLR(training.optimizer, 2, 0.973), 40)
    assert found == pytest.approx([0.064 * 0.973 ** (epoch // 2) for epoch in range(40)])


def test_mobilenet_v2():
    training = Training(lr=0.045, alpha=0.9, momentum=0.9, weight_decay=4e-5, **TENSORFLOW)
    found = training.steps(ExponentialLR(training.optimizer, 0.98), 30)
    assert found == pytest.approx([0.045 * 0.98**epoch for epoch in range(30)])


def test_inception_v3():
    training = Training(lr=0.1, alpha=0.9, eps=1.0, momentum=0.9, **TENSORFLOW)
    found = training.steps(StepLR(training.optimizer, 30, 0.16), 91)
    assert [found[0], found[29], found[30], found[60], found[90]] == pytest.approx(
        [0.1, 0.1, 0.016, 0.00256, 0.0004096]
    )


def test_char_rnn():
    """Times 0.97 each epoch after the 10th."""
    training = Training(lr=2e-3, alpha=0.95, clip_value=5)
    scheduler = MultiplicativeLR(training.optimizer, lambda epoch: 0.97 if epoch >= 10 else 1.0)
    found = training.steps(scheduler, 30)
    assert found == pytest.approx([2e-3 * 0.97 ** max(0, epoch - 9) for epoch in range(30)])


def test_torchbeast():
    """IMPALA: linearly to 0 by LambdaLR, which counts frames."""
    frames, per_step = 1000, 40
    training = Training(lr=0.00048, alpha=0.99, eps=0.01)
    scheduler = LambdaLR(training.optimizer, lambda step: 1 - min(step * per_step, frames) / frames)
    found = training.steps(scheduler, 30)
    assert found == pytest.approx([0.00048 * max(0.0, 1 - step * 40 / 1000) for step in range(30)])
    assert found[-1] == 0


def test_dpo():
    """150 steps of linear warm-up."""
    training = Training(lr=5e-7)
    scheduler = LambdaLR(training.optimizer, lambda step: min(1.0, (step + 1) / (150 + 1)))
    found = training.steps(scheduler, 200)
    assert found[:150] == sorted(found[:150])
    assert found[0] == pytest.approx(5e-7 / 151)
    assert set(found[150:]) == {5e-7}


def test_unet():
    """ReduceLROnPlateau("max", patience=5) on a score, with RMSprop's momentum."""
    training = Training(lr=1e-5, weight_decay=1e-8, momentum=0.999, foreach=True)
    scores = [0.1, 0.2, 0.3] + [0.3] * 6 + [0.4] + [0.1] * 7
    found = training.steps(ReduceLROnPlateau(training.optimizer, "max", patience=5), len(scores), scores)
    assert found[8] == 1e-5
    assert found[9] == pytest.approx(1e-6)  # after the sixth that is no better
    assert found[15] == pytest.approx(1e-6)
    assert training.group["lr"] == pytest.approx(1e-7)


def test_one_cycle_switches_momentum_on():
    """RMSprop without momentum: OneCycleLR sets it, and the optimizer makes the buffer."""
    training = Training(lr=0.01)
    scheduler = OneCycleLR(training.optimizer, max_lr=0.1, total_steps=20)
    momenta = []
    for _ in range(19):
        momenta.append(training.group["momentum"])
        training.steps(scheduler, 1)
    assert "momentum_buffer" in training.optimizer.state[training.weight]
    assert momenta[0] == 0.95
    assert momenta[5] == pytest.approx(0.85)
    assert training.group["lr"] == pytest.approx(0.1 / 25 / 1e4)


# --- what PyTorch's pages show --------------------------------------------------------------------


def shown(make, count=9, lr=0.05, **options):
    training = Training(lr=lr, **options)
    return training.steps(make(training.optimizer), count)


def test_step_lr():
    found = shown(lambda optimizer: StepLR(optimizer, step_size=30, gamma=0.1), 91)
    assert (found[29], found[30], found[60], found[90]) == pytest.approx((0.05, 0.005, 0.0005, 0.00005))


def test_multi_step_lr():
    found = shown(lambda optimizer: MultiStepLR(optimizer, milestones=[30, 80], gamma=0.1), 81)
    assert (found[29], found[30], found[79], found[80]) == pytest.approx((0.05, 0.005, 0.005, 0.0005))


def test_constant_lr():
    found = shown(lambda optimizer: ConstantLR(optimizer, factor=0.5, total_iters=4))
    assert found == pytest.approx([0.025] * 4 + [0.05] * 5)


def test_linear_lr():
    found = shown(lambda optimizer: LinearLR(optimizer, start_factor=0.05, total_iters=4))
    assert found == pytest.approx([0.0025, 0.014375, 0.02625, 0.038125] + [0.05] * 5)


def test_polynomial_lr():
    found = shown(lambda optimizer: PolynomialLR(optimizer, total_iters=4, power=1.0), lr=0.05)
    assert found == pytest.approx([0.05, 0.0375, 0.025, 0.0125] + [0.0] * 5)


def test_cosine_annealing_lr():
    found = shown(lambda optimizer: CosineAnnealingLR(optimizer, T_max=100), 201)
    assert found == pytest.approx(
        [0.05 * (1 + math.cos(math.pi * epoch / 100)) / 2 for epoch in range(201)], abs=1e-15
    )


def test_sequential_lr():
    """A constant for 20 epochs, then exponentially."""

    def make(optimizer):
        parts = [ConstantLR(optimizer, factor=0.1, total_iters=20), ExponentialLR(optimizer, gamma=0.9)]
        return SequentialLR(optimizer, parts, milestones=[20])

    found = shown(make, 24)
    assert found == pytest.approx([0.005] * 20 + [0.05, 0.045, 0.0405, 0.03645])


def test_chained_scheduler():
    def make(optimizer):
        return ChainedScheduler(
            [ConstantLR(optimizer, factor=0.1, total_iters=20), ExponentialLR(optimizer, gamma=0.9)]
        )

    found = shown(make, 22)
    assert (found[0], found[1], found[19]) == pytest.approx((0.005, 0.0045, 0.005 * 0.9**19))
    assert (found[20], found[21]) == pytest.approx((0.05 * 0.9**20, 0.05 * 0.9**21))


def test_two_schedulers_in_one_loop():
    """Each goes on from what the other has set."""
    training = Training(lr=1.0)
    first = ExponentialLR(training.optimizer, gamma=0.9)
    second = MultiStepLR(training.optimizer, milestones=[3, 8], gamma=0.1)
    found = []
    for _ in range(10):
        found.append(training.group["lr"])
        training.optimizer.step()
        first.step()
        second.step()
    assert found == pytest.approx([0.9**n * 0.1 ** ((n >= 3) + (n >= 8)) for n in range(10)])


def test_cyclic_lr():
    found = shown(lambda optimizer: CyclicLR(optimizer, base_lr=0.01, max_lr=0.1, step_size_up=10), 41)
    assert (found[0], found[10], found[20], found[30], found[40]) == pytest.approx((0.01, 0.1) * 2 + (0.01,))
