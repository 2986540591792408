"""Builds the extension's shared objects with ninja.

``_cpu.so`` (schemas and CPU kernels) and ``_cuda.so`` (CUDA kernels, where nvcc is found) use PyTorch's stable ABI and
hold no Python: torch loads them. ``_kernels`` is a pybind11 module on the torch-free kernels.

DVAE_EXT_CUDA=0|1|auto   build the CUDA library: never, always, or where torch has CUDA and nvcc matches it (default)
DVAE_EXT_CUDA_ARCHS      compute capabilities from 8.0, for example "8.0;9.0", "80 90" or "8.0+PTX;9.0a"
TORCH_CUDA_ARCH_LIST     the same for all extensions of torch; what is older than 8.0 in it is left out
                         (default: the local GPU's, else 80;86;89;90;100;120; the newest is added as PTX too)
DVAE_EXT_INTERPRETER=0|1 put the interpreted CUDA kernels beside the CPU ones (default: only in an in-place build)
CXX, CXXFLAGS            the C++ compiler (default: g++) and flags after our own
MAX_JOBS                 compilers run at a time (default: one for each processor that the build may use)
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

if sys.platform != "linux":
    system = {"darwin": "macOS", "win32": "Windows"}.get(sys.platform, sys.platform)
    raise SystemExit(f"dvae_ext builds on Linux with g++; {system} is not supported")
try:
    from setuptools import Extension, setup
    from setuptools.command.build_ext import build_ext
except ModuleNotFoundError:
    raise SystemExit(f"dvae_ext is built with setuptools, which {sys.executable} lacks: README, Install") from None

ROOT = Path(__file__).resolve().parent
OLDEST_TORCH = (2, 11)
TORCH_TARGET_VERSION = "0x020b000000000000ULL"  # the same
OLDEST_ARCH = 80  # asynchronous copies
RELEASE_ARCHS = ("80", "86", "89", "90", "100", "120")
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


def wants_interpreter(inplace: bool) -> bool:
    choice = os.environ.get("DVAE_EXT_INTERPRETER") or ("1" if inplace else "0")
    if choice not in ("0", "1"):
        raise SystemExit(f"DVAE_EXT_INTERPRETER is {choice!r}, expected 0 or 1")
    return choice == "1"


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


def nvcc_archs(nvcc: str) -> set[str]:
    """What nvcc compiles for, of what the kernels can be compiled for."""
    listing = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    return {number for number in re.findall(r"compute_(\d+)", listing) if int(number) >= OLDEST_ARCH}


def parse_archs(name: str, known: set[str]) -> dict[str, bool]:
    """Compute capabilities in the environment's variable `name`, and whether each is marked "+PTX"."""
    found = {}
    for word in re.findall(r"[^;,\s]+", os.environ[name]):
        match = re.fullmatch(r"(\d+)\.?(\d)([af]?)(\+PTX)?", word)
        if match and int(match[1] + match[2]) < OLDEST_ARCH and name == "TORCH_CUDA_ARCH_LIST":
            continue  # meant for other packages
        if not match or match[1] + match[2] not in known:
            raise SystemExit(
                f"{name} is {os.environ[name]!r}, but nvcc and the kernels have no compute capability {word!r}: "
                f"expected some of {' '.join(sorted(known, key=int))}"
            )
        arch = match[1] + match[2] + match[3]
        found[arch] = found.get(arch, False) or match[4] is not None
    if not found:
        raise SystemExit(f"{name} is {os.environ[name]!r}, expected some of {' '.join(sorted(known, key=int))}")
    return found


def cuda_archs(nvcc: str) -> dict[str, bool]:
    """Architectures to compile for, oldest first, and whether PTX of each is added. That of the newest always is."""
    known = nvcc_archs(nvcc)
    named = [name for name in ("DVAE_EXT_CUDA_ARCHS", "TORCH_CUDA_ARCH_LIST") if os.environ.get(name, "").strip()]
    if named and os.environ[named[0]] != "native":  # torch's word for the local GPU
        found = parse_archs(named[0], known)
    else:
        found = dict.fromkeys(local_archs() & known or known.intersection(RELEASE_ARCHS), False)
    ordered = {arch: found[arch] for arch in sorted(found, key=lambda arch: (int(arch.rstrip("af")), arch))}
    return {**ordered, list(ordered)[-1]: True}


