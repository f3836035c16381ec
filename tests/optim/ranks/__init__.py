# SPDX-License-Identifier: BSD-2-Clause
"""What the processes of a group do in `test_process_group.py`.

Each script here is run by every rank, under mpirun.
"""
