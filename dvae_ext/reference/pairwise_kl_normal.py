"""KL divergence of every pair of diagonal normals in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def pairwise_kl_normal_by_dimension(mean: Tensor, logvar: Tensor) -> Tensor:
    """``[batch, batch, dims]``, the divergences before their sum over dimensions."""
    difference = logvar[:, None] - logvar[None]
    scaled = (mean[:, None] - mean[None]) ** 2 * torch.exp(-logvar)[None]
    return 0.5 * (torch.expm1(difference) - difference + scaled)


def pairwise_kl_normal(mean: Tensor, logvar: Tensor) -> Tensor:
    """See :func:`dvae_ext.ops.pairwise_kl_normal`."""
    return pairwise_kl_normal_by_dimension(mean, logvar).sum(-1)
