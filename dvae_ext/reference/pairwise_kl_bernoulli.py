"""KL divergence of every pair of factorial Bernoulli distributions in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dvae_ext.precision import wide


def pairwise_kl_bernoulli(logits: Tensor) -> Tensor:
    """See :func:`dvae_ext.ops.pairwise_kl_bernoulli`."""
    dtype, logits = logits.dtype, wide(logits)
    certain = torch.isinf(logits)
    finite = torch.where(certain, torch.zeros_like(logits), logits)
    softplus = F.softplus(finite)
    # By symmetry as if the first logit were not positive: where the difference overflows, its factor is then 0.
    sign = torch.where(finite > 0, -1.0, 1.0).to(finite)[:, None]
    first, second = sign * finite[:, None], sign * finite[None]
    largest = torch.finfo(finite.dtype).max
    difference = (first - second).clamp(-largest, largest)
    kl = F.softplus(second) - F.softplus(first) + torch.sigmoid(first) * difference
    # From a certain variable the KL is -log of the other's probability of it; to one it is infinite, to itself 0.
    from_certain = torch.where(logits[:, None] < 0, softplus[None], F.softplus(-finite)[None])
    kl = torch.where(certain[:, None], from_certain, kl)
    to_certain = torch.where(logits[:, None].isnan(), torch.nan, torch.inf)
    kl = torch.where(certain[None] & (logits[:, None] != logits[None]), to_certain.to(kl.dtype), kl)
    return torch.where(certain[None] & (logits[:, None] == logits[None]), torch.zeros_like(kl), kl).sum(-1).to(dtype)
