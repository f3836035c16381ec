# SPDX-License-Identifier: BSD-2-Clause
"""What the CUDA build decides: which nvcc, which architectures, which flags."""

import subprocess
import sys
from pathlib import Path

import pytest

from native_build import cuda, dragon_home, libraries
from native_build.dragon_home import Dragon
from native_build.errors import BuildError

STUB_NVCC = (
    'case $1 in --version) echo "Cuda compilation tools, release 12.4, V12.4.1" ;; '
    "--list-gpu-code) printf 'sm_60\\nsm_70\\nsm_80\\nsm_90\\nsm_90a\\n' ;; "
    '--dryrun) echo "#\\$ TOP=/opt/toolkit"; echo "#\\$ INCLUDES=\\"-I$TOOLKIT\\"  "; '
    'echo "#\\$ LIBRARIES=  \\"-L/opt/stubs\\" \\"-L/opt/lib\\"" ;; esac'
)


@pytest.fixture
def nvcc(script):
    path = script("bin", "nvcc", STUB_NVCC)
    return cuda.find_nvcc({"PATH": str(path.parent), "CUDACXX": str(path)})


def test_no_nvcc(tmp_path):
    assert cuda.find_nvcc({"PATH": str(tmp_path)}, usual_place=tmp_path / "nvcc") is None


def test_nvcc_on_the_path_and_in_its_usual_place(script, tmp_path):
    path = script("bin", "nvcc", STUB_NVCC)
    for environ in ({"PATH": str(path.parent)}, {"PATH": str(tmp_path)}):
        assert cuda.find_nvcc(environ, usual_place=path) == ((str(path),), "12.4", (60, 70, 80, 90))


def test_the_host_compiler_is_passed_on(script):
    path = script("bin", "nvcc", STUB_NVCC)
    environ = {"PATH": str(path.parent), "CUDACXX": str(path), "CXX": "ccache g++-12"}
    assert cuda.find_nvcc(environ).command == (str(path), "-ccbin", "g++-12")


def test_named_nvcc_that_is_missing(tmp_path):
    with pytest.raises(BuildError, match="CUDACXX=my-nvcc: there is no such compiler"):
        cuda.find_nvcc({"PATH": str(tmp_path), "CUDACXX": "my-nvcc"})


@pytest.mark.parametrize("text", ["exit 1", "exit 0"])
def test_something_else_named_as_nvcc(script, text):
    path = script("bin", "other", text)
    with pytest.raises(BuildError, match="is it nvcc"):
        cuda.find_nvcc({"PATH": str(path.parent), "CUDACXX": str(path)})


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", (70, 80, 90)), ("90", (90,)), ("90;80", (80, 90)), ("70, 80", (70, 80)), (" ; ", (70, 80, 90))],
)
def test_architectures(nvcc, text, expected):
    assert cuda.chosen_architectures(nvcc, {cuda.ARCHS: text}) == expected


@pytest.mark.parametrize("text", ["75", "sm_80", "90a", "80;60"])
def test_architectures_that_nvcc_has_not(nvcc, text):
    message = f"DRAGON_OPTIM_CUDA_ARCHS={text}: .* is no architecture of nvcc 12.4 .*need some of 70, 80, 90"
    with pytest.raises(BuildError, match=message):
        cuda.chosen_architectures(nvcc, {cuda.ARCHS: text})


@pytest.mark.parametrize("version", ["9.2", "10.2", "11.6"])
def test_an_nvcc_that_is_too_old(nvcc, version):
    with pytest.raises(BuildError, match=f"nvcc {version} is too old: install CUDA 11.7 or later"):
        cuda.chosen_architectures(nvcc._replace(version=version), {})


@pytest.fixture
def toolkit(nvcc, tmp_path, monkeypatch):
    """The toolkit of the stub, in whose folder of headers there is none."""
    (tmp_path / "headers").mkdir()
    monkeypatch.setenv("TOOLKIT", str(tmp_path / "headers"))
    return cuda.toolkit(nvcc)


def test_where_the_toolkit_is(toolkit, tmp_path):
    assert toolkit == ((tmp_path / "headers",), (Path("/opt/stubs"), Path("/opt/lib")))


def test_an_nvcc_that_does_not_say_where_it_is(script):
    path = script("bin", "nvcc", "exit 0")
    with pytest.raises(BuildError, match="does not say where CUDA's headers"):
        cuda.toolkit(cuda.Nvcc((str(path),), "12.4", (80,)))


