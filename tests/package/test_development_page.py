# SPDX-License-Identifier: BSD-2-Clause
"""docs/development.rst names every file of the package and of tests, and none that is not there."""

import re
from typing import Dict, List

import pytest

PLACES = ["", "kernels", "operators", "optim", "checkpoint", "package", "examples", "benchmarks"]


@pytest.fixture(scope="module")
def named(root) -> Dict[str, List[str]]:
    """By folder of tests/, the paths and patterns that its table names; "" for the first table."""
    page = (root / "docs" / "development.rst").read_text()
    section = page.split("\nTests\n-----\n")[1].split("\nThe gate\n--------\n")[0]
    overview, *rest = re.split(r"^``tests/(\w+)/``, by file:$", section, flags=re.MULTILINE)
    tables = {"": overview.replace("``tests/", "``"), **dict(zip(rest[::2], rest[1::2]))}
    return {place: re.findall(r"``([\w*/]+(?:\.py|/))``", table) for place, table in tables.items()}


def matches(folder, patterns):
    return {path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern)}


def test_every_folder_has_a_table(root, named):
    having = {
        path.parent.relative_to(root / "tests").as_posix() for path in (root / "tests").rglob("test_*.py")
    }
    assert {"" if place == "." else place for place in having} == set(named) == set(PLACES)


@pytest.mark.parametrize("place", PLACES)
def test_every_file_of_tests_is_named(place, root, named):
    folder = root / "tests" / place
    assert {path.name for path in folder.glob("test_*.py")} - matches(folder, named[place]) == set()


@pytest.mark.parametrize("place", PLACES)
def test_every_name_exists(place, root, named):
    folder = root / "tests" / place
    assert [name for name in named[place] if not matches(folder, [name.rstrip("/")])] == []


@pytest.mark.parametrize("folder", ["dragon_optim", "dragon_optim/_dragon"])
def test_every_file_of_the_package_is_named(folder, root):
    page = (root / "docs" / "development.rst").read_text()
    table = page.split(f"\n``{folder}/``, by file:\n")[1].split("\n\n``")[0].split("\n\nBuild and test\n")[0]
    files = {path.name for path in (root / folder).glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"``(\w+\.py)``", table)) == files


@pytest.mark.parametrize("name", ["_torch_file", "lr_scheduler"])
def test_every_file_of_a_folder_is_named_in_its_docstring(name, root):
    folder = root / "dragon_optim" / name
    words = (folder / "__init__.py").read_text().split('"""')[1]
    assert set(re.findall(r"``(\w+)``", words)) == {path.stem for path in folder.glob("*.py")} - {"__init__"}
