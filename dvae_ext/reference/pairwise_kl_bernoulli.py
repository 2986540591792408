"""KL divergence of every pair of factorial Bernoulli distributions in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pairwise_kl_bernoulli(logits: Tensor) -> Tensor:
    """See :func:`dvae_ext.ops.pairwise_kl_bernoulli`."""
    difference = logits[:, None] - logits[None]
    softplus = F.softplus(logits)
    return (softplus[None] - softplus[:, None] + torch.sigmoid(logits)[:, None] * difference).sum(-1)
