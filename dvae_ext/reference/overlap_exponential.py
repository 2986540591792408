"""Overlapping exponential smoothing in plain PyTorch, in the forms that hold at every logit (no division by 1 - q)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dvae_ext.precision import wide


def overlap_exponential_icdf(rho: Tensor, logits: Tensor, beta: float | Tensor) -> Tensor:
    """See :func:`dvae_ext.ops.overlap_exponential_icdf`."""
    dtype, rho, logits = rho.dtype, wide(rho), wide(logits)
    beta = torch.as_tensor(beta, dtype=rho.dtype, device=rho.device)
    q, p = torch.sigmoid(logits), torch.sigmoid(-logits)
    e, d = torch.exp(-beta), -torch.expm1(-beta)
    upper = 1 - rho
    b = torch.where(rho <= 0.5, rho * d + q * e - p, q - upper * d - p * e)
    log_t = math.log(2) - 0.5 * (F.softplus(logits) + F.softplus(-logits)) - 0.5 * beta
    t = torch.exp(log_t).clamp(min=torch.finfo(rho.dtype).tiny)
    root = torch.hypot(b, t)
    from_zero = 2 * rho * d / (p + q * e + rho * d + root)
    from_one = 2 * upper * d / (q + p * e + upper * d + root)
    # where() evaluates every branch: the arguments of the unused ones are held where their gradients are finite.
    size = torch.where(b > 0, b, -b)  # not abs(): its slope at 0 is 0
    tied = size <= 0.5 * t  # T may be 0 beside B = 0
    central = 0.5 + (torch.asinh(torch.where(tied, b, torch.zeros_like(b)) / t) - 0.5 * logits) / beta
    size = torch.where(tied, torch.ones_like(size), size)
    log_half = torch.log(0.5 * (size + torch.hypot(size, t)))
    side = torch.where(b <= 0, -(log_half + F.softplus(logits)) / beta, 1 + (log_half + F.softplus(-logits)) / beta)
    middle = torch.where(tied, central, side)
    low = -torch.log1p(-from_zero.clamp(max=0.75)) / beta
    high = 1 + torch.log1p(-from_one.clamp(max=0.75)) / beta
    zeta = torch.where(from_zero <= 0.5, low, torch.where(from_one <= 0.5, high, middle))
    return zeta.clamp(0, 1).to(dtype)


def overlap_exponential_log_prob(zeta: Tensor, logits: Tensor, beta: float | Tensor) -> Tensor:
    """See :func:`dvae_ext.ops.overlap_exponential_log_prob`."""
    dtype, zeta, logits = zeta.dtype, wide(zeta), wide(logits)
    beta = torch.as_tensor(beta, dtype=zeta.dtype, device=zeta.device)
    log_ratio = beta * (2 * zeta - 1)
    certain = torch.isinf(logits)
    logits = torch.where(certain, logits.sign(), logits)  # any finite value: where() below takes the limit
    posterior = torch.where(certain, (logits > 0) * log_ratio, F.softplus(logits + log_ratio) - F.softplus(logits))
    log_prob = torch.log(beta) - torch.log(-torch.expm1(-beta)) - beta * zeta + posterior
    outside = (zeta < 0) | (zeta > 1)
    return torch.where(outside, torch.full_like(log_prob, -math.inf), log_prob).to(dtype)
