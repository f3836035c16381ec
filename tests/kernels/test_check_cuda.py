# SPDX-License-Identifier: BSD-2-Clause
"""`check_cuda.py`, which is for a GPU: its checks pass on the emulation, and find what is wrong."""

from __future__ import annotations

import pytest

from tests.kernels import check_cuda, cuda_cases, device_memory
from tests.kernels.emulation import EmulatedMemory


@pytest.mark.parametrize("check", check_cuda.CHECKS, ids=lambda check: check.__name__)
def test_check(cuda, check):
    cases = check(cuda, EmulatedMemory(), quick=True)
    assert cases > 0 or check is check_cuda.beyond_32_bits


class Wrong:
    """The kernels, with a bit wrong in what they leave behind."""

    def __init__(self, cuda):
        self._cuda, self.path = cuda, cuda.path

    def __getattr__(self, name):
        return getattr(self._cuda, name)

    def upload(self, image):
        array = self._cuda.upload(image)
        read = array.read

        def with_a_wrong_bit():
            values = read()
            values[cuda_cases.ALIGNMENT] ^= 1
            return values

        array.read = with_a_wrong_bit
        return array


@pytest.mark.parametrize("check", [check_cuda.forms, check_cuda.lists, check_cuda.alignments])
def test_a_wrong_bit_is_found(cuda, check):
    with pytest.raises(AssertionError):
        check(Wrong(cuda), EmulatedMemory(), quick=True)


def test_without_a_gpu_it_says_so_in_a_line(monkeypatch, capsys):
    def find(name):
        raise device_memory.NoGpuError("no GPU to be had: torch is not installed")

    monkeypatch.setattr(device_memory, "find", find)
    monkeypatch.setattr("sys.argv", ["check_cuda.py"])
    assert check_cuda.main() == check_cuda.NO_GPU
    assert capsys.readouterr().out == "no GPU to be had: torch is not installed\n"
