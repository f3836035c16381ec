# SPDX-License-Identifier: BSD-2-Clause
"""The version and the requirements are the same wherever they are said."""

import importlib.metadata
import re

import pytest
import requirements

import dragon_optim


@pytest.fixture
def newest(root):
    """The newest version of the changelog."""
    heading = re.search(
        r"^## \[(.*?)\] - (unreleased|\d{4}-\d\d-\d\d)$", (root / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert heading
    return heading.group(1)


def test_version_and_changelog_agree(root, newest):
    (version,) = re.findall(
        r'^__version__ = "(.*)"$', (root / "dragon_optim" / "_version.py").read_text(), re.MULTILINE
    )
    assert newest == version


def test_the_package_says_the_version_of_the_changelog(newest):
    assert dragon_optim.__version__ == newest


def test_the_installed_version_is_the_packages():
    try:
        installed = importlib.metadata.version("dragon_optim")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("dragon_optim is not installed here")
    assert installed == dragon_optim.__version__, "installed before the version changed: make build"


def test_requirements_of_several_groups():
    lines = requirements.requirements(["build", "test"])
    assert "seeta-dragon==0.3.0" in lines
    assert any(line.startswith("pytest") for line in lines)


def test_requirements_of_an_unknown_group():
    with pytest.raises(SystemExit, match="no group 'tset'"):
        requirements.requirements(["tset"])
