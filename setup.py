"""Builds the extension's shared objects with ninja.

``_cpu.so`` (schemas and CPU kernels) and ``_cuda.so`` (CUDA kernels, where nvcc is found) use PyTorch's stable ABI and
hold no Python: torch loads them. ``_kernels`` is a pybind11 module on the torch-free kernels.

DVAE_EXT_CUDA=0|1|auto   build the CUDA library: never, always, or where torch has CUDA and nvcc matches it (default)
DVAE_EXT_CUDA_ARCHS      compute capabilities, for example "80;90" (default: the local GPU's, else 80;86;89;90;100;120)
DVAE_EXT_INTERPRETER=0|1 put the interpreted CUDA kernels beside the CPU ones (default: only in an in-place build)
CXX, CXXFLAGS            the C++ compiler (default: g++) and flags after our own
MAX_JOBS                 compilers run at a time (default: one per core)
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
TORCH_TARGET_VERSION = "0x020b000000000000ULL"  # 2.11: the oldest torch that the build runs on
RELEASE_ARCHS = "80;86;89;90;100;120"
COMMON = ["-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-g0"]
COMMON += shlex.split(os.environ.get("CXXFLAGS", ""))
# Formulas are written for vector code: errno and traps would keep the compiler from it. CMakeLists.txt has the same.
# The vector intrinsics of GCC 12 warn about their own undefined operands.
KERNEL_FLAGS = ["-fno-math-errno", "-fno-trapping-math", "-Wno-maybe-uninitialized"]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]


def instruction_sets() -> dict[str, list[str]]:
    if platform.machine() in ("x86_64", "AMD64"):
        # Processors without AVX2 are old: theirs is the build's time to save, not the kernels'.
        return {"scalar": ["-O1"], "avx2": AVX2, "avx512": AVX512}
    return {"scalar": []}


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    candidates = [str(Path(home) / "bin" / "nvcc")] if home else []
    candidates += [shutil.which("nvcc") or "", "/usr/local/cuda/bin/nvcc"]
    return next((path for path in candidates if path and Path(path).exists()), None)


def nvcc_version(nvcc: str) -> str:
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    return text.split("release ")[1].split(",")[0]


def cuda_include(nvcc: str) -> Path:
    """Where nvcc finds its headers. It is asked, because the nvcc in the path may be a script that calls another."""
    plan = subprocess.run([nvcc, "--dryrun", "-x", "cu", "-c", os.devnull], capture_output=True, text=True, check=True)
    top = next(line.split("TOP=")[1] for line in plan.stderr.splitlines() if "TOP=" in line)
    return Path(top).resolve() / "include"


def decide_cuda() -> tuple[bool, str]:
    """Whether to build CUDA, and the sentence that says why."""
    import torch

    choice = os.environ.get("DVAE_EXT_CUDA", "auto")
    if choice not in ("0", "1", "auto"):
        raise SystemExit(f"DVAE_EXT_CUDA is {choice!r}, expected 0, 1 or auto")
    nvcc = find_nvcc()
    if choice == "0":
        return False, "CUDA kernels are not built: DVAE_EXT_CUDA=0"
    if nvcc is None:
        sentence = "no nvcc was found; install the CUDA toolkit or set CUDA_HOME"
        if choice == "1":
            raise SystemExit(f"DVAE_EXT_CUDA=1, but {sentence}")
        return False, f"CUDA kernels are not built: {sentence}"
    version, wanted = nvcc_version(nvcc), torch.version.cuda
    if choice == "1":
        return True, f"CUDA kernels are built with nvcc {version} at {nvcc}: DVAE_EXT_CUDA=1"
    if wanted is None:
        return (
            False,
            f"CUDA kernels are not built: torch {torch.__version__} has no CUDA (DVAE_EXT_CUDA=1 builds anyway)",
        )
    if version.split(".")[0] != wanted.split(".")[0]:
        return False, f"CUDA kernels are not built: nvcc is {version}, torch was built for CUDA {wanted}"
    return True, f"CUDA kernels are built with nvcc {version} at {nvcc}, like torch's CUDA {wanted}"


def cuda_archs() -> list[str]:
    named = os.environ.get("DVAE_EXT_CUDA_ARCHS")
    if named:
        return named.replace(",", ";").split(";")
    try:
        query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
        found = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
        if found:
            return sorted({capability.replace(".", "") for capability in found})
    except (OSError, subprocess.CalledProcessError):
        pass
    return RELEASE_ARCHS.split(";")


class NinjaFile:
    """One object per source and set of flags; unchanged ones are not compiled again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines = [
            "ninja_required_version = 1.3",
            "rule compile",
            "  command = $compiler $flags -MMD -MF $out.d -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "  description = $note",
            "rule link",
            "  command = $compiler -shared $in -o $out $flags",
            "  description = link $out",
        ]

    @staticmethod
    def escape(path: Path | str) -> str:
        return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")

    def compile(
        self, compiler: str, source: Path, tag: str, flags: list[str], suffix: str = ".o", needs: Path | None = None
    ) -> Path:
        relative = source.relative_to(ROOT)
        target = self.folder / tag / relative.with_suffix(relative.suffix + suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        needed = f" | {self.escape(needs)}" if needs else ""
        self.lines += [
            f"build {self.escape(target)}: compile {self.escape(source)}{needed}",
            f"  compiler = {compiler}",
            f"  flags = {' '.join(flags)}",
            f"  note = {tag}: {relative}",
        ]
        return target

    def compile_all(self, compiler: str, sources: list[Path], header: Path, tag: str, flags: list[str]) -> list[Path]:
        """Objects of sources that all include `header`, which is parsed once for all of them."""
        precompiled = self.compile(compiler, header, tag, [*flags, "-x c++-header"], suffix=".gch")
        flags = [*flags, f"-include {precompiled.with_suffix('')}"]
        return [self.compile(compiler, path, tag, flags, needs=precompiled) for path in sources]

    def link(self, compiler: str, target: Path, objects: list[Path], flags: list[str]) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        inputs = " ".join(self.escape(item) for item in objects)
        self.lines += [
            f"build {self.escape(target)}: link {inputs}",
            f"  compiler = {compiler}",
            f"  flags = {' '.join(flags)}",
        ]

    def run(self) -> None:
        (self.folder / "build.ninja").write_text("\n".join(self.lines) + "\n")
        try:
            import ninja

            program = str(Path(ninja.BIN_DIR) / "ninja")
        except ImportError:
            program = shutil.which("ninja") or "ninja"
        jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
        command = [program, "-C", str(self.folder), "-j", jobs]
        if subprocess.run(command, check=False).returncode != 0:
            raise SystemExit("the build failed; the compiler's message is above")


class Build(build_ext):
    def run(self) -> None:
        import pybind11
        import torch

        build_cuda, sentence = decide_cuda()
        print(f"dvae_ext: {sentence}", flush=True)
        # `pip install -e .` and `build_ext --inplace` are one build: what the first compiled the second finds.
        inplace = bool(self.inplace or getattr(self, "editable_mode", False))
        interpreter = os.environ.get("DVAE_EXT_INTERPRETER", "1" if inplace else "0") == "1"

        compiler = os.environ.get("CXX", "g++")
        target = ROOT / "dvae_ext" if inplace else Path(self.build_lib).resolve() / "dvae_ext"
        folder = ROOT / "build" / "ninja" if inplace else Path(self.build_temp).resolve() / "ninja"
        folder.mkdir(parents=True, exist_ok=True)
        ninja_file = NinjaFile(folder)

        torch_root = Path(torch.__file__).parent
        include = [f"-I{ROOT / 'csrc'}"]
        torch_flags = [f"-isystem {torch_root / 'include'}", f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}"]
        torch_link = [f"-L{torch_root / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10"]
        sources = {name: sorted((ROOT / "csrc" / name).glob("*.cpp")) for name in ("kernels", "kernels/cpu", "binding")}
        module_source = ROOT / "csrc" / "binding" / "kernels_module.cpp"
        bindings = [path for path in sources["binding"] if path != module_source]

        kernels = [ninja_file.compile(compiler, path, "cpu", COMMON + include) for path in sources["kernels"]]
        for isa, isa_flags in instruction_sets().items():
            flags = [*COMMON, *KERNEL_FLAGS, *include, f"-DDVAE_EXT_ISA={isa}", *isa_flags]
            kernels += [ninja_file.compile(compiler, path, isa, flags) for path in sources["kernels/cpu"]]

        cuda_sources = sorted((ROOT / "csrc" / "kernels" / "cuda").glob("*.cu"))
        interpreted = []
        define = []
        if interpreter:
            define = ["-DDVAE_EXT_INTERPRETER"]
            flags = ["-x c++", "-std=c++20", "-O1", "-g1", "-fPIC", "-fvisibility=hidden", "-Wno-unknown-pragmas"]
            flags += [*include, *define]
            # No sanitizer's library is linked: the interpreter itself takes the calls that these put into the kernels.
            watched = [*flags, "-fsanitize=thread,alignment,bounds,null,integer-divide-by-zero"]
            own = sorted((ROOT / "csrc" / "interpreter").glob("*.cpp"))
            scheduler = ROOT / "csrc" / "interpreter" / "scheduler.h"
            interpreted = ninja_file.compile_all(compiler, own, scheduler, "interpreter", flags)
            interpreted += [ninja_file.compile(compiler, path, "interpreter", watched) for path in cuda_sources]
        backend = ROOT / "csrc" / "binding" / "backend.h"
        flags = COMMON + include + torch_flags + define
        objects = ninja_file.compile_all(compiler, bindings, backend, "binding", flags)
        ninja_file.link(compiler, target / "_cpu.so", objects + kernels + interpreted, torch_link)

        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        python_flags = [f"-isystem {pybind11.get_include()}", f"-isystem {sysconfig.get_path('include')}"]
        module = ninja_file.compile(compiler, module_source, "module", [*COMMON, "-O1", *include, *python_flags])
        ninja_file.link(compiler, target / f"_kernels{suffix}", [module, *kernels], [])

        if build_cuda:
            nvcc = find_nvcc()
            assert nvcc is not None
            archs = cuda_archs()
            codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
            newest = archs[-1].rstrip("af")
            codes.append(f"-gencode=arch=compute_{newest},code=compute_{newest}")
            nvcc_flags = ["-std=c++20", "-O3", "--expt-relaxed-constexpr", "-Xcompiler=-fPIC,-fvisibility=hidden"]
            nvcc_flags += ["-Xptxas=-v", "-diag-suppress=20012", *codes, *include]
            cuda_objects = [ninja_file.compile(nvcc, path, "cuda", nvcc_flags) for path in cuda_sources]
            flags = COMMON + include + torch_flags + ["-DDVAE_EXT_BACKEND_CUDA", "-DUSE_CUDA"]
            flags += [f"-isystem {cuda_include(nvcc)}"]
            cuda_objects += ninja_file.compile_all(compiler, bindings, backend, "binding_cuda", flags)
            # torch_cuda is left to be resolved at load time: a CPU-only torch can build the library, not load it.
            ninja_file.link(nvcc, target / "_cuda.so", cuda_objects, [*torch_link, "-cudart=static"])
        ninja_file.run()

    def get_outputs(self) -> list[str]:
        if self.inplace or getattr(self, "editable_mode", False):
            return []
        folder = Path(self.build_lib) / "dvae_ext"
        return [str(path) for path in sorted(folder.glob("*.so"))]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def get_source_files(self) -> list[str]:
        return [str(path.relative_to(ROOT)) for path in sorted((ROOT / "csrc").rglob("*")) if path.is_file()]


if sys.platform == "win32":
    raise SystemExit("dvae_ext builds on Linux with g++; Windows is not supported")

setup(ext_modules=[Extension("dvae_ext._cpu", sources=[])], cmdclass={"build_ext": Build})
