"""Overlapping logistic smoothing in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def overlap_logistic_icdf(
    rho: Tensor, logits: Tensor, mu0: float | Tensor, mu1: float | Tensor, scale: float | Tensor
) -> Tensor:
    """See :func:`dvae_ext.ops.overlap_logistic_icdf`."""
    margin = 2.0**-53 if rho.dtype == torch.float64 else 2.0**-24
    mu0, mu1, scale = (torch.as_tensor(v, dtype=rho.dtype, device=rho.device) for v in (mu0, mu1, scale))
    h = (mu1 - mu0) / (2 * scale)
    upper = (1 - rho).clamp(margin, 1)
    rho = rho.clamp(margin, 1)
    q, p = torch.sigmoid(logits), torch.sigmoid(-logits)
    shrink = torch.exp(-2 * h)
    b = torch.where(rho <= 0.5, rho * (1 + shrink) - p - q * shrink, q - upper * (1 + shrink) + p * shrink)
    root = torch.hypot(b, 2 * torch.sqrt(rho * upper) * torch.exp(-h))
    log_half = torch.log(0.5 * (b.abs() + root))
    t = torch.where(b >= 0, h - torch.log(upper) + log_half, torch.log(rho) - h - log_half)
    return 0.5 * (mu0 + mu1) + scale * t


def overlap_logistic_log_prob(
    zeta: Tensor, logits: Tensor, mu0: float | Tensor, mu1: float | Tensor, scale: float | Tensor
) -> Tensor:
    """See :func:`dvae_ext.ops.overlap_logistic_log_prob`."""
    scale = torch.as_tensor(scale, dtype=zeta.dtype, device=zeta.device)

    def log_kernel(x: Tensor) -> Tensor:
        return -x - 2 * F.softplus(-x)

    zero = F.logsigmoid(-logits) + log_kernel((zeta - mu0) / scale)
    one = F.logsigmoid(logits) + log_kernel((zeta - mu1) / scale)
    return torch.logaddexp(zero, one) - torch.log(scale)
