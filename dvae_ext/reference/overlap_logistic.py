"""Overlapping logistic smoothing in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dvae_ext.precision import wide


def overlap_logistic_icdf(
    rho: Tensor, logits: Tensor, mu0: float | Tensor, mu1: float | Tensor, scale: float | Tensor
) -> Tensor:
    """See :func:`dvae_ext.ops.overlap_logistic_icdf`."""
    dtype, rho, logits = rho.dtype, wide(rho), wide(logits)
    margin = 2.0**-53 if rho.dtype == torch.float64 else 2.0**-24
    mu0, mu1, scale = (torch.as_tensor(v, dtype=rho.dtype, device=rho.device) for v in (mu0, mu1, scale))
    h = (mu1 - mu0) / (2 * scale)
    upper = (1 - rho).clamp(margin, 1)
    rho = rho.clamp(margin, 1)
    q, p = torch.sigmoid(logits), torch.sigmoid(-logits)
    shrink = torch.exp(-2 * h)
    b = torch.where(rho <= 0.5, rho * (1 + shrink) - p - q * shrink, q - upper * (1 + shrink) + p * shrink)
    tiny = torch.finfo(rho.dtype).tiny
    t_factor = (2 * torch.sqrt(rho * upper) * torch.exp(-h)).clamp(min=tiny)
    size = torch.where(b >= 0, b, -b)  # not abs(): its slope at 0 is 0
    # In the middle, where T may be 0 beside B = 0, zeta is counted from half-way; else from the nearer component.
    # where() evaluates every branch: the arguments of the unused ones are held where their gradients are finite.
    middle = size <= 0.5 * t_factor
    ratio = torch.where(middle, b, torch.zeros_like(b)) / t_factor
    central = 0.5 * (torch.log(rho) - torch.log(upper)) + torch.asinh(ratio)
    size = torch.where(middle, torch.ones_like(size), size)
    log_half = torch.log(0.5 * (size + torch.hypot(size, t_factor)))
    high = mu1 + scale * (log_half - torch.log(upper))
    low = mu0 + scale * (torch.log(rho) - log_half)
    zeta = torch.where(middle, 0.5 * (mu0 + mu1) + scale * central, torch.where(b >= 0, high, low))
    return zeta.to(dtype)


def overlap_logistic_log_prob(
    zeta: Tensor, logits: Tensor, mu0: float | Tensor, mu1: float | Tensor, scale: float | Tensor
) -> Tensor:
    """See :func:`dvae_ext.ops.overlap_logistic_log_prob`."""
    dtype, zeta, logits = zeta.dtype, wide(zeta), wide(logits)
    mu0, mu1, scale = (torch.as_tensor(v, dtype=zeta.dtype, device=zeta.device) for v in (mu0, mu1, scale))

    def log_kernel(x: Tensor) -> Tensor:
        size = torch.where(x > 0, x, -x)
        return -size - 2 * F.softplus(-size)

    zero = F.logsigmoid(-logits) + log_kernel((zeta - mu0) / scale)
    one = F.logsigmoid(logits) + log_kernel((zeta - mu1) / scale)
    return (torch.logaddexp(zero, one) - torch.log(scale)).to(dtype)
