# SPDX-License-Identifier: BSD-2-Clause
"""scripts/find_python.sh chooses an interpreter that works, or says in one line what to install."""

import shutil
import subprocess

import pytest

# What a stub interpreter answers: first it is asked for its version and path, then whether it has venv.
WORKS = 'case $2 in *executable*) echo "{version} $0" ;; *version_info*) echo {version} ;; esac'
NO_VENV = 'case $2 in *ensurepip*) exit 1 ;; *executable*) echo "{version} $0" ;; *) echo {version} ;; esac'
BROKEN_SHIM = 'echo "pyenv: python3.10: command not found" >&2; exit 127'


@pytest.fixture
def find_python(root, tmp_path):
    """Return a function that runs the script with nothing on the PATH but `bin` and the tools it uses."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "head", "cut", "dirname"):
        (tools / name).symlink_to(shutil.which(name))

    def run(*arguments, **environ):
        environ = {"PATH": f"{tmp_path / 'bin'}:{tools}", "HOME": str(tmp_path / "home"), **environ}
        command = [str(tools / "sh"), str(root / "scripts" / "find_python.sh"), *arguments]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

    return run


def assert_found(run, path):
    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, str(path), "")


def assert_refused(run, *words):
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1
    for word in words:
        assert word in run.stderr


def test_nothing_there(find_python):
    assert_refused(find_python(), "Python 3.10 not found", "python3.10-venv", "PYTHON=")


@pytest.mark.parametrize("name", ["python3.10", "python3", "python"])
def test_on_the_path(find_python, script, name):
    chosen = script("bin", name, WORKS.format(version="3.10"))
    assert_found(find_python(), chosen)


def test_another_version_is_not_taken(find_python, script):
    script("bin", "python3", WORKS.format(version="3.11"))
    assert_refused(find_python(), "Python 3.10 not found")


def test_pyenv_before_the_path(find_python, script):
    script("bin", "python3.10", WORKS.format(version="3.10"))
    chosen = script("home/.pyenv/versions/3.10.13/bin", "python", WORKS.format(version="3.10"))
    assert_found(find_python(), chosen)


def test_pyenv_elsewhere(find_python, script, tmp_path):
    chosen = script("my pyenv/versions/3.10.4/bin", "python", WORKS.format(version="3.10"))
    assert_found(find_python(PYENV_ROOT=str(tmp_path / "my pyenv")), chosen)


def test_a_shim_that_only_fails_is_passed_over(find_python, script):
    script("bin", "python3.10", BROKEN_SHIM)
    chosen = script("bin", "python3", WORKS.format(version="3.10"))
    assert_found(find_python(), chosen)


def test_an_interpreter_without_venv_is_passed_over(find_python, script):
    script("bin", "python3.10", NO_VENV.format(version="3.10"))
    chosen = script("bin", "python3", WORKS.format(version="3.10"))
    assert_found(find_python(), chosen)


def test_only_one_without_venv(find_python, script):
    path = script("bin", "python3.10", NO_VENV.format(version="3.10"))
    assert_refused(find_python(), str(path), "install python3.10-venv")


def test_uv_finds_one(find_python, script):
    chosen = script("uv", "python3.10", WORKS.format(version="3.10"))
    script("bin", "uv", f'[ "$*" = "python find 3.10" ] && echo "{chosen}"')
    assert_found(find_python(), chosen)


def test_uv_installs_one(find_python, script, tmp_path):
    chosen = script("uv", "python3.10", WORKS.format(version="3.10"))
    done = tmp_path / "installed"
    script(
        "bin", "uv", f'case $2 in install) : > "{done}" ;; find) [ -e "{done}" ] && echo "{chosen}" ;; esac'
    )
    run = find_python()
    assert (run.returncode, run.stdout.strip()) == (0, str(chosen))
    assert "uv installs one" in run.stderr


def test_uv_installs_nothing_when_only_asked_for_a_version(find_python, script):
    script("bin", "uv", '[ "$2" = find ] || echo "uv $*" >&2; exit 1')
    assert_refused(find_python("3.8"), "Python 3.8 not found")


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10"])
def test_override(find_python, script, version):
    script("bin", "python3.10", WORKS.format(version="3.10"))
    chosen = script("mine", "py", WORKS.format(version=version))
    assert_found(find_python(PYTHON=str(chosen)), chosen)


def test_override_of_an_unsupported_version(find_python, script):
    chosen = script("mine", "py", WORKS.format(version="3.12"))
    assert_refused(find_python(PYTHON=str(chosen)), "Python 3.12", "3.8, 3.9 and 3.10")


def test_override_that_does_not_run(find_python, script):
    script("bin", "python3.10", WORKS.format(version="3.10"))
    assert_refused(find_python(PYTHON="/no/such/python"), "PYTHON=/no/such/python does not run")


def test_a_version_as_argument(find_python, script):
    script("bin", "python3.10", WORKS.format(version="3.10"))
    chosen = script("bin", "python3.8", WORKS.format(version="3.8"))
    assert_found(find_python("3.8", PYTHON="/ignored"), chosen)
