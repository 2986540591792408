"""The layer rule: nothing points back. Read from the imports of dvae_ext and the includes of csrc."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dvae_ext"
CSRC = ROOT / "csrc"

# What each part of dvae_ext may import besides itself.
BASE = {"_version", "precision"}
NATIVE = BASE | {"_native", "_kernels"}
OPS = NATIVE | {"ops", "reference", "rng"}
DISTRIBUTIONS = OPS | {"distributions", "rbm"}
BLOCKS = DISTRIBUTIONS | {"nn", "objectives"}
MODELS = BLOCKS | {"data", "models"}
ALLOWED = {
    "__init__": DISTRIBUTIONS | BLOCKS | MODELS,
    "_version": set(),
    "precision": set(),
    "_native": BASE,
    "info": NATIVE,
    "rng": BASE,
    "reference": BASE,
    "ops": NATIVE | {"rng"},
    "distributions": OPS,
    "rbm": OPS,
    "nn": DISTRIBUTIONS,
    "objectives": DISTRIBUTIONS,
    "data": BASE,
    "models": MODELS,
    "evaluation": MODELS,
    "training": MODELS | {"evaluation"},
    "cli_log_z": MODELS | {"evaluation", "training"},
    "cli_options": MODELS | {"evaluation", "training", "cli_log_z"},
    "benchmarks": MODELS | {"info"},
    "cli": MODELS | {"evaluation", "training", "cli_log_z", "cli_options", "benchmarks"},
    "__main__": {"benchmarks", "cli"},
}


def python_imports(path):
    """Parts of dvae_ext that a file imports, at the top, inside functions or for type checking."""
    package = ["dvae_ext", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            # "from dvae_ext import ops" names the part among the imported names
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "dvae_ext" else [module]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module":
            names = [
                arg.value for arg in ast.walk(node) if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
            ]
        for name in names:
            parts = name.split(".")
            if parts[0] == "dvae_ext" and len(parts) > 1 and parts[1] and not parts[1].startswith("__"):
                yield parts[1]


def part_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


PYTHON_FILES = sorted(PACKAGE.rglob("*.py"))
NATIVE_FILES = sorted(path for path in CSRC.rglob("*") if path.suffix in (".h", ".cpp", ".cu", ".cuh"))


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_python_imports_point_down(path):
    part = part_of(path)
    assert part in ALLOWED, f"{part} has no place in the layers yet; add it to ALLOWED"
    wrong = set(python_imports(path)) - ALLOWED[part] - {part}
    assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}, which {part} may not"


def layer_of(path):
    parts = path.relative_to(CSRC).parts
    return parts[0]


def includes(path):
    """Included files: (text, path in csrc or None)."""
    for match in re.finditer(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', path.read_text(encoding="utf-8"), re.M):
        text = match[1] or match[2]
        local = next((base / text for base in (CSRC, path.parent) if (base / text).is_file()), None)
        yield text, local


# What each folder of csrc may include. kernels/gpu.h alone may reach the interpreter, which stands in for CUDA.
NATIVE_ALLOWED = {
    "math": {"math"},
    "interpreter": {"interpreter", "math"},
    "kernels": {"kernels", "math"},
    "binding": {"binding", "kernels", "math", "interpreter"},
    "tests": {"tests", "kernels", "math", "interpreter"},
}
TORCH = re.compile(r"^(torch|ATen|c10|caffe2)/")
PYTHON = re.compile(r"^(pybind11/|Python\.h)")


@pytest.mark.parametrize("path", NATIVE_FILES, ids=lambda path: str(path.relative_to(CSRC)))
def test_native_includes_point_down(path):
    layer = layer_of(path)
    assert layer in NATIVE_ALLOWED, f"csrc/{layer} has no place in the layers yet; add it to NATIVE_ALLOWED"
    allowed = NATIVE_ALLOWED[layer]
    if path == CSRC / "kernels" / "gpu.h":
        allowed = allowed | {"interpreter"}
    for text, local in includes(path):
        if local is not None:
            target = local.resolve().relative_to(CSRC).parts[0]
            assert target in allowed, f"{path.relative_to(ROOT)} includes {text}: {layer} may not include {target}"
        if layer != "binding":
            assert not TORCH.match(text), f"{path.relative_to(ROOT)} includes {text}: torch belongs in binding alone"
            assert not PYTHON.match(text), f"{path.relative_to(ROOT)} includes {text}: Python belongs in binding alone"
        if layer == "math":
            assert not text.startswith("cuda"), f"{path.relative_to(ROOT)} includes {text}: math knows no CUDA runtime"


def test_the_rule_sees_violations(tmp_path):
    """The readers above find every form of import and include they are meant to."""
    code = (
        "from dvae_ext import ops, cli\nimport dvae_ext.training.loop\ndef f():\n    from ..models.base import Model\n"
    )
    path = PACKAGE / "rbm" / "imaginary.py"

    class File:
        def relative_to(self, other):
            return path.relative_to(other)

        def read_text(self, encoding):
            return code

    assert set(python_imports(File())) == {"ops", "cli", "training", "models"}
    header = tmp_path / "x.h"
    header.write_text('#include <torch/all.h>\n  # include "math/macros.h"\n// #include "no.h"\n')
    assert [text for text, _ in includes(header)] == ["torch/all.h", "math/macros.h"]
    assert TORCH.match("torch/csrc/stable/library.h")
    assert PYTHON.match("pybind11/numpy.h")


def test_import_needs_torch_and_numpy_alone():
    optional = "scipy sklearn matplotlib PIL tqdm tensorboard tyro pandas torchvision".split()
    code = (
        "import sys, torch, numpy; before = set(sys.modules); import dvae_ext; "
        f"print([name for name in {optional!r} if name in set(sys.modules) - before])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_models_and_data_import_without_the_optional_packages():
    code = (
        "import sys\n"
        "for name in 'scipy sklearn matplotlib tqdm tensorboard tyro'.split():\n"
        "    sys.modules[name] = None\n"
        "import dvae_ext.models, dvae_ext.data, dvae_ext.evaluation, dvae_ext.training, dvae_ext.rbm\n"
        "import dvae_ext.__main__, dvae_ext.benchmarks.catalogue, dvae_ext.benchmarks.runner\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
