"""Pairwise KL matrices, forward and backward, against plain PyTorch."""

from __future__ import annotations

import pytest
import torch

from dvae_ext import ops, reference


@pytest.mark.parametrize("implementation", ["ops", "reference"])
@pytest.mark.parametrize("name", ["pairwise_kl_normal", "pairwise_kl_bernoulli"])
def test_pairwise_kl(benchmark, name: str, implementation: str) -> None:
    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(0)
    count = 2 if name == "pairwise_kl_normal" else 1
    inputs = [torch.randn(512, 32, generator=generator).requires_grad_() for _ in range(count)]
    function = getattr({"ops": ops, "reference": reference}[implementation], name)
    benchmark(lambda: torch.autograd.grad(function(*inputs).sum(), inputs))
