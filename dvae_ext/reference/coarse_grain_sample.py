"""Coarse-grained densities in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from dvae_ext.precision import wide, without_autocast
from dvae_ext.reference.philox import philox4x32, six_uniforms, split_key

# Perturbed logits that differ at all differ by so much more that a lower temperature has the limit's samples.
_LOWEST_TEMPERATURE = 1e-20


def grid(num_points: int, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """The R equidistant points on [-1, 1] (CG-BPEF-VAE section 3.2)."""
    index = torch.arange(num_points, dtype=dtype, device=device)
    return (2 * index - (num_points - 1)) / (num_points - 1)


def coarse_grain_logits(coefficients: Tensor, num_points: int) -> Tensor:
    """Σ_m c_m ζ_r^m: ``[..., num_points]`` from ``[..., order]``."""
    points = grid(num_points, coefficients.dtype, coefficients.device)
    powers = torch.stack([points**m for m in range(1, coefficients.shape[-1] + 1)])
    with without_autocast(coefficients):
        return coefficients @ powers


def coarse_grain_noise(
    batch: int, dims: int, key: Tensor, num_points: int, num_samples: int, dtype: torch.dtype
) -> Tensor:
    """The Gumbel variates ``[num_samples, batch, dims, num_points]`` that the kernels make from a key."""
    samples = num_samples * batch * dims
    row = torch.arange(samples, device=key.device)[:, None]
    calls = torch.arange(-(-num_points // 6), device=key.device)
    seed, offset = split_key(key)
    words = philox4x32((calls, row, *offset), seed)
    uniform = six_uniforms(words, dtype).reshape(samples, -1)[:, :num_points]
    return -torch.log(-torch.log(uniform)).reshape(num_samples, batch, dims, num_points)


def coarse_grain_sample(
    coefficients: Tensor, key: Tensor, temperature: float, num_points: int = 101, num_samples: int = 1
) -> Tensor:
    """See :func:`dvae_ext.ops.coarse_grain_sample`: the same draws from the same key."""
    batch, dims, _ = coefficients.shape
    dtype, coefficients = coefficients.dtype, wide(coefficients)
    noise = coarse_grain_noise(batch, dims, key, num_points, num_samples, coefficients.dtype)
    perturbed = coarse_grain_logits(coefficients, num_points) + noise
    # The largest becomes 0 before the division, which may overflow.
    perturbed = perturbed - perturbed.detach().amax(-1, keepdim=True)
    weights = torch.softmax(perturbed / max(temperature, _LOWEST_TEMPERATURE), dim=-1)
    with without_autocast(weights):
        return (weights @ grid(num_points, weights.dtype, weights.device)).to(dtype)
