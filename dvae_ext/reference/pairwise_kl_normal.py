"""KL divergence of every pair of diagonal normals in plain PyTorch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dvae_ext.precision import wide


def pairwise_kl_normal_by_dimension(mean: Tensor, logvar: Tensor) -> Tensor:
    """``[batch, batch, dims]``, the divergences before their sum over dimensions."""
    difference = logvar[:, None] - logvar[None]
    # Beyond the limit exp(d) is infinite. Its slope stays a finite number, so that a gradient of 0 switches it off.
    limit = math.log(torch.finfo(difference.dtype).max) - 1e-4
    beyond = (difference.detach() - limit).clamp(min=0)
    growth = torch.expm1(difference - beyond) + torch.where(beyond > 0, torch.inf, 0.0)
    # The precision in four factors: none overflows where the product does not.
    root = torch.exp(-0.25 * logvar)[None]
    return 0.5 * (growth - difference + ((mean[:, None] - mean[None]) * root * root) ** 2)


def pairwise_kl_normal(mean: Tensor, logvar: Tensor) -> Tensor:
    """See :func:`dvae_ext.ops.pairwise_kl_normal`."""
    return pairwise_kl_normal_by_dimension(wide(mean), wide(logvar)).sum(-1).to(mean.dtype)
