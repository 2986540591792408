"""Fixtures that every test shares."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from pathlib import Path

# Before torch loads: threads that spin while they wait starve each other where cores are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch

from dvae_ext import _native
from python_tests.optional import missing

SHARED_DATA = Path(os.environ.get("DVAE_EXT_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


class Module(pytest.Module):
    """A file of tests; one that cannot be imported without an optional package is skipped."""

    def collect(self):
        try:
            return super().collect()
        except self.CollectError as error:
            if sentence := missing(error):
                pytest.skip(sentence, allow_module_level=True)
            raise


def pytest_pycollect_makemodule(module_path, parent):
    return Module.from_parent(parent, path=module_path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    return (yield from _skip_without_packages())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    return (yield from _skip_without_packages())


def _skip_without_packages():
    try:
        return (yield)
    except ImportError as error:
        if sentence := missing(error):
            pytest.skip(sentence)
        raise


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Chooses the backends of `device`. A GPU is for tests that take it: the others make CPU tensors of their own."""
    if "device" not in metafunc.fixturenames:
        return
    backends = ["cpu", "interpreter", "cuda"]
    if "device" not in inspect.signature(metafunc.function).parameters:
        backends.remove("cuda")
    if mark := metafunc.definition.get_closest_marker("not_interpreted"):
        assert mark.args, f"{metafunc.definition.nodeid}: the mark not_interpreted lacks its reason"
        backends.remove("interpreter")
    metafunc.parametrize("device", backends, indirect=True)


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Draws without a generator of their own depend on no test that ran before, in whichever process."""
    torch.manual_seed(0)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Where an op runs: CPU kernels, the CUDA kernels interpreted on CPU tensors, a GPU."""
    backend = request.param
    if backend == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("this machine has no CUDA device")
        if _native.cuda_error is not None:
            pytest.skip(_native.cuda_error)
        yield torch.device("cuda")
        return
    if backend == "interpreter":
        if not _native.interpreter_built():
            pytest.skip("the interpreter is built in place only: python setup.py build_ext --inplace")
        _native.set_interpreter(True)
        yield torch.device("cpu")
        _native.set_interpreter(False)
        return
    yield torch.device("cpu")


@pytest.fixture
def interpreted(request: pytest.FixtureRequest, device: torch.device) -> bool:
    """Whether the fixture `device` is the interpreter, which is slow: a test of many draws makes fewer there."""
    return request.node.callspec.params["device"] == "interpreter"


@pytest.fixture
def shared_data() -> Path:
    """The folder with the real data sets."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no data sets at {SHARED_DATA}; set DVAE_EXT_TEST_DATA")
    return SHARED_DATA
