# SPDX-License-Identifier: BSD-2-Clause
"""Builds the two native libraries of dragon_optim: the kernels, and Dragon's operators that call them."""
