# SPDX-License-Identifier: BSD-2-Clause
"""Learning-rate schedules: PyTorch's classes, with the same arguments and the same numbers.

``base`` is the life of a step, and what is saved. ``rates`` reads and writes the groups, all of them or none,
``arguments`` and ``loading`` check what users and state dicts give, ``order`` knows whether the optimizer has
stepped. The schedules: ``factors`` of the user's functions, ``decays`` at certain epochs, ``ramps`` for some
epochs, ``cosine``, ``cyclic``, ``one_cycle``, ``plateau``, and ``combined`` of other schedules.
"""

from dragon_optim.lr_scheduler.base import LRScheduler, _LRScheduler
from dragon_optim.lr_scheduler.combined import ChainedScheduler, SequentialLR
from dragon_optim.lr_scheduler.cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts
from dragon_optim.lr_scheduler.cyclic import CyclicLR
from dragon_optim.lr_scheduler.decays import ExponentialLR, MultiStepLR, StepLR
from dragon_optim.lr_scheduler.factors import LambdaLR, MultiplicativeLR
from dragon_optim.lr_scheduler.one_cycle import OneCycleLR
from dragon_optim.lr_scheduler.plateau import ReduceLROnPlateau
from dragon_optim.lr_scheduler.ramps import ConstantLR, LinearLR, PolynomialLR

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
    "_LRScheduler",
]
