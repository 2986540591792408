"""Factorial Bernoulli terms, all from logits and summed over the last dimension."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def bernoulli_log_likelihood(value: Tensor, logits: Tensor) -> Tensor:
    """Σ log p(value) of ``value [..., D]`` in [0, 1] under ``logits [..., D]``: the leading shape.

    Example:
        >>> bernoulli_log_likelihood(torch.ones(2, 3), torch.full((2, 3), 100.0))
        tensor([0., 0.])
    """
    return (value * logits - F.softplus(logits)).sum(-1)


def bernoulli_kl(logits_q: Tensor, logits_p: Tensor) -> Tensor:
    """Σ KL(q ‖ p) of two factorial Bernoullis with logits of shape ``[..., n]``: the leading shape.

    Example:
        >>> bernoulli_kl(torch.zeros(4), torch.zeros(4))
        tensor(0.)
    """
    q = torch.sigmoid(logits_q)
    return (q * (logits_q - logits_p) - F.softplus(logits_q) + F.softplus(logits_p)).sum(-1)
