# SPDX-License-Identifier: BSD-2-Clause
"""The measure by which both scripts compare parameters. Needs numpy alone."""

import numpy as np

# PyTorch on the CPU does not round all square roots correctly, dragon_optim does, and there is no other
# difference: measured are 0.5 units from PyTorch as it is, and not one bit from PyTorch with numpy's roots,
# which record.py has recorded too.
LIMIT = 2


def distance(values, expected):
    """Return the largest difference of two float32 arrays, in units in the last place of the largest element.

    Not of each element: one that has come near to zero still bears the roundings of its larger days.
    """
    unit = np.spacing(np.abs(expected).max())
    difference = np.abs(values.astype("float64") - expected).max() / unit
    return np.nan_to_num(difference, nan=np.inf)  # what is not a number must not pass for close
