# SPDX-License-Identifier: BSD-2-Clause
"""What the build decides: compiler, flags, what is out of date, and the name of the wheel."""

import os

import pytest

pytest.importorskip("setuptools", minversion="64", reason="the commands derive from those of setuptools")

from native_build import commands, incremental, libraries
from native_build.cuda import Nvcc
from native_build.dragon_home import Dragon
from native_build.errors import BuildError
from native_build.toolchain import Compiler, find_compiler, require_linux

STUB_COMPILER = (
    'case $1 in -dumpmachine) echo aarch64-linux-gnu ;; --version) echo "stub 1.0"; echo more ;; esac'
)


# Compiler


def test_no_compiler(tmp_path):
    with pytest.raises(BuildError, match="no C.. compiler found: install g"):
        find_compiler({"PATH": str(tmp_path)})


def test_named_compiler_that_is_missing(tmp_path):
    with pytest.raises(BuildError, match="CXX=my-g..: there is no such compiler"):
        find_compiler({"PATH": str(tmp_path), "CXX": "my-g++"})


def test_named_compiler_with_arguments(script):
    path = script("bin", "launcher", f"shift; {STUB_COMPILER}")
    compiler = find_compiler({"PATH": str(path.parent), "CXX": f"{path} g++"})
    assert compiler == ((str(path), "g++"), "stub 1.0", "aarch64")


def test_something_else_named_as_compiler(script):
    path = script("bin", "broken", "exit 1")
    with pytest.raises(BuildError, match="is it a C.. compiler"):
        find_compiler({"PATH": str(path.parent), "CXX": str(path)})


# Flags


def flags_of(library):
    return {unit.source.name: unit.flags for unit in library.units}


def test_instruction_sets_only_on_x86_64(root):
    here, elsewhere = (flags_of(libraries.kernels(root, machine, {})) for machine in ("x86_64", "aarch64"))
    assert "-mavx2" in here["isa_avx2.cc"]
    assert "-mavx512f" in here["isa_avx512.cc"]
    for name, flags in here.items():
        assert elsewhere[name] == libraries.FLAGS
        if name not in ("isa_avx2.cc", "isa_avx512.cc"):
            assert flags == libraries.FLAGS


def test_no_flag_breaks_equal_bits(root):
    for flags in flags_of(libraries.kernels(root, "x86_64", {})).values():
        assert "-ffp-contract=off" in flags
        assert not {"-ffast-math", "-Ofast", "-march=native"} & set(flags)


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("0", False), ("", False), (None, False)])
def test_warnings_are_errors_on_request(root, value, expected):
    environ = {} if value is None else {"DRAGON_OPTIM_WERROR": value}
    assert all(
        ("-Werror" in flags) == expected
        for flags in flags_of(libraries.kernels(root, "x86_64", environ)).values()
    )


def test_operators_take_dragon_as_system_headers(root, tmp_path):
    library = libraries.operators(
        root, Dragon(tmp_path, "0.3.0", "abc"), tmp_path, {"DRAGON_OPTIM_CXXFLAGS": "-g"}
    )
    for flags in flags_of(library).values():
        assert flags[flags.index("-isystem") + 1] == str(tmp_path / "include")
        assert flags[-1] == "-g"
    assert "-Wl,--version-script=dragon_optim/csrc/exports.map" in library.link_flags
    assert "-Wl,-rpath,$ORIGIN" in library.link_flags


def test_operators_with_cuda(root, tmp_path):
    dragon = Dragon(tmp_path, "0.3.0", "abc")
    parts = libraries.CudaParts((tmp_path / "norms.o",), (tmp_path / "toolkit",), ("-lcudart_static",))
    without = libraries.operators(root, dragon, tmp_path, {})
    library = libraries.operators(root, dragon, tmp_path, {}, cuda=parts)
    assert {unit.source.parent.name for unit in library.units} == {"csrc", "cuda"}
    assert {unit.source.parent.name for unit in without.units} == {"csrc"}
    for flags in flags_of(library).values():
        assert "-DUSE_CUDA" in flags
        assert flags[flags.index(str(tmp_path / "toolkit")) - 1] == "-isystem"
    assert not any("-DUSE_CUDA" in flags for flags in flags_of(without).values())
    assert library.link_flags[:2] == (str(tmp_path / "norms.o"), "-lcudart_static")
    assert library.link_inputs[0] == tmp_path / "norms.o"  # linked again when the kernels have changed


