# SPDX-License-Identifier: BSD-2-Clause
"""The build finds the Dragon to build against without importing it, and refuses what is none."""

import sys

import pytest

from native_build import dragon_home
from native_build.errors import BuildError


@pytest.fixture
def installed(monkeypatch, make_dragon):
    """Return a function that makes one Dragon importable, in place of the real one."""

    def install(**parts):
        home = make_dragon("site/dragon", **parts)
        monkeypatch.setattr(sys, "path", [str(home.parent)])
        monkeypatch.delitem(sys.modules, "dragon", raising=False)
        return home

    return install


def test_installed(installed):
    home = installed()
    dragon = dragon_home.find_dragon({})
    assert dragon == (home, "0.3.0", "abc")
    assert (dragon.include_dir, dragon.library_dir) == (home / "include", home / "lib")


def test_not_installed(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "dragon", raising=False)
    with pytest.raises(
        BuildError, match=r"not installed here: pip install seeta-dragon==0\.3\.0, or set DRAGON_HOME"
    ):
        dragon_home.find_dragon({})


def test_the_unrelated_package(installed):
    installed(headers=False, library=False)
    with pytest.raises(BuildError, match=r"not the Dragon framework.*operator\.h.*pip uninstall dragon"):
        dragon_home.find_dragon({})


@pytest.mark.parametrize(
    ("text", "has_cuda", "runtime"),
    [
        (b"", False, ""),
        (b"dragon::CPUContext", False, ""),
        (b"\0_ZN6dragon11CUDAContext7objectsEv\0", True, ""),
        (b"\0libcudart.so.11.0\0_ZN6dragon11CUDAContext7objectsEv\0", True, "11"),
        (b"\0libcudart.so.12\0_ZN6dragon11CUDAContext7objectsEv\0", True, "12"),
    ],
)
def test_a_dragon_with_cuda(installed, text, has_cuda, runtime):
    installed(cuda=text)
    dragon = dragon_home.find_dragon({})
    assert (dragon.has_cuda, dragon.shared_cuda_runtime) == (has_cuda, runtime)


def test_cuda_as_dragon_itself_says():
    from dragon import sysconfig

    assert dragon_home.find_dragon({}).has_cuda == sysconfig.get_build_info()["is_cuda_build"]


def test_headers_without_library(installed):
    installed(library=False)
    with pytest.raises(BuildError, match=r"no lib/libdragon\.so"):
        dragon_home.find_dragon({})


def test_a_version_file_that_is_none(installed):
    (installed() / "version.py").write_text("__version__ = '1'\n")
    with pytest.raises(BuildError, match="not a version.py of Dragon"):
        dragon_home.find_dragon({})


@pytest.mark.parametrize("inner", [".", "dragon", "targets/native"])
def test_named_home_goes_first(installed, make_dragon, tmp_path, inner):
    installed()
    home = make_dragon(f"mine/{inner}", version="0.4.0a0")
    dragon = dragon_home.find_dragon({"DRAGON_HOME": str(tmp_path / "mine")})
    assert dragon == (home.resolve(), "0.4.0a0", "abc")


def test_named_home_without_version_takes_the_package_s(installed, make_dragon, tmp_path):
    installed(version="0.4.0a0")
    home = make_dragon("mine/targets/native", version=None)
    assert dragon_home.find_dragon({"DRAGON_HOME": str(tmp_path / "mine")}) == (home, "0.4.0a0", "abc")


def test_no_version_anywhere(monkeypatch, make_dragon):
    home = make_dragon("mine", version=None)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "dragon", raising=False)
    with pytest.raises(BuildError, match="no version.py"):
        dragon_home.find_dragon({"DRAGON_HOME": str(home)})


def test_named_home_that_is_none(installed, tmp_path):
    installed()
    with pytest.raises(BuildError, match="is not a Dragon"):
        dragon_home.find_dragon({"DRAGON_HOME": str(tmp_path)})
