"""Removes each barrier of the CUDA kernels, one at a time, and checks that the kernels' tests notice.

    python tools/mutate_barriers.py                    every kernel
    python tools/mutate_barriers.py rbm_gibbs          the kernel files named, and the headers they include

A barrier is __syncthreads and its voting forms, __syncwarp, wait_copies, sync_grid and sync_cluster, in
csrc/kernels/cuda. The interpreter lets threads pass the one that is removed, so nothing is compiled for a mutant. Each
runs the cases of csrc/tests/kernels that come past it, under every schedule, until one fails. A mutant that no case
notices fails the run: either the barrier is not needed, or a case is missing.

The kernels are those of the in-place build (`make build`).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from setup import NinjaFile, build_jobs, compiler_command, run_ninja  # noqa: E402

CSRC = ROOT / "csrc"
KERNELS = CSRC / "kernels" / "cuda"
BUILT = ROOT / "build" / "ninja"
FOLDER = ROOT / "build" / "mutants"
BARRIER = re.compile(
    r"\b(__syncthreads|__syncthreads_count|__syncthreads_or|__syncthreads_and|__syncwarp|"
    r"wait_copies\s*<[^<>]*>|sync_grid|sync_cluster)\s*\("
)
FLAGS = ["-std=c++20", "-g1", "-O1", "-fvisibility=hidden", "-Wno-unknown-pragmas", f"-I{CSRC}"]
FLAGS += [f"-I{CSRC / 'tests'}"]
TIMEOUT = 300  # seconds for one mutant's tests; a launch that spins ends after 5


def find_barriers(path: Path) -> list[int]:
    """The lines that call a barrier."""
    code = [line.split("//")[0] for line in path.read_text().splitlines()]
    for number, line in enumerate(code, 1):
        if len(BARRIER.findall(line)) > 1:
            sys.exit(f"{path.relative_to(ROOT)}:{number} has two barriers; each needs a line of its own")
    return [number for number, line in enumerate(code, 1) if BARRIER.search(line)]


def with_headers(sources: list[Path]) -> set[Path]:
    """The kernel files and those of csrc/kernels/cuda that they include, the nvcc half of gpu.h apart."""
    found, waiting = set(sources), list(sources)
    while waiting:
        for name in re.findall(r'#include "(kernels/cuda/[^"]+)"', waiting.pop().read_text()):
            header = CSRC / name
            if header not in found and header.name != "gpu_cuda.h":
                found.add(header)
                waiting.append(header)
    return found


def build(jobs: int) -> Path:
    """The program that runs the cases without one barrier, linked from the objects of the in-place build."""
    if not (BUILT / "interpreter").is_dir():
        sys.exit("there is no in-place build with the interpreter: run `make build` first")
    folders = [BUILT / "interpreter", BUILT / "scalar"]
    sources = [*(CSRC / "interpreter").glob("*.cpp"), *KERNELS.glob("*.cu")]
    objects = [folders[0] / path.relative_to(ROOT).with_suffix(path.suffix + ".o") for path in sources]
    references = (CSRC / "kernels" / "cpu").glob("*.cpp")
    objects += [folders[1] / path.relative_to(ROOT).with_suffix(path.suffix + ".o") for path in references]
    run_ninja(BUILT, jobs, *sorted(objects))

    compiler = compiler_command()
    ninja_file = NinjaFile(FOLDER)
    own = [CSRC / "tests" / "interpreter" / "remove_barriers.cpp", *(CSRC / "tests" / "kernels").glob("test_*.cpp")]
    objects += [ninja_file.compile(compiler, path, "tests", FLAGS) for path in sorted(own)]
    program = FOLDER / "remove_barriers"
    ninja_file.link(compiler, program, sorted(objects), [])
    ninja_file.run(jobs)
    return program


def mutate(program: Path, barrier: str, tests: list[str]) -> bool:
    """Whether one of the tests notices that the barrier is gone."""
    shown = Path(barrier).relative_to(ROOT)
    if not tests:
        print(f"NOT CAUGHT {shown}: no case comes past it", flush=True)
        return False
    try:
        done = subprocess.run(
            [str(program), barrier, *tests], capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
        verdict = done.stdout.strip() or f"exit status {done.returncode}"
    except subprocess.TimeoutExpired:
        done, verdict = None, f"no end within {TIMEOUT} s"
    caught = done is None or done.returncode != 0
    print(f"caught {shown}\n    {verdict[:400]}" if caught else f"NOT CAUGHT {shown}", flush=True)
    return caught


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernels", nargs="*", help="names of files in csrc/kernels/cuda, without .cu; default: all")
    parser.add_argument("--jobs", type=int, default=build_jobs())
    arguments = parser.parse_args()

    known = {path.stem: path for path in sorted(KERNELS.glob("*.cu"))}
    for name in arguments.kernels:
        if name not in known:
            sys.exit(f"no kernel file {name}.cu; there are {', '.join(known)}")
    files = with_headers([known[name] for name in arguments.kernels or known])
    barriers = [f"{path}:{line}" for path in sorted(files) for line in find_barriers(path)]

    start = time.monotonic()
    program = build(arguments.jobs)
    built = time.monotonic()
    unchanged = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    if unchanged.returncode != 0:
        sys.exit(f"the cases fail before any change: {unchanged.stdout}{unchanged.stderr}")
    tests: dict[str, list[str]] = {barrier: [] for barrier in barriers}
    for line in unchanged.stdout.splitlines():
        barrier, test = line.rsplit(" ", 1)
        if barrier in tests:
            tests[barrier].append(test)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        caught = sum(pool.map(lambda barrier: mutate(program, barrier, tests[barrier]), barriers))
    end = time.monotonic()
    print(
        f"{caught} of {len(barriers)} missing barriers were caught "
        f"({built - start:.0f} s to build, {end - built:.0f} s to run)"
    )
    return 0 if caught == len(barriers) else 1


if __name__ == "__main__":
    sys.exit(main())