def local_archs() -> set[str]:
    try:
        query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
        found = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return set()
    return {capability.replace(".", "") for capability in found}


def gencode(archs: dict[str, bool]) -> list[str]:
    """nvcc's flags: code of every architecture, and PTX where it is wanted, which later GPUs compile for themselves."""
    flags = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    ptx = dict.fromkeys(arch.rstrip("af") for arch, wanted in archs.items() if wanted)
    return flags + [f"-gencode=arch=compute_{arch},code=compute_{arch}" for arch in ptx]


def processors() -> int:
    """Processors that this process may use, which taskset and containers make fewer than the machine has."""
    return len(os.sched_getaffinity(0))


def build_jobs() -> int:
    named = os.environ.get("MAX_JOBS") or str(processors())
    if not named.isdecimal() or int(named) < 1:
        raise SystemExit(f"MAX_JOBS is {named!r}, expected a whole number from 1")
    return int(named)


def compiler_command() -> list[str]:
    """CXX: a program, whose path may have spaces, or a command line such as "ccache g++"."""
    named = os.environ.get("CXX") or "g++"
    command = [named] if shutil.which(named) else shlex.split(named)
    if not command or not shutil.which(command[0]):
        raise SystemExit(f"the C++ compiler {named!r} was not found: install g++ 12 or newer, or set CXX")
    return command


def check_packages() -> None:
    """Builds without isolation take the packages that the interpreter has."""
    needed = {"torch": "torch>=2.11", "pybind11": "pybind11>=2.12"}
    missing = [shown for name, shown in needed.items() if importlib.util.find_spec(name) is None]
    if importlib.util.find_spec("ninja") is None and shutil.which("ninja") is None:
        missing.append("ninja")
    if missing:
        raise SystemExit(f"dvae_ext cannot be built: {sys.executable} lacks {', '.join(missing)} (README, Install)")
    import torch

    if tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST_TORCH:
        raise SystemExit(f"dvae_ext cannot be built: torch is {torch.__version__}, expected 2.11 or newer")


def ninja_escape(text: Path | str) -> str:
    return str(text).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def run_ninja(folder: Path, jobs: int, *targets: Path) -> None:
    try:
        import ninja

        program = str(Path(ninja.BIN_DIR) / "ninja")
    except ImportError:
        program = "ninja"
    command = [program, "-C", str(folder), "-j", str(jobs), *map(str, targets)]
    if subprocess.run(command, check=False).returncode != 0:
        raise SystemExit("the build failed; the compiler's message is above")


