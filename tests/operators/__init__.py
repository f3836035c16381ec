# SPDX-License-Identifier: BSD-2-Clause
"""The operators by themselves, in graphs that are written by hand.

What their edges mean, and what wrong edges do.
"""
