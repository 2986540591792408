"""Overlapping exponential smoothing in plain PyTorch, in the forms that hold at every logit (no division by 1 - q)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def overlap_exponential_icdf(rho: Tensor, logits: Tensor, beta: float | Tensor) -> Tensor:
    """See :func:`dvae_ext.ops.overlap_exponential_icdf`."""
    beta = torch.as_tensor(beta, dtype=rho.dtype, device=rho.device)
    q, p = torch.sigmoid(logits), torch.sigmoid(-logits)
    e, d = torch.exp(-beta), -torch.expm1(-beta)
    upper = 1 - rho
    b = torch.where(rho <= 0.5, rho * d + q * e - p, q - upper * d - p * e)
    log_t = math.log(2) - 0.5 * (F.softplus(logits) + F.softplus(-logits)) - 0.5 * beta
    root = torch.hypot(b, torch.exp(log_t))
    from_zero = 2 * rho * d / (p + q * e + rho * d + root)
    from_one = 2 * upper * d / (q + p * e + upper * d + root)
    log_half = torch.log(0.5 * (root + b.abs()))
    middle = torch.where(b <= 0, -(log_half + F.softplus(logits)) / beta, 1 + (log_half + F.softplus(-logits)) / beta)
    # where() evaluates every branch: the arguments of the unused logarithms are held where their gradients are finite.
    low = -torch.log1p(-from_zero.clamp(max=0.75)) / beta
    high = 1 + torch.log1p(-from_one.clamp(max=0.75)) / beta
    zeta = torch.where(from_zero <= 0.5, low, torch.where(from_one <= 0.5, high, middle))
    return zeta.clamp(0, 1)


def overlap_exponential_log_prob(zeta: Tensor, logits: Tensor, beta: float | Tensor) -> Tensor:
    """See :func:`dvae_ext.ops.overlap_exponential_log_prob`."""
    beta = torch.as_tensor(beta, dtype=zeta.dtype, device=zeta.device)
    log_ratio = beta * (2 * zeta - 1)
    certain = torch.isinf(logits)
    logits = torch.where(certain, logits.sign(), logits)  # any finite value: where() below takes the limit
    posterior = torch.where(certain, (logits > 0) * log_ratio, F.softplus(logits + log_ratio) - F.softplus(logits))
    log_prob = torch.log(beta) - torch.log(-torch.expm1(-beta)) - beta * zeta + posterior
    outside = (zeta < 0) | (zeta > 1)
    return torch.where(outside, torch.full_like(log_prob, -math.inf), log_prob)
