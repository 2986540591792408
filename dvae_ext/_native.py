"""Loads the compiled libraries. A library that cannot load leaves the other working and a sentence to read."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

_FOLDER = Path(__file__).parent


def _load(name: str) -> str | None:
    """Loads one library; returns why it could not, or None."""
    path = _FOLDER / name
    if not path.exists():
        return f"{name} was not built"
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        return f"{name} could not be loaded: {error}"
    return None


cpu_error: str | None = _load("_cpu.so")
if cpu_error is not None:
    advice = "Install with `pip install --no-build-isolation .`"
    if (_FOLDER.parent / "setup.py").exists():
        advice = (
            f"{_FOLDER.parent} is the source folder: build it with `python setup.py build_ext --inplace`, or change to "
            "another folder to use an installed dvae_ext"
        )
    raise ImportError(f"dvae_ext's CPU library is missing: {cpu_error}. {advice}.")
cuda_error: str | None = _load("_cuda.so")


def explain_missing_cuda() -> str:
    """One sentence for whoever calls an op with CUDA tensors and has no CUDA library."""
    reason = cuda_error or "it is loaded"
    return (
        f"dvae_ext has no CUDA kernels here ({reason}). Rebuild on a machine with nvcc and a CUDA build of torch: "
        "`DVAE_EXT_CUDA=1 pip install --no-build-isolation .`"
    )


def interpreter_built() -> bool:
    """Whether this build carries the interpreted CUDA kernels (in-place builds only, never a wheel)."""
    return hasattr(ctypes.CDLL(str(_FOLDER / "_cpu.so")), "dvae_ext_interpreter_set_enabled")


def set_interpreter(enabled: bool) -> None:
    """Routes CPU tensors through the interpreted CUDA kernels, or back."""
    library = ctypes.CDLL(str(_FOLDER / "_cpu.so"))
    if not hasattr(library, "dvae_ext_interpreter_set_enabled"):
        raise RuntimeError(
            "this build has no interpreter: it exists only in an in-place build (`python setup.py build_ext --inplace`)"
        )
    library.dvae_ext_interpreter_set_enabled(ctypes.c_int(enabled))
