#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Prints the C++ and CUDA files of the project, one a line: what clang-format looks after.
find kernels dragon_optim/csrc benchmarks \( -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' \) -type f | sort
