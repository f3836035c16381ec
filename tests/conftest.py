# SPDX-License-Identifier: BSD-2-Clause
"""Before all tests."""

import contextlib

# It refuses to be imported once Dragon has imported distutils: files of tests may run in any order.
with contextlib.suppress(ImportError):
    import setuptools  # noqa: F401
