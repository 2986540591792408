"""Spike-and-exponential smoothing in plain PyTorch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dvae_ext.precision import wide


def spike_exponential_icdf(rho: Tensor, logits: Tensor, beta: float | Tensor) -> Tensor:
    """See :func:`dvae_ext.ops.spike_exponential_icdf`."""
    dtype, rho, logits = rho.dtype, wide(rho), wide(logits)
    beta = torch.as_tensor(beta, dtype=rho.dtype, device=rho.device)
    # log1p(-1) would put a NaN into the gradient of elements with rho = 1, where t = 1 whatever the finite logits are.
    certain = rho >= 1
    t = -torch.expm1(torch.log1p(-torch.where(certain, torch.zeros_like(rho), rho)) + F.softplus(-logits))
    t = torch.where(certain, (logits > -math.inf).to(t.dtype), t)
    above = t.clamp(min=0)
    weight = above + (1 - above) * torch.exp(-beta)
    zeta = 1 + torch.log(weight) / beta
    small = torch.log1p(above * torch.expm1(beta.clamp(max=80))) / beta
    near = (above * torch.expm1(beta.clamp(max=80)) < 1) & (beta < 80)
    return torch.where(t <= 0, torch.zeros_like(zeta), torch.where(near, small, zeta).clamp(0, 1)).to(dtype)
