# SPDX-License-Identifier: BSD-2-Clause
"""What goes wrong in a build, said in one sentence."""


class BuildError(RuntimeError):
    """The native libraries cannot be built; the message says what to do about it."""
