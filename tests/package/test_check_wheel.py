# SPDX-License-Identifier: BSD-2-Clause
"""scripts/check_wheel.py: it takes a good wheel and says what is wrong with another."""

import zipfile

import check_wheel
import pytest


@pytest.fixture
def make_wheel(tmp_path):
    """Return a function that writes a wheel of nearly empty files."""

    def make(tag="py3-none-manylinux_2_28_x86_64", leave_out=(), add=()):
        path = tmp_path / f"dragon_optim-0.1.0-{tag}.whl"
        info = "{" + ", ".join(f'"{key}": ""' for key in check_wheel.BUILD_INFO_KEYS) + "}"
        names = [*check_wheel.NEEDED, "dragon_optim-0.1.0.dist-info/licenses/LICENSE", *add]
        with zipfile.ZipFile(path, "w") as wheel:
            for name in names:
                if name not in leave_out:
                    wheel.writestr(name, info if name.endswith(".json") else "")
        return path

    return make


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ({}, None),
        ({"tag": "cp310-cp310-linux_x86_64"}, "its tag is cp310-cp310"),
        ({"tag": "py3-none-any"}, "its tag is py3-none-any"),
        ({"leave_out": ["dragon_optim/_lib/libdragon_optim.so"]}, "libdragon_optim.so is missing"),
        ({"add": ["dragon_optim/csrc/rmsprop_op.cc"]}, "rmsprop_op.cc does not belong"),
        ({"add": ["tests/test_a.py"]}, "tests/test_a.py does not belong"),
    ],
)
def test_check_of_a_wheel(make_wheel, parts, complaint):
    found = check_wheel.problems(make_wheel(**parts))
    assert len(found) == bool(complaint)
    assert (complaint or "") in "".join(found)
