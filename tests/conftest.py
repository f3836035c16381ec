# SPDX-License-Identifier: BSD-2-Clause
"""Before all tests."""

import contextlib

# It replaces distutils, and refuses to be imported once Dragon has imported that: in whatever order files are run.
with contextlib.suppress(ImportError):
    import setuptools  # noqa: F401
