"""MAE's regulariser, forward and backward, against the plain PyTorch that everybody writes and its compiled form."""

from __future__ import annotations

import pytest
import torch

from dvae_ext import ops, reference

IMPLEMENTATIONS = {
    "ops": ops.mutual_posterior_divergence,
    "reference": reference.mutual_posterior_divergence,
    "compiled": torch.compile(reference.mutual_posterior_divergence),
}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("shape", [(100, 32), (512, 32)], ids=str)
def test_mutual_posterior_divergence(benchmark, implementation: str, shape: tuple[int, int]) -> None:
    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator).requires_grad_() for _ in range(2)]
    function = IMPLEMENTATIONS[implementation]

    def run() -> None:
        torch.autograd.grad(sum(function(*inputs)), inputs)

    run()
    benchmark(run)
