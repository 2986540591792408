"""MAE's regulariser, forward and backward."""

from __future__ import annotations

from typing import Any

import torch

from dvae_ext import ops, reference
from dvae_ext.benchmarks.baselines import differentiable, forward_backward
from dvae_ext.benchmarks.case import Benchmark, Case, expect_close

OP = "mutual_posterior_divergence"


def build(device: torch.device, batch: int, dims: int) -> Case:
    generator = torch.Generator().manual_seed(0)
    inputs = tuple(torch.randn(batch, dims, generator=generator).to(device).requires_grad_() for _ in range(2))
    grads = tuple(torch.ones((), device=device) for _ in range(3))
    oracle = tuple(x.detach().double().requires_grad_() for x in inputs)
    oracle_grads = tuple(x.double() for x in grads)
    expected = forward_backward(reference.mutual_posterior_divergence, [(oracle, oracle_grads)])()

    def check(result: Any) -> None:
        expect_close(result, expected, OP)

    forms = differentiable(
        ops.mutual_posterior_divergence, reference.mutual_posterior_divergence, [(inputs, grads)], device
    )
    terms = float(batch * batch * dims)
    # e^-KL of every pair and dimension in both passes; logarithms can be shared by taking them of products.
    work = {"elementary": 2 * terms, "float32 product": 2 * 8 * terms}
    return Case(forms, check, work, ("M terms/s", terms / 1e6))


BENCHMARKS = [
    Benchmark(
        OP,
        "forward + backward",
        build,
        [{"batch": 512, "dims": 32}, {"batch": 100, "dims": 32}],
        [{"batch": 512, "dims": 32}, {"batch": 1024, "dims": 32}],
        {"batch": [16, 32, 64, 128, 256, 512], "dims": [8, 32, 128]},
    )
]
