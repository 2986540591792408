"""The build: what its environment variables mean, paths with spaces, and one sentence where it cannot be done."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
import setup  # noqa: E402

KNOWN = {"80", "86", "90", "100", "120"}


@pytest.fixture
def toolkit(monkeypatch):
    """An nvcc that knows KNOWN, and no GPU."""
    for name in ("DVAE_EXT_CUDA_ARCHS", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(setup, "nvcc_archs", lambda nvcc: set(KNOWN))
    monkeypatch.setattr(setup, "local_archs", set)
    return monkeypatch


@pytest.mark.parametrize(
    ("text", "code", "ptx"),
    [
        ("80", ["80"], ["80"]),
        ("8.0", ["80"], ["80"]),
        ("80;", ["80"], ["80"]),
        ("90;80", ["80", "90"], ["90"]),
        ("100;90,80", ["80", "90", "100"], ["100"]),
        ("8.0 9.0+PTX", ["80", "90"], ["90"]),
        ("8.0+PTX;9.0", ["80", "90"], ["80", "90"]),
        (" 12.0\t8.0 8.0 ", ["80", "120"], ["120"]),
        ("9.0a", ["90a"], ["90"]),
    ],
)
@pytest.mark.parametrize("name", ["DVAE_EXT_CUDA_ARCHS", "TORCH_CUDA_ARCH_LIST"])
def test_architectures_are_read_in_either_syntax(toolkit, name, text, code, ptx):
    toolkit.setenv(name, text)
    flags = setup.gencode(setup.cuda_archs("nvcc"))
    assert flags == [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in code] + [
        f"-gencode=arch=compute_{arch},code=compute_{arch}" for arch in ptx
    ]


@pytest.mark.parametrize("text", ["8", "8.05", "sm_80", "7.5", "130", "80;ninety", ";", "80+ptx"])
def test_a_wrong_architecture_is_named_with_the_known_ones(toolkit, text):
    toolkit.setenv("DVAE_EXT_CUDA_ARCHS", text)
    with pytest.raises(SystemExit, match=r"DVAE_EXT_CUDA_ARCHS is .*expected some of 80 86 90 100 120$"):
        setup.cuda_archs("nvcc")


def test_torch_s_list_is_for_all_packages_and_comes_second(toolkit):
    toolkit.setenv("TORCH_CUDA_ARCH_LIST", "7.0 7.5 8.0 9.0+PTX")
    assert list(setup.cuda_archs("nvcc")) == ["80", "90"]
    toolkit.setenv("DVAE_EXT_CUDA_ARCHS", "86")
    assert list(setup.cuda_archs("nvcc")) == ["86"]
    toolkit.delenv("DVAE_EXT_CUDA_ARCHS")
    toolkit.setenv("TORCH_CUDA_ARCH_LIST", "Ampere")
    with pytest.raises(SystemExit, match="TORCH_CUDA_ARCH_LIST is 'Ampere'"):
        setup.cuda_archs("nvcc")
    toolkit.setenv("TORCH_CUDA_ARCH_LIST", "7.5")
    with pytest.raises(SystemExit, match=r"TORCH_CUDA_ARCH_LIST is '7.5', expected some of"):
        setup.cuda_archs("nvcc")


def test_local_gpus_else_all_that_nvcc_knows(toolkit):
    assert list(setup.cuda_archs("nvcc")) == ["80", "86", "90", "100", "120"]  # not the 89 of newer toolkits
    toolkit.setattr(setup, "local_archs", lambda: {"90", "100"})
    assert setup.cuda_archs("nvcc") == {"90": False, "100": True}
    toolkit.setenv("TORCH_CUDA_ARCH_LIST", "native")
    assert setup.cuda_archs("nvcc") == {"90": False, "100": True}
    toolkit.setattr(setup, "local_archs", lambda: {"70"})
    assert list(setup.cuda_archs("nvcc"))[-1] == "120"


def test_paths_and_flags_with_spaces_are_compiled_and_found_unchanged(tmp_path, monkeypatch, capfd):
    root = tmp_path / "with space $HOME's"
    (root / "in clude").mkdir(parents=True)
    (root / "in clude" / "value.h").write_text("#pragma once\ninline const char* value() { return TEXT; }\n")
    (root / "main.cpp").write_text('#include <cstdio>\n#include "value.h"\nint main() { std::puts(value()); }\n')
    monkeypatch.setattr(setup, "ROOT", root)
    flags = ['-DTEXT="a $b"', f"-I{root / 'in clude'}"]

    def build():
        file = setup.NinjaFile(root / "build")
        objects = file.compile_all(
            setup.compiler_command(), [root / "main.cpp"], root / "in clude" / "value.h", "tag", flags
        )
        file.link(setup.compiler_command(), root / "out put" / "program", objects, [])
        file.run(1)
        return capfd.readouterr().out

    assert "no work to do" not in build()
    assert subprocess.check_output([root / "out put" / "program"], text=True) == "a $b\n"
    assert "no work to do" in build()
    (root / "in clude" / "value.h").write_text('#pragma once\ninline const char* value() { return TEXT "!"; }\n')
    build()
    assert subprocess.check_output([root / "out put" / "program"], text=True) == "a $b!\n"


def test_the_compiler_is_a_path_or_a_command_line(tmp_path, monkeypatch):
    path = tmp_path / "my compiler"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))
    assert setup.compiler_command() == [str(path)]
    monkeypatch.setenv("CXX", "sh -c 'a b'")
    assert setup.compiler_command() == ["sh", "-c", "a b"]
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SystemExit, match="the C\\+\\+ compiler 'no-such-compiler' was not found"):
        setup.compiler_command()


def test_as_many_compilers_as_processors_may_be_used():
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); import setup; print(setup.build_jobs())"
    environment = {name: value for name, value in os.environ.items() if name != "MAX_JOBS"}
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=environment, text=True) == "1\n"


@pytest.mark.parametrize("jobs", ["0", "-1", "two", "1.5"])
def test_max_jobs_is_a_whole_number(monkeypatch, jobs):
    monkeypatch.setenv("MAX_JOBS", "3")
    assert setup.build_jobs() == 3
    monkeypatch.setenv("MAX_JOBS", jobs)
    with pytest.raises(SystemExit, match=f"MAX_JOBS is '{jobs}', expected a whole number from 1"):
        setup.build_jobs()


def test_the_interpreter_is_wanted_in_place_or_by_name(monkeypatch):
    monkeypatch.delenv("DVAE_EXT_INTERPRETER", raising=False)
    assert setup.wants_interpreter(inplace=True)
    assert not setup.wants_interpreter(inplace=False)
    monkeypatch.setenv("DVAE_EXT_INTERPRETER", "1")
    assert setup.wants_interpreter(inplace=False)
    monkeypatch.setenv("DVAE_EXT_INTERPRETER", "yes")
    with pytest.raises(SystemExit, match="DVAE_EXT_INTERPRETER is 'yes', expected 0 or 1"):
        setup.wants_interpreter(inplace=False)


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        ("sys.platform = 'darwin'", "dvae_ext builds on Linux with g++; macOS is not supported"),
        ("sys.platform = 'win32'", "dvae_ext builds on Linux with g++; Windows is not supported"),
        ("sys.modules['torch'] = None", f"dvae_ext cannot be built: {sys.executable} lacks torch>=2.11"),
        ("sys.modules['pybind11'] = None", f"dvae_ext cannot be built: {sys.executable} lacks pybind11>=2.12"),
        ("sys.modules['setuptools'] = None", f"dvae_ext is built with setuptools, which {sys.executable} lacks"),
    ],
)
def test_what_cannot_be_built_is_told_in_one_sentence(trouble, sentence):
    code = f"import runpy, setuptools, sys; {trouble}; sys.argv = ['setup.py', '--quiet', 'build_ext', '--inplace']; "
    code += "runpy.run_path('setup.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1


def test_an_old_torch_is_named(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.4.1+cu124")
    with pytest.raises(SystemExit, match=r"torch is 2\.4\.1\+cu124, expected 2\.11 or newer"):
        setup.check_packages()
