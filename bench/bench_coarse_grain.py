"""Coarse-grained samples and divergences, forward and backward, against plain PyTorch and its compiled form.

The baseline draws its uniforms with torch.rand: nobody spells out a counter-based generator in PyTorch.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dvae_ext import ops, reference, rng
from dvae_ext.reference.coarse_grain_sample import coarse_grain_logits, grid

BATCH, SAMPLES, DIMS, ORDER, POINTS, TEMPERATURE = 100, 10, 40, 5, 101, 0.5


def eager(coefficients: Tensor) -> Tensor:
    logits = coarse_grain_logits(coefficients, POINTS)
    uniform = torch.rand((SAMPLES, *logits.shape)).clamp_min(2.0**-24)
    noise = -torch.log(-torch.log(uniform))
    return torch.softmax((logits + noise) / TEMPERATURE, dim=-1) @ grid(POINTS, coefficients.dtype)


def native(coefficients: Tensor) -> Tensor:
    return ops.coarse_grain_sample(coefficients, rng.key(1), TEMPERATURE, POINTS, SAMPLES)


IMPLEMENTATIONS = {"ops": native, "reference": eager, "compiled": torch.compile(eager)}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_coarse_grain_sample(benchmark, implementation: str) -> None:
    torch.set_num_threads(2)
    coefficients = torch.randn(BATCH, DIMS, ORDER, generator=torch.Generator().manual_seed(0)).requires_grad_()
    function = IMPLEMENTATIONS[implementation]

    def run() -> None:
        torch.autograd.grad(function(coefficients).sum(), coefficients)

    run()
    benchmark(run)


@pytest.mark.parametrize("implementation", ["ops", "reference"])
def test_coarse_grain_kl(benchmark, implementation: str) -> None:
    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(s, generator=generator).requires_grad_() for s in ((BATCH, DIMS, ORDER), (DIMS, ORDER))]
    function = {"ops": ops, "reference": reference}[implementation].coarse_grain_kl
    benchmark(lambda: torch.autograd.grad(function(*inputs, POINTS).sum(), inputs))
