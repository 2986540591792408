"""KL divergence between coarse-grained densities in plain PyTorch."""

from __future__ import annotations

from torch import Tensor

from dvae_ext.precision import wide
from dvae_ext.reference.coarse_grain_sample import coarse_grain_logits


def coarse_grain_kl(q_coefficients: Tensor, p_coefficients: Tensor, num_points: int = 101) -> Tensor:
    """See :func:`dvae_ext.ops.coarse_grain_kl`."""
    log_q = coarse_grain_logits(wide(q_coefficients), num_points).log_softmax(-1)
    log_p = coarse_grain_logits(wide(p_coefficients), num_points).log_softmax(-1)
    return (log_q.exp() * (log_q - log_p)).sum(-1).to(q_coefficients.dtype)