def test_a_copy_without_sources(tmp_path):
    with pytest.raises(BuildError, match="no C.. sources in kernels/"):
        libraries.kernels(tmp_path, "x86_64", {})


# What is out of date


@pytest.fixture
def small(tmp_path):
    """Return a function that builds a library of two sources and a header, and the lines that it logged."""
    for name, text in {
        "a.h": "int f();",
        "a.cc": '#include "a.h"\nint f() { return 1; }',
        "b.cc": "int g() { return 2; }",
    }.items():
        (tmp_path / name).write_text(text + "\n")
        os.utime(tmp_path / name, (1, 1))

    def build(*flags):
        lines = []
        units = [
            libraries.Unit((tmp_path / name).relative_to(tmp_path), ("-fPIC", *flags))
            for name in ("a.cc", "b.cc")
        ]
        library = libraries.Library("small", units, flags)
        compiler = find_compiler()
        path = incremental.build_library(library, compiler, tmp_path, tmp_path / "build", lines.append)
        assert path == tmp_path / "build" / "libsmall.so"
        assert path.is_file()
        return {line.split()[0] for line in lines if line.startswith(("  ", "linking"))}

    return build


def test_nothing_is_compiled_twice(small):
    assert small() == {"a.cc", "b.cc", "linking"}
    assert small() == set()


@pytest.mark.parametrize(("changed", "compiled"), [("a.cc", "a.cc"), ("a.h", "a.cc"), ("b.cc", "b.cc")])
def test_a_change_is_compiled(small, tmp_path, changed, compiled):
    small()
    (tmp_path / changed).touch()
    assert small() == {compiled, "linking"}


def test_other_flags_compile_all(small):
    small()
    assert small("-O1") == {"a.cc", "b.cc", "linking"}


def test_an_error_shows_what_the_compiler_said_and_leaves_no_object(small, tmp_path):
    (tmp_path / "b.cc").write_text("int g() { return nonsense; }\n")
    with pytest.raises(BuildError, match="nonsense"):
        small()
    assert not list((tmp_path / "build").glob("b.o*"))


def test_a_loaded_library_is_replaced_not_overwritten(tmp_path):
    source, folder = tmp_path / "new" / "lib.so", tmp_path / "lib"
    source.parent.mkdir()
    folder.mkdir()
    source.write_text("new")
    (folder / "lib.so").write_text("old")
    with (folder / "lib.so").open() as loaded:
        commands.install(source, folder)
        assert loaded.read() == "old"
    assert (folder / "lib.so").read_text() == "new"


# What is recorded and named


def test_build_info(tmp_path):
    info = commands.build_info(Dragon(tmp_path, "0.3.0", "abc"), Compiler(("g++",), "g++ 12", "x86_64"))
    assert info == {
        "dragon_version": "0.3.0",
        "dragon_git_version": "abc",
        "compiler": "g++ 12",
        "machine": "x86_64",
    }
    nvcc = Nvcc(("nvcc",), "13.0", (90,))
    info = commands.build_info(Dragon(tmp_path, "0.3.0", "abc"), Compiler(("g++",), "", "x86_64"), nvcc)
    assert info["cuda_compiler"] == "nvcc 13.0"


@pytest.mark.parametrize("platform", ["linux_x86_64", "manylinux_2_28_x86_64"])
def test_the_wheel_serves_every_python(platform):
    class Base:
        def finalize_options(self):
            self.root_is_pure = True

        def get_tag(self):
            return "cp310", "cp310", platform

    command = commands.platform_wheel(Base)()
    command.finalize_options()
    assert command.root_is_pure is False
    assert command.get_tag() == ("py3", "none", platform)


def test_only_linux():
    require_linux("linux")
    with pytest.raises(BuildError, match="only Linux is supported.*darwin"):
        require_linux("darwin")
