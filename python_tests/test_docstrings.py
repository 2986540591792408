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
    model = space["BinaryLatents"]()  # type: ignore[operator]
    assert model(torch.rand(3, 784))[1].shape == (3, 200)
    assert model.bfloat16()(torch.rand(3, 784).bfloat16())[1].dtype == torch.bfloat16
    assert model.double()(torch.rand(3, 784).double())[1].dtype == torch.float64
    # Rare ones come as often as they should under autocast too: 800,000 draws, 6 standard errors.
    model = model.float()
    with torch.no_grad():
        model.encoder.weight.zero_()
        model.encoder.bias.fill_(-6.5)
    seen: list[torch.Tensor] = []
    model.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        model(torch.rand(4000, 784))
    posterior = distributions.OverlapExponential(logits=torch.tensor(-6.5, dtype=torch.float64), beta=8.0)
    share = 1 - posterior.cdf(torch.tensor(0.5, dtype=torch.float64)).item()
    assert (seen[0] > 0.5).double().mean().item() == pytest.approx(share, abs=6 * (share / 800_000) ** 0.5)
