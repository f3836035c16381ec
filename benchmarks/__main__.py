# SPDX-License-Identifier: BSD-2-Clause
from benchmarks import large_step

if __name__ == "__main__":
    large_step.main()
