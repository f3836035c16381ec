# SPDX-License-Identifier: BSD-2-Clause
"""Measurements side by side with stock Dragon: `python -m benchmarks`. README.md says how to read them."""
