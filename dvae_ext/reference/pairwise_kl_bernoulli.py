"""KL divergence of every pair of factorial Bernoulli distributions in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pairwise_kl_bernoulli(logits: Tensor) -> Tensor:
    """See :func:`dvae_ext.ops.pairwise_kl_bernoulli`."""
    certain = torch.isinf(logits)
    finite = torch.where(certain, torch.zeros_like(logits), logits)
    difference = finite[:, None] - finite[None]
    softplus = F.softplus(finite)
    kl = softplus[None] - softplus[:, None] + torch.sigmoid(finite)[:, None] * difference
    # From a certain variable the KL is -log of the other's probability of it; to one it is infinite, to itself 0.
    from_certain = torch.where(logits[:, None] < 0, softplus[None], F.softplus(-finite)[None])
    kl = torch.where(certain[:, None], from_certain, kl)
    to_certain = torch.where(logits[:, None].isnan(), torch.nan, torch.inf)
    kl = torch.where(certain[None] & (logits[:, None] != logits[None]), to_certain.to(kl.dtype), kl)
    return torch.where(certain[None] & (logits[:, None] == logits[None]), torch.zeros_like(kl), kl).sum(-1)
