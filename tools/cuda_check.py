"""Compiles every CUDA kernel for sm_80, sm_90 and sm_100, prints what ptxas says of each, and checks the CUDA bindings.

A spill fails the check unless the source says beside the kernel why it is there (a comment with the word "spills").
The wrappers of kernels/gpu.h are compiled too, by csrc/tests/gpu; clusters, which sm_80 lacks, must not compile for it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from setup import TORCH_TARGET_VERSION, build_jobs, find_nvcc  # noqa: E402

ARCHS = ("80", "90", "100")
WRAPPERS = ROOT / "csrc" / "tests" / "gpu" / "wrappers.cu"
ENTRY = re.compile(r"Compiling entry function '(\S+)' for 'sm_(\d+)a?'")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")


def run_nvcc(nvcc: str, source: Path, arch: str, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    target = folder / f"{source.stem}_{arch}.o"
    # The code of the host is the same for all: compiled once.
    output = "-c" if arch == ARCHS[0] else "-cubin"
    command = [nvcc, "-std=c++20", "-O3", "--expt-relaxed-constexpr", "-diag-suppress=20012", "-Xptxas=-v", *flags]
    command += [f"-gencode=arch=compute_{arch},code=sm_{arch}", "-Xcompiler=-fPIC"]
    command += [f"-I{ROOT / 'csrc'}", output, str(source), "-o", str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def compile_one(nvcc: str, source: Path, arch: str, folder: Path) -> tuple[Path, str, str]:
    flags = ["-DCLUSTERS"] if source == WRAPPERS and int(arch) >= 90 else []
    done = run_nvcc(nvcc, source, arch, folder, *flags)
    if done.returncode != 0:
        sys.exit(f"{source.relative_to(ROOT)} does not compile for sm_{arch}:\n{done.stdout}{done.stderr}")
    return source, arch, done.stdout + done.stderr


def check_binding(nvcc: str, source: Path, torch_include: Path) -> None:
    command = [nvcc, "-std=c++20", "-Xcompiler=-fsyntax-only", "-DDVAE_EXT_BACKEND_CUDA", "-DUSE_CUDA"]
    command += [f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}", f"-I{ROOT / 'csrc'}", f"-isystem={torch_include}"]
    done = subprocess.run([*command, "-c", str(source), "-o", os.devnull], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{source.relative_to(ROOT)} does not compile for CUDA:\n{done.stderr}")


def main() -> None:
    import torch

    nvcc = find_nvcc()
    if nvcc is None:
        sys.exit("nvcc was not found: install the CUDA toolkit or set CUDA_HOME to check the CUDA kernels")
    sources = [*sorted((ROOT / "csrc" / "kernels" / "cuda").glob("*.cu")), WRAPPERS]
    unexplained = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(build_jobs()) as pool:
        jobs = [pool.submit(compile_one, nvcc, source, arch, Path(folder)) for source in sources for arch in ARCHS]
        print(f"{'source':<26} {'arch':>6} {'kernels':>8} {'registers':>10} {'spilling':>9}")
        for job in jobs:
            source, arch, log = job.result()
            registers, spilling, name = [], [], ""
            for line in log.splitlines():
                if found := ENTRY.search(line):
                    name = found.group(1)
                elif (found := SPILLS.search(line)) and (int(found.group(2)) or int(found.group(3))):
                    spilling.append(f"{name}: {found.group(2)} bytes stored, {found.group(3)} loaded")
                elif found := REGISTERS.search(line):
                    registers.append(int(found.group(1)))
            span = f"{min(registers)}-{max(registers)}" if registers else "-"
            print(f"{source.name:<26} {'sm_' + arch:>6} {len(registers):>8} {span:>10} {len(spilling):>9}")
            if spilling and "spills" not in source.read_text():
                unexplained += [f"{source.name} sm_{arch} {entry}" for entry in spilling]
        include = Path(torch.__file__).parent / "include"
        bindings = [path for path in sorted((ROOT / "csrc" / "binding").glob("*.cpp")) if "module" not in path.stem]
        list(pool.map(lambda path: check_binding(nvcc, path, include), bindings))
        print(f"{len(bindings)} bindings compile for CUDA")
        refused = run_nvcc(nvcc, WRAPPERS, "80", Path(folder), "-DCLUSTERS")
        if refused.returncode == 0 or "sync_cluster" not in refused.stderr + refused.stdout:
            sys.exit("clusters compile for sm_80, which has none")
    if unexplained:
        sys.exit("registers spill without a reason written in the source:\n" + "\n".join(unexplained))


if __name__ == "__main__":
    main()
