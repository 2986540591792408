"""Removes each barrier of the CUDA kernels, one at a time, and checks that the kernels' tests notice.

    python tools/mutate_barriers.py                    every kernel
    python tools/mutate_barriers.py rbm_gibbs          the kernels named
    python tools/mutate_barriers.py --changed main     the kernels that differ from a git revision

A barrier is __syncthreads and its voting forms, __syncwarp, wait_copies and sync_grid, in csrc/kernels/cuda. Without
it the kernel is compiled for the interpreter and run on the cases of csrc/tests/kernels under every schedule. A mutant
that no case notices is reported and fails the run: either the barrier is not needed, or a case is missing.

A barrier that may go says so on its line: "// not needed by the tests: <why>".
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
KERNELS = CSRC / "kernels" / "cuda"
BUILD = ROOT / "build" / "mutants"
EXCUSE = "not needed by the tests:"
# The call up to its opening parenthesis, and whether its argument is the value of what is left.
BARRIER = re.compile(
    r"(?:\bgpu::)?\b(__syncthreads_count|__syncthreads_or|__syncthreads_and|__syncthreads|__syncwarp|"
    r"wait_copies\s*<[^<>]*>|sync_grid)\s*\("
)
FLAGS = ["-std=c++20", "-g", "-O1", "-fvisibility=hidden", "-Wno-unknown-pragmas", f"-I{CSRC}", f"-I{CSRC / 'tests'}"]
WATCHED = ["-fsanitize=thread,alignment,bounds,null"]
TIMEOUT = 120  # seconds for one mutant's tests


def find_barriers(text: str) -> list[tuple[int, int, str]]:
    """Start, end and replacement of every barrier call that is no comment."""
    found = []
    for match in BARRIER.finditer(text):
        line_start = text.rfind("\n", 0, match.start()) + 1
        line = text[line_start : text.find("\n", match.start())]
        if "//" in text[line_start : match.start()] or EXCUSE in line or line.lstrip().startswith("#define"):
            continue
        depth, end = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        argument = text[match.end() : end - 1].strip()
        votes = match.group(1).startswith("__syncthreads_")
        found.append((match.start(), end, f"({argument})" if votes else "(void)0"))
    return found


def changed_sources(revision: str) -> set[Path]:
    command = ["git", "-C", str(ROOT), "diff", "--name-only", revision, "--", "csrc"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return {ROOT / name for name in names}


def included_headers(source: Path) -> set[Path]:
    """The headers of csrc/kernels/cuda that the file includes, those of the nvcc build apart."""
    headers: set[Path] = set()
    waiting = [source]
    while waiting:
        for name in re.findall(r'#include "(kernels/cuda/[^"]+)"', waiting.pop().read_text()):
            header = CSRC / name
            if header not in headers and header.name != "gpu_cuda.h":
                headers.add(header)
                waiting.append(header)
    return headers


def op_headers(source: Path) -> set[str]:
    """The ops whose headers the file includes."""
    names = set(re.findall(r'#include "kernels/(\w+)\.h"', source.read_text()))
    return {name for name in names if (CSRC / "kernels" / "cpu" / f"{name}.cpp").exists()}


def compile_one(source: Path, target: Path, flags: list[str]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [os.environ.get("CXX", "g++"), *FLAGS, *flags, "-c", str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{source} does not compile:\n{done.stderr}")


class Driver:
    """The cases of one kernel file: everything but the kernels is compiled once."""

    def __init__(self, kernel: str) -> None:
        self.kernel = kernel
        own = op_headers(KERNELS / f"{kernel}.cu")
        cases = sorted((CSRC / "tests" / "kernels").glob("test_*.cpp"))
        self.cases = [path for path in cases if own & op_headers(path)]
        self.ops = {name for path in self.cases for name in op_headers(path)}
        # Other kernel files that the same cases call.
        self.companions = {
            path.stem for path in KERNELS.glob("*.cu") if path.stem != kernel and self.ops & op_headers(path)
        }
        self.fixed: list[Path] = []

    def prepare(self, pool: ThreadPoolExecutor) -> None:
        jobs: list[tuple[Path, list[str]]] = [(path, ["-O2"]) for path in sorted((CSRC / "interpreter").glob("*.cpp"))]
        jobs += [(CSRC / "tests" / "interpreter" / "main.cpp", [])]
        jobs += [(path, []) for path in self.cases]
        jobs += [(CSRC / "kernels" / "cpu" / f"{name}.cpp", ["-DDVAE_EXT_ISA=scalar"]) for name in sorted(self.ops)]
        jobs += [(KERNELS / f"{name}.cu", ["-x", "c++", *WATCHED]) for name in sorted(self.companions)]
        newest = max(path.stat().st_mtime for path in CSRC.rglob("*.h"))
        waiting = []
        for source, flags in jobs:
            target = BUILD / "fixed" / source.relative_to(CSRC).with_suffix(source.suffix + ".o")
            self.fixed.append(target)
            if not target.exists() or target.stat().st_mtime < max(newest, source.stat().st_mtime):
                waiting.append(pool.submit(compile_one, source, target, flags))
        for job in waiting:
            job.result()

    def run(self, source: Path, folder: Path, extra: list[str]) -> str | None:
        """What the tests say of the kernel in `source`; None when they pass."""
        compile_one(source, folder / "kernel.o", ["-x", "c++", *WATCHED, *extra])
        program = folder / "driver"
        objects = [str(path) for path in [*self.fixed, folder / "kernel.o"]]
        subprocess.run([os.environ.get("CXX", "g++"), *objects, "-o", str(program)], check=True)
        try:
            done = subprocess.run([str(program)], capture_output=True, text=True, timeout=TIMEOUT, check=False)
        except subprocess.TimeoutExpired:
            return f"no end within {TIMEOUT} s"
        program.unlink()
        if done.returncode == 0:
            return None
        failures = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
        return failures[0] if failures else f"exit status {done.returncode}"


def mutate(drivers: list[Driver], mutated: Path, number: int, span: tuple[int, int, str]) -> bool:
    """Whether the tests of any of the kernels notice the mutant."""
    text = mutated.read_text()
    start, end, replacement = span
    line = text.count("\n", 0, start) + 1
    verdict = None
    for driver in drivers:
        kernel_source = KERNELS / f"{driver.kernel}.cu"
        folder = BUILD / driver.kernel / f"{mutated.stem}_{number}"
        copy = folder / mutated.relative_to(CSRC)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text[:start] + replacement + text[end:])
        # The mutant's folder comes first: a mutated header takes its original's place.
        source = copy if mutated == kernel_source else kernel_source
        verdict = driver.run(source, folder, [] if mutated == kernel_source else ["-iquote", str(folder)])
        if verdict is not None:
            break
    name = f"{mutated.relative_to(ROOT)}:{line}: {text[start:end]}"
    print(f"caught {name}\n    {verdict[:400]}" if verdict else f"NOT CAUGHT {name}", flush=True)
    return verdict is not None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernels", nargs="*", help="names of files in csrc/kernels/cuda, without .cu; default: all")
    parser.add_argument("--changed", metavar="REVISION", help="only the kernels that differ from this git revision")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()

    sources = sorted(KERNELS.glob("*.cu"))
    if arguments.kernels:
        known = {path.stem: path for path in sources}
        for name in arguments.kernels:
            if name not in known:
                sys.exit(f"no kernel file {name}.cu; there are {', '.join(known)}")
        sources = [known[name] for name in arguments.kernels]
    if arguments.changed:
        changed = changed_sources(arguments.changed)
        sources = [path for path in sources if {path, *included_headers(path)} & changed]

    # A header's barrier is needed when one of the kernels that include it needs it.
    users: dict[Path, list[Path]] = {}
    for source in sources:
        for path in {source, *included_headers(source)}:
            if find_barriers(path.read_text()):
                users.setdefault(path, []).append(source)
    drivers: dict[Path, Driver] = {}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for source in sorted({source for group in users.values() for source in group}):
            driver = drivers[source] = Driver(source.stem)
            if not driver.cases:
                sys.exit(f"csrc/tests/kernels has no case for {source.stem}.cu, which has barriers")
            driver.prepare(pool)
            unchanged = driver.run(source, BUILD / source.stem / "unchanged", [])
            if unchanged is not None:
                sys.exit(f"{source.stem}.cu fails its cases before any change: {unchanged}")
        jobs = [
            pool.submit(mutate, [drivers[source] for source in users[path]], path, number, span)
            for path in sorted(users)
            for number, span in enumerate(find_barriers(path.read_text()))
        ]
        caught = sum(job.result() for job in jobs)
    print(f"{caught} of {len(jobs)} missing barriers were caught")
    return 0 if caught == len(jobs) else 1


if __name__ == "__main__":
    sys.exit(main())
