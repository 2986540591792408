"""Coarse-grained samples and divergences, forward and backward.

The baseline draws its uniforms with torch.rand: nobody spells out a counter-based generator in PyTorch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dvae_ext import ops, reference, rng
from dvae_ext.benchmarks.baselines import differentiable, forward_backward
from dvae_ext.benchmarks.case import Benchmark, Case, WrongResult, expect_close, tensors
from dvae_ext.reference.coarse_grain_sample import coarse_grain_logits, grid

POINTS, ORDER, TEMPERATURE = 101, 5, 0.5


def coefficients(*shape: int, device: torch.device, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device).requires_grad_()


def build_sample(device: torch.device, samples: int, batch: int, dims: int) -> Case:
    key = rng.key(1, device)

    def op(c: Tensor) -> Tensor:
        return ops.coarse_grain_sample(c, key, TEMPERATURE, POINTS, samples)

    def eager(c: Tensor) -> Tensor:
        logits = coarse_grain_logits(c, POINTS)
        uniform = torch.rand((samples, *logits.shape), device=c.device).clamp_min(2.0**-24)
        noise = -torch.log(-torch.log(uniform))
        return torch.softmax((logits + noise) / TEMPERATURE, dim=-1) @ grid(POINTS, c.dtype, c.device)

    c = coefficients(batch, dims, ORDER, device=device)
    grad = torch.ones(samples, batch, dims, device=device)
    # Draws differ between implementations, means do not: each posterior's, over samples, within six standard errors of
    # those of a float64 run, in the mean over posteriors.
    oracle = c.detach().double().requires_grad_()
    exact = forward_backward(
        lambda x: reference.coarse_grain_sample(x, key, TEMPERATURE, POINTS, min(samples, 2)),
        [((oracle,), (grad[:2].double(),))],
    )()

    def check(result: Any) -> None:
        own, gradient = tensors(result)
        if own.shape != (samples, batch, dims) or gradient.shape != c.shape:
            raise WrongResult(f"coarse_grain_sample: shapes {list(own.shape)} and {list(gradient.shape)}")
        pairs = {"sample": (own, exact[0]), "gradient": (gradient / samples, exact[1] / len(exact[0]))}
        for name, (got, right) in pairs.items():
            got = got.detach().double()
            error = abs((got.mean() - right.mean()).item())
            allowed = 6 * (got.var() / got.numel() + right.var() / right.numel()).sqrt().item()
            if not error <= allowed:
                raise WrongResult(f"coarse_grain_sample: the mean {name} is off by {error:.2g}, expected {allowed:.2g}")

    cells = float(samples * batch * dims * POINTS)
    # Each point in each pass (the noise is made again, not kept) takes a sixth of a generator call, a uniform of it,
    # its logarithm and that to the power -1/T: 16 + 3 + 10 + 13 operations of a vector lane as the AVX-512 kernel makes
    # them, and 3 for the sums. A lane makes as many in a second as multiply-adds of a product, which count twice.
    work = {"float32 product": 2 * 45 * 2 * cells}
    return Case(differentiable(op, eager, [((c,), (grad,))], device), check, work, ("M grid points/s", cells / 1e6))


def build_kl(device: torch.device, batch: int, dims: int) -> Case:
    inputs = coefficients(batch, dims, ORDER, device=device), coefficients(dims, ORDER, device=device, seed=1)
    grad = torch.ones(batch, dims, device=device)
    oracle = tuple(x.detach().double().requires_grad_() for x in inputs)
    expected = forward_backward(reference.coarse_grain_kl, [((*oracle, POINTS), (grad.double(),))])()
    forms = differentiable(ops.coarse_grain_kl, reference.coarse_grain_kl, [((*inputs, POINTS), (grad,))], device)
    cells = float(batch * dims * POINTS)
    return Case(
        forms,
        lambda result: expect_close(result, expected, "coarse_grain_kl"),
        {"elementary": 2 * cells, "float32 product": 2 * 4 * ORDER * cells},
        ("M grid points/s", cells / 1e6),
    )


BENCHMARKS = [
    Benchmark(
        "coarse_grain_sample",
        f"forward + backward, {POINTS} points, order {ORDER}",
        build_sample,
        [{"samples": 10, "batch": 100, "dims": 40}, {"samples": 1, "batch": 100, "dims": 40}],
        [{"samples": 10, "batch": 100, "dims": 40}, {"samples": 10, "batch": 1000, "dims": 40}],
        {"samples": [1, 4, 16], "batch": [10, 100, 1000]},
    ),
    Benchmark(
        "coarse_grain_kl",
        f"forward + backward, {POINTS} points, order {ORDER}",
        build_kl,
        [{"batch": 100, "dims": 40}],
        [{"batch": 100, "dims": 40}, {"batch": 10_000, "dims": 40}],
        {"batch": [10, 100, 1000], "dims": [10, 40, 160]},
    ),
]
