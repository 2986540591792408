"""The mutual posterior-divergence regularisers of MAE in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dvae_ext.precision import wide
from dvae_ext.reference.pairwise_kl_normal import pairwise_kl_normal_by_dimension


def mutual_posterior_divergence(mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`dvae_ext.ops.mutual_posterior_divergence`."""
    off_diagonal = ~torch.eye(mean.shape[0], dtype=torch.bool, device=mean.device)
    kl = pairwise_kl_normal_by_dimension(wide(mean), wide(logvar))
    diverse = F.softplus(-kl).sum(-1)[off_diagonal].mean()
    total = kl.sum(-1)[off_diagonal]
    mpd = total.mean()
    # Beside an infinite divergence the deviations are differences of infinities.
    finite = torch.where(mpd.isfinite(), total, torch.zeros_like(total))
    smooth = torch.where(mpd.isfinite(), finite.std(), mpd.detach())
    return diverse.to(mean.dtype), smooth.to(mean.dtype), mpd.to(mean.dtype)
