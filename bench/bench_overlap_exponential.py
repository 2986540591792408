"""Inverse CDF of the overlapping exponential, forward + backward, against the same stable formula in plain PyTorch.

``python -m bench.collect`` has the table in which the implementations take turns.

The memory floor: forward reads rho and logits and writes zeta; backward reads grad, rho and logits and writes one
gradient. 7 tensors of 4 bytes cross the memory bus, 9 where a store first reads its line.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dvae_ext import ops, reference

SIZES = [20_000, 1 << 20, 1 << 24]
THREADS, BETA, TENSORS_MOVED = 2, 8.0, 7


def forward_backward(function: Callable[..., Tensor], size: int) -> Callable[[], None]:
    generator = torch.Generator().manual_seed(0)
    rho = torch.rand(size, generator=generator)
    logits = (3 * torch.randn(size, generator=generator)).requires_grad_()
    grad = torch.ones(size)

    def run() -> None:
        logits.grad = None
        function(rho, logits, BETA).backward(grad)

    return run


IMPLEMENTATIONS: dict[str, Callable[[int], Callable[[], None]]] = {
    "ops": lambda size: forward_backward(ops.overlap_exponential_icdf, size),
    "eager": lambda size: forward_backward(reference.overlap_exponential_icdf, size),
    "torch.compile": lambda size: forward_backward(torch.compile(reference.overlap_exponential_icdf), size),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_overlap_exponential_icdf(benchmark, implementation: str, size: int) -> None:
    torch.set_num_threads(THREADS)
    torch._dynamo.reset()
    run = IMPLEMENTATIONS[implementation](size)
    run()
    benchmark.pedantic(run, rounds=5 if size > 1 << 22 else 20, warmup_rounds=1)
