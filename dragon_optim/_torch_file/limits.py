# SPDX-License-Identifier: BSD-2-Clause
"""How much memory the contents of a file may take, by the size of the file."""

from dragon_optim._torch_file.errors import CheckpointError

FACTOR = 16
BASE = 64 << 20
# At least this is counted for a tensor: what Dragon and Python keep besides its elements is 1.1 KB.
TENSOR = 2048
# Counted for the description of a tensor while the pickle is read: one with 32 axes takes 0.75 KB. A
# Parameter has two, and becomes one tensor.
DESCRIPTION = 768
# Counted for a dict, a list or a tuple. Empty lists are the smallest that torch.save and this package write,
# six bytes each: what they write is never refused for its containers.
CONTAINER = 6 * FACTOR


class Budget:
    """What a pickle may make: counted while it is read, so that too much is never there at once."""

    def __init__(self, file_size: int) -> None:
        self.limit = FACTOR * file_size + BASE
        self._tensors = 0
        self._containers = 0

    def tensor(self) -> None:
        """Count the description of a tensor."""
        self._tensors += DESCRIPTION
        self._check()

    def container(self) -> None:
        """Count a container."""
        self._containers += CONTAINER
        self._check()

    def _check(self) -> None:
        if self._tensors + self._containers > self.limit:
            if self._tensors > self._containers:
                raise self.small_tensors()
            raise CheckpointError(
                f"the file holds more dicts, lists and tuples than its size explains. {self.rule()}, and "
                f"each dict, list or tuple as {CONTAINER}."
            )

    def small_tensors(self) -> CheckpointError:
        """The error that there are too many of them."""
        return CheckpointError(
            "the file holds more small tensors than its size explains; if they are views, save copies of "
            f"them. {self.rule()}."
        )

    def rule(self) -> str:
        """What the limit is, for a message that goes on."""
        return (
            f"The limit for this file is {self.limit} bytes of memory: {FACTOR} times its size and "
            f"{BASE >> 20} MiB, each tensor counted as at least {TENSOR} bytes"
        )
