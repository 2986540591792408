"""``python -m dvae_ext.info``: versions, backends, vector width, CUDA architectures."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import torch

from dvae_ext import __version__, _native


def cuda_architectures() -> str:
    """The GPU architectures in the CUDA library, read from the library itself."""
    path = Path(_native.__file__).parent / "_cuda.so"
    if not path.exists():
        return "none: the CUDA library was not built"
    tool = shutil.which("cuobjdump") or "/usr/local/cuda/bin/cuobjdump"
    try:
        listing = subprocess.run([tool, "--list-elf", str(path)], capture_output=True, text=True, check=True).stdout
        found = sorted(set(re.findall(r"sm_\d+a?", listing)))
    except (OSError, subprocess.CalledProcessError):
        found = sorted({match.decode() for match in re.findall(rb"sm_\d{2,3}a?", path.read_bytes())})
    return " ".join(found) or "unknown"


def collect() -> dict[str, str]:
    """Everything a bug report needs, by name."""
    facts = {
        "dvae_ext": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }
    try:
        from dvae_ext import _kernels

        facts["cpu kernels"] = f"{_kernels.cpu_isa()}, {_kernels.vector_bits()} bits a vector ({_kernels.compiler()})"
    except ImportError as error:
        facts["cpu kernels"] = f"loaded; the NumPy module is not ({error})"
    facts["interpreter"] = "built (development build)" if _native.interpreter_built() else "not built"
    facts["cuda kernels"] = "loaded" if _native.cuda_error is None else f"not loaded: {_native.cuda_error}"
    facts["cuda architectures"] = cuda_architectures()
    facts["cuda devices"] = (
        ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())) or "none"
        if torch.cuda.is_available()
        else "none"
    )
    return facts


def main() -> None:
    facts = collect()
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")


if __name__ == "__main__":
    main()
