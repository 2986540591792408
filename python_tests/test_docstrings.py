"""The examples in docstrings and in the README run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import dvae_ext
from dvae_ext import distributions, ops, rbm, rng

NAMES = ["dvae_ext"] + [
    module.name
    for module in pkgutil.walk_packages(dvae_ext.__path__, "dvae_ext.")
    # The command line and the native libraries act when imported.
    if not re.search(r"\.(_cpu|_cuda|_kernels|cli.*|info)$", module.name)
]
# What a user calls or makes: not the abstract base, nor the result that log_z's own example shows.
PUBLIC = [
    item
    for package in (ops, distributions, rbm)
    for item in (getattr(package, name) for name in package.__all__)
    if not inspect.isabstract(item) and item is not rbm.LogZEstimate
] + [rng.key, rng.advance_]


@pytest.mark.parametrize("name", NAMES)
def test_examples_of_a_module(name: str) -> None:
    torch.manual_seed(0)
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


@pytest.mark.parametrize("item", PUBLIC, ids=lambda item: getattr(item, "__name__", str(item)))
def test_public_names_have_an_example(item: object) -> None:
    text = inspect.getdoc(item) or ""
    if inspect.isclass(item) and ">>>" not in text:
        text += inspect.getdoc(item.__init__) or ""
    assert ">>>" in text, "its docstring has no example"


def test_readme_s_python_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), flags=re.S)
    assert blocks
    space: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), space)  # the project's own text
    logits = space["BinaryLatents"]()(torch.rand(3, 784))[1]  # type: ignore[operator]
    assert logits.shape == (3, 200)
