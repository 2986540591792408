"""The interpreter from Python: its switches, its schedules, and its own C++ tests."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dvae_ext import _native, ops

ROOT = Path(__file__).resolve().parents[2]
SCHEDULES = ("forward", "reverse", "random:1", "random:2")

pytestmark = pytest.mark.skipif(
    not _native.interpreter_built(),
    reason="the interpreter is built in place only: python setup.py build_ext --inplace",
)


def library() -> ctypes.CDLL:
    return ctypes.CDLL(str(Path(_native.__file__).parent / "_cpu.so"))


@pytest.fixture
def interpreter() -> Iterator[None]:
    _native.set_interpreter(True)
    yield
    _native.set_interpreter(False)
    library().dvae_ext_interpreter_remove_barriers(None, 0)
    assert library().dvae_ext_interpreter_set_schedule(b"forward") == 0


@pytest.mark.parametrize(("value", "expected"), [("1", 1), ("0", 0), ("", 0), ("yes", 0)])
def test_the_environment_switches_it_on(value: str, expected: int) -> None:
    code = (
        "import ctypes; from pathlib import Path; from dvae_ext import _native; "
        "lib = ctypes.CDLL(str(Path(_native.__file__).parent / '_cpu.so')); "
        "print(lib.dvae_ext_interpreter_enabled())"
    )
    environment = {**os.environ, "DVAE_EXT_INTERPRET": value}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(expected)]


def test_a_schedule_has_to_have_a_known_name(interpreter: None) -> None:
    assert library().dvae_ext_interpreter_set_schedule(b"sideways") == 1
    assert library().dvae_ext_interpreter_set_schedule(b"random:12") == 0


def icdf() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    rho, logits = torch.rand(1001, generator=generator), torch.randn(1001, generator=generator)
    return ops.overlap_exponential_icdf(rho, logits, 5.0)


def gibbs() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(21, 37, generator=generator)
    visible, hidden = torch.zeros(11, 21), torch.zeros(11, 37)
    ops.rbm_gibbs_(visible, hidden, weight, torch.zeros(21), torch.zeros(37), torch.tensor([3, 5]), 3)
    return torch.cat([visible, hidden], 1)


def log_z() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(9, 12, generator=generator, dtype=torch.float64).requires_grad_()
    biases = [torch.randn(n, generator=generator, dtype=torch.float64) for n in (9, 12)]
    value = ops.rbm_log_z_exact(weight, *biases)
    (gradient,) = torch.autograd.grad(value, weight)
    return torch.cat([value.detach().reshape(1), gradient.flatten()])


@pytest.mark.parametrize("run", [icdf, gibbs, log_z])
def test_no_schedule_changes_a_result(interpreter: None, run) -> None:
    results = []
    for schedule in SCHEDULES:
        assert library().dvae_ext_interpreter_set_schedule(schedule.encode()) == 0
        results.append(run())
    assert all(torch.equal(result, results[0]) for result in results)
    _native.set_interpreter(False)
    torch.testing.assert_close(results[0], run(), rtol=1e-4, atol=1e-6)


def test_a_fault_of_a_kernel_is_an_error_that_names_its_line(interpreter: None) -> None:
    expected = gibbs()
    source = ROOT / "csrc" / "kernels" / "cuda" / "rbm_gibbs.cu"
    lines = source.read_text().splitlines()
    kernel = next(k for k, line in enumerate(lines) if "rbm_gibbs_resident_kernel(" in line)
    barrier = next(k for k in range(kernel, len(lines)) if "__syncthreads();" in lines[k])
    library().dvae_ext_interpreter_remove_barriers(b"kernels/cuda/rbm_gibbs.cu", barrier + 1)
    where = r"block \(\d+, 0, 0\), thread \(\d+, 0, 0\), " + re.escape(str(source)) + r":\d+: "
    what = r"(read of shared memory that nothing wrote|race on dynamic shared memory)"
    with pytest.raises(RuntimeError, match=rf"interpreted kernel rbm_gibbs_resident_kernel<.*>, {where}{what}"):
        gibbs()
    # The process lives on, and neither this op nor another is the worse for it.
    library().dvae_ext_interpreter_remove_barriers(None, 0)
    assert torch.equal(gibbs(), expected)
    assert torch.isfinite(log_z()).all()


def test_no_name_of_cuda_is_exported() -> None:
    """A CUDA runtime in the same process would take such a name for its own, or lend us its."""
    command = ["nm", "--dynamic", str(Path(_native.__file__).parent / "_cpu.so")]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "dvae_ext_interpreter_set_enabled" in names
    cuda = re.compile(r"_*(cuda|cu[A-Z]|nv|syncthreads|syncwarp|shfl|atomic|tsan|ubsan|threadIdx|blockIdx)")
    assert not [name for name in names if cuda.match(name)]


def test_its_own_tests() -> None:
    """Every intrinsic, and every kind of fault: csrc/tests/interpreter, in the build folder of `make cpp-test`."""
    if shutil.which("cmake") is None:
        pytest.skip("this machine has no cmake")
    build = ROOT / "build" / "cmake"
    commands = [
        ["cmake", "-S", str(ROOT), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release"],
        ["cmake", "--build", str(build), "-j", "2", "--target", "interpreter_tests"],
        ["ctest", "--test-dir", str(build), "-R", "^interpreter$", "--no-tests=error", "--output-on-failure"],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