class NinjaFile:
    """One object per source and set of flags; unchanged ones are not compiled again. Flags are words, not quoted."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.lines = [
            "ninja_required_version = 1.3",
            "rule compile",
            "  command = $compiler $flags -MMD -MF $out.d -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "  description = $note",
            "rule link",
            "  command = $compiler $in -o $out $flags",
            "  description = link $out",
        ]

    def build(
        self, rule: str, target: Path, inputs: list[Path], needs: list[Path], compiler: list[str], flags: list[str]
    ) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        paths = [*map(ninja_escape, inputs), *(f"| {ninja_escape(path)}" for path in needs)]
        self.lines += [
            f"build {ninja_escape(target)}: {rule} {' '.join(paths)}",
            # Ninja quotes $in and $out for the shell; the words are ours to quote.
            f"  compiler = {shlex.join(compiler).replace('$', '$$')}",
            f"  flags = {shlex.join(flags).replace('$', '$$')}",
        ]

    def compile(
        self,
        compiler: list[str],
        source: Path,
        tag: str,
        flags: list[str],
        suffix: str = ".o",
        needs: Path | None = None,
    ) -> Path:
        relative = source.relative_to(ROOT)
        target = self.folder / tag / relative.with_suffix(relative.suffix + suffix)
        self.build("compile", target, [source], [needs] if needs else [], compiler, flags)
        self.lines.append(f"  note = {tag}: {relative}")
        return target

    def compile_all(
        self, compiler: list[str], sources: list[Path], header: Path, tag: str, flags: list[str]
    ) -> list[Path]:
        """Objects of sources that all include `header`, which is parsed once for all of them."""
        precompiled = self.compile(compiler, header, tag, [*flags, "-x", "c++-header"], suffix=".gch")
        flags = [*flags, "-include", str(precompiled.with_suffix(""))]
        return [self.compile(compiler, path, tag, flags, needs=precompiled) for path in sources]

    def link(self, compiler: list[str], target: Path, objects: list[Path], flags: list[str]) -> None:
        self.build("link", target, objects, [], compiler, flags)

    def run(self, jobs: int) -> None:
        (self.folder / "build.ninja").write_text("\n".join(self.lines) + "\n")
        run_ninja(self.folder, jobs)


class Build(build_ext):
    def run(self) -> None:
        check_packages()
        compiler = compiler_command()
        import pybind11
        import torch

        build_cuda, sentence = decide_cuda()
        print(f"dvae_ext: {sentence}", flush=True)
        # `pip install -e .` and `build_ext --inplace` are one build: what the first compiled the second finds.
        inplace = bool(self.inplace or getattr(self, "editable_mode", False))
        interpreter = wants_interpreter(inplace)

        target = ROOT / "dvae_ext" if inplace else Path(self.build_lib).resolve() / "dvae_ext"
        folder = ROOT / "build" / "ninja" if inplace else Path(self.build_temp).resolve() / "ninja"
        ninja_file = NinjaFile(folder)

        torch_root = Path(torch.__file__).parent
        include = [f"-I{ROOT / 'csrc'}"]
        torch_flags = ["-isystem", str(torch_root / "include"), f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}"]
        torch_link = ["-shared", f"-L{torch_root / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10"]
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
            flags = ["-x", "c++", "-std=c++20", "-O1", "-g1", "-fPIC", "-fvisibility=hidden", "-Wno-unknown-pragmas"]
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
        python_flags = ["-isystem", pybind11.get_include(), "-isystem", sysconfig.get_path("include")]
        module = ninja_file.compile(compiler, module_source, "module", [*COMMON, "-O1", *include, *python_flags])
        ninja_file.link(compiler, target / f"_kernels{suffix}", [module, *kernels], ["-shared"])

        if build_cuda:
            nvcc = find_nvcc()
            assert nvcc is not None
            archs = cuda_archs(nvcc)
            print(f"dvae_ext: CUDA architectures {' '.join(archs)}", flush=True)
            nvcc_flags = ["-std=c++20", "-O3", "--expt-relaxed-constexpr", "-Xcompiler=-fPIC,-fvisibility=hidden"]
            nvcc_flags += ["-Xptxas=-v", "-diag-suppress=20012", *gencode(archs), *include]
            cuda_objects = [ninja_file.compile([nvcc], path, "cuda", nvcc_flags) for path in cuda_sources]
            flags = COMMON + include + torch_flags + ["-DDVAE_EXT_BACKEND_CUDA", "-DUSE_CUDA"]
            flags += ["-isystem", str(cuda_include(nvcc))]
            cuda_objects += ninja_file.compile_all(compiler, bindings, backend, "binding_cuda", flags)
            # torch_cuda is left to be resolved at load time: a CPU-only torch can build the library, not load it.
            ninja_file.link([nvcc], target / "_cuda.so", cuda_objects, [*torch_link, "-cudart=static"])
        ninja_file.run(build_jobs())

    def get_outputs(self) -> list[str]:
        if self.inplace or getattr(self, "editable_mode", False):
            return []
        folder = Path(self.build_lib) / "dvae_ext"
        return [str(path) for path in sorted(folder.glob("*.so"))]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def get_source_files(self) -> list[str]:
        return [str(path.relative_to(ROOT)) for path in sorted((ROOT / "csrc").rglob("*")) if path.is_file()]


if __name__ == "__main__":
    setup(ext_modules=[Extension("dvae_ext._cpu", sources=[])], cmdclass={"build_ext": Build})
