"""Divergences of all pairs of posteriors, forward and backward."""

from __future__ import annotations

import torch

from dvae_ext import ops, reference
from dvae_ext.benchmarks.baselines import differentiable, forward_backward
from dvae_ext.benchmarks.case import Benchmark, Case, expect_close


def benchmark(op: str, arguments: int, operations: int) -> Benchmark:
    """Of an op on ``arguments`` tensors ``[batch, dims]``; ``operations``: instructions for a pair and dimension."""

    def build(device: torch.device, batch: int, dims: int) -> Case:
        generator = torch.Generator().manual_seed(0)
        inputs = tuple(
            torch.randn(batch, dims, generator=generator).to(device).requires_grad_() for _ in range(arguments)
        )
        grad = torch.randn(batch, batch, generator=generator).to(device)
        oracle = tuple(x.detach().double().requires_grad_() for x in inputs)
        expected = forward_backward(getattr(reference, op), [(oracle, (grad.double(),))])()
        forms = differentiable(getattr(ops, op), getattr(reference, op), [(inputs, (grad,))], device)
        pairs = float(batch * batch)
        work = {"float32 product": 2.0 * operations * pairs * dims, "memory": 8 * pairs}
        return Case(forms, lambda result: expect_close(result, expected, op), work, ("M pairs/s", pairs / 1e6))

    return Benchmark(
        op,
        "forward + backward",
        build,
        [{"batch": 512, "dims": 32}, {"batch": 100, "dims": 32}],
        [{"batch": 512, "dims": 32}, {"batch": 1024, "dims": 32}],
        {"batch": [16, 32, 64, 128, 256, 512], "dims": [8, 32, 128]},
    )


BENCHMARKS = [
    benchmark("pairwise_kl_normal", arguments=2, operations=8),
    benchmark("pairwise_kl_bernoulli", arguments=1, operations=5),
]