def test_headers_that_the_toolkit_lacks(toolkit, tmp_path):
    assert toolkit.lacks({}) == ["cublas_v2.h", "curand.h"]
    (tmp_path / "headers" / "curand.h").touch()
    assert toolkit.lacks({}) == ["cublas_v2.h"]
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "cublas_v2.h").touch()
    assert toolkit.lacks({"CPATH": f"/nowhere:{tmp_path / 'more'}"}) == []


def test_a_dragon_without_cuda_needs_no_nvcc(make_dragon):
    dragon = Dragon(make_dragon("dragon"), "0.3.0", "abc")
    assert cuda.toolkit_for(dragon, None) is None


def test_a_dragon_with_cuda_needs_nvcc_and_all_headers(make_dragon, tmp_path, nvcc, toolkit, monkeypatch):
    dragon = Dragon(make_dragon("dragon", cuda=dragon_home.CUDA_SYMBOL), "0.3.0", "abc")
    with pytest.raises(
        BuildError, match="was built with CUDA, and its operators need nvcc: install CUDA's tool"
    ):
        cuda.toolkit_for(dragon, None)
    monkeypatch.delenv("CPATH", raising=False)
    with pytest.raises(BuildError, match=r"lacks cublas_v2\.h and curand\.h, which Dragon's headers include"):
        cuda.toolkit_for(dragon, nvcc)
    for header in cuda.DRAGONS_HEADERS:
        (tmp_path / "headers" / header).touch()
    assert cuda.toolkit_for(dragon, nvcc) == toolkit
    monkeypatch.setenv(cuda.ARCHS, "60")  # said before anything is compiled
    with pytest.raises(BuildError, match="60 is no architecture of nvcc 12.4"):
        cuda.toolkit_for(dragon, nvcc)


@pytest.mark.parametrize(
    ("text", "expected"), [(b"libcudart.so.12", True), (b"libcudart.so.11.0", False), (b"", False)]
)
def test_the_runtime_is_dragons_where_it_is_of_the_same_release(make_dragon, nvcc, text, expected):
    """Another release is in a library that nobody has loaded, or has at all: ours then brings its own."""
    dragon = Dragon(make_dragon("dragon", cuda=text + dragon_home.CUDA_SYMBOL), "0.3.0", "abc")
    assert cuda.shares_runtime(dragon, nvcc) == expected


def test_machine_code_for_each_and_ptx_of_the_last():
    assert cuda.code_flags((70, 80)) == (
        "-gencode=arch=compute_70,code=sm_70",
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_80,code=compute_80",
    )


@pytest.mark.parametrize("werror", [False, True])
def test_no_flag_breaks_equal_bits(root, werror):
    library = cuda.cuda_kernels(root, (80, 90), {"DRAGON_OPTIM_WERROR": "1" if werror else "0"})
    assert {unit.source.suffix for unit in library.units} == {".cc", ".cu"}
    for unit in library.units:
        assert {"-fmad=false", "-prec-div=true", "-prec-sqrt=true", "-ftz=false"} <= set(unit.flags)
        assert not any("fast" in flag for flag in unit.flags)
        assert ("-Werror=all-warnings" in unit.flags) == werror
        assert '-DDRAGON_OPTIM_CUDA_ARCHITECTURES="sm_80,sm_90,compute_90"' in unit.flags
    assert library.shared_flags[1:] == ("-Xlinker=-z,nodelete", "-Xlinker=-soname,libdragon_optim_cuda.so")


def test_the_cpus_library_has_none_of_it(root):
    sources = {unit.source for unit in libraries.kernels(root, "x86_64", {}).units}
    assert not sources & set(cuda.cuda_sources(root))


def test_a_copy_without_sources(tmp_path):
    with pytest.raises(BuildError, match="no CUDA sources in kernels/cuda/"):
        cuda.cuda_kernels(tmp_path, (80,), {})


def test_without_nvcc_the_script_says_so_in_a_line(root):
    """With a status of its own: the gate goes on after it."""
    code = "import build_cuda, sys; build_cuda.cuda.find_nvcc = lambda: None; sys.exit(build_cuda.main())"
    run = subprocess.run(
        [sys.executable, "-c", code, "--cuda-only"],
        cwd=str(root / "scripts"),
        stdout=subprocess.PIPE,
        check=False,
    )
    assert run.returncode == 3
    lines = run.stdout.decode().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("no nvcc here: the CUDA kernels are left out")
