"""``make gpu``: everything that only a CUDA machine can show, in stages that report as they end.

    python -m bench.gpu [STAGE ...]

    build       the extension in place, for the local architecture alone
    test        the tests that have a device, on the GPU
    draws       the same keys on the CPU and on the GPU: the same draws up to ties
    fragments   the matrix wrappers of kernels/gpu.h on the GPU and on the interpreter: the same registers
    sanitizer   compute-sanitizer's memcheck and racecheck on every op at small shapes
    bench       every op against its baselines, CUDA-graph replay of a training step; bench/results/DEVICE.json

All stages run by default; those after a failed build are not run, and what is unfinished after 8 minutes has failed.
Nothing is downloaded: python3 needs torch 2.11 or newer, ninja, pytest, pytest-benchmark and pybind11, and nvcc must be
installed. The card's settings are neither read nor changed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STARTED = time.perf_counter()
OUTCOMES = ROOT / "build" / "gpu_stages.json"
LIMIT = 480.0  # seconds for all stages together
SMALL = ["-m", "bench.gpu_checks"]


class Failure(Exception):
    """Why a stage failed, in a sentence."""


def run(command: Sequence[str | Path], seconds: float, **environment: str) -> None:
    """Runs a command from the repository's root; its output is the user's to see."""
    words = [str(word) for word in command]
    seconds = min(seconds, LIMIT - (time.perf_counter() - STARTED))
    if seconds <= 0:
        raise Failure(f"the {LIMIT:.0f} s for all stages were used up before it began")
    try:
        done = subprocess.run(words, cwd=ROOT, env={**os.environ, **environment}, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise Failure(f"{' '.join(words[:4])} did not end within {seconds:.0f} s") from None
    if done.returncode != 0:
        raise Failure(f"{' '.join(words[:4])} ended with status {done.returncode}")


def tool(name: str) -> str:
    """A program of the CUDA toolkit: on the path or in the toolkit's own folder."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    places = [shutil.which(name), *(f"{home}/{folder}/{name}" for folder in ("bin", "compute-sanitizer"))]
    found = next((place for place in places if place and Path(place).exists()), None)
    if found is None:
        raise Failure(f"{name} was found neither on the path nor in {home}; set CUDA_HOME")
    return found


def architecture() -> str:
    import torch

    return "".join(map(str, torch.cuda.get_device_capability()))


def build() -> None:
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    run(command, 300, DVAE_EXT_CUDA="1", DVAE_EXT_CUDA_ARCHS=architecture())


def test() -> None:
    run([sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-k", "cuda"], 240)


def draws() -> None:
    run([sys.executable, *SMALL, "draws"], 60)


def fragments() -> None:
    """Compiles bench/fragments.cu twice and compares what the two programs print."""
    folder = ROOT / "build" / "fragments"
    folder.mkdir(parents=True, exist_ok=True)
    source, include = ROOT / "bench" / "fragments.cu", f"-I{ROOT / 'csrc'}"
    interpreter = sorted((ROOT / "csrc" / "interpreter").glob("*.cpp"))
    gpu_flags = ["-std=c++20", "-O2", "--expt-relaxed-constexpr", "-diag-suppress=20012", f"-arch=sm_{architecture()}"]
    compilers = [
        [tool("nvcc"), *gpu_flags, include, source, "-o", folder / "gpu"],
        [os.environ.get("CXX", "g++"), "-std=c++20", "-O1", include, "-o", folder / "interpreter"],
    ]
    compilers[1] += ["-x", "c++", source, *interpreter, "-lpthread", "-ldl"]
    for command in compilers:
        run(command, 120)
    compare_fragments(*(output_of(folder / name) for name in ("gpu", "interpreter")))


def output_of(program: Path) -> str:
    done = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise Failure(f"{program.name}: {done.stderr.strip()}")
    return done.stdout


def compare_fragments(gpu: str, interpreter: str) -> None:
    """Lines of a wrapper's name and the registers of 32 lanes."""
    wrong = [
        own.split()[0]
        for own, other in zip(interpreter.splitlines(), gpu.splitlines(), strict=True)
        if own.split() != other.split()
    ]
    if wrong:
        raise Failure(f"the GPU's registers differ from the interpreter's: {', '.join(wrong)}")
    print(f"{len(interpreter.splitlines())} wrappers leave the same in every register")


def sanitizer() -> None:
    # Without torch's cache every tensor has its own allocation, whose end memcheck sees.
    for name in ("memcheck", "racecheck"):
        command = [tool("compute-sanitizer"), "--tool", name, "--error-exitcode", "9", sys.executable, *SMALL, "small"]
        run(command, 120, PYTORCH_NO_CUDA_MEMORY_CACHING="1")


def bench() -> None:
    run([sys.executable, *SMALL, "bench"], 240)


STAGES: dict[str, Callable[[], None]] = {
    "build": build,
    "test": test,
    "draws": draws,
    "fragments": fragments,
    "sanitizer": sanitizer,
    "bench": bench,
}


def obstacle() -> str | None:
    """Why this machine cannot run the stages, in a sentence, or None."""
    needed = {"torch": "torch", "pytest": "pytest", "pytest_benchmark": "pytest-benchmark", "pybind11": "pybind11"}
    missing = [shown for name, shown in needed.items() if importlib.util.find_spec(name) is None]
    if importlib.util.find_spec("ninja") is None and shutil.which("ninja") is None:
        missing.append("ninja")
    if missing:
        return f"make gpu needs {', '.join(missing)} for {sys.executable}; make gpu PYTHON=... chooses another Python"
    import torch

    if not torch.cuda.is_available():
        kind = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "has no CUDA"
        return f"make gpu needs a CUDA device, and torch {torch.__version__}, which {kind}, finds none on this machine"
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11):
        return f"make gpu needs torch 2.11 or newer, found {torch.__version__}"
    return None


def run_stages(names: Sequence[str], stages: dict[str, Callable[[], None]]) -> dict[str, str]:
    """Runs stages in order and tells of each as it ends; a failed build ends the run. Returns what became of each."""
    outcomes: dict[str, str] = {}
    for name in names:
        started = time.perf_counter()
        print(f"== {name}", flush=True)
        try:
            stages[name]()
            outcome = "passed"
        except Failure as failure:
            outcome = f"FAILED: {failure}"
        outcomes[name] = f"{outcome} ({time.perf_counter() - started:.0f} s)"
        print(f"== {name}: {outcomes[name]}\n", flush=True)
        if name == "build" and outcome != "passed":
            break
    return outcomes


def main(arguments: Sequence[str]) -> int:
    unknown = [name for name in arguments if name not in STAGES]
    if unknown:
        print(f"make gpu: unknown stage {unknown[0]!r}; known: {', '.join(STAGES)}", file=sys.stderr)
        return 2
    if sentence := obstacle():
        print(sentence, file=sys.stderr)
        return 2
    os.chdir(ROOT)
    outcomes = run_stages(arguments or list(STAGES), STAGES)
    OUTCOMES.parent.mkdir(exist_ok=True)
    earlier = json.loads(OUTCOMES.read_text()) if OUTCOMES.exists() else {}
    OUTCOMES.write_text(json.dumps({**earlier, **outcomes}, indent=1) + "\n")
    if "bench" in outcomes:
        subprocess.run([sys.executable, *SMALL, "stages", str(OUTCOMES)], cwd=ROOT, check=False)
    for name, outcome in outcomes.items():
        print(f"{name:<10} {outcome}")
    return int(any("FAILED" in outcome for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
