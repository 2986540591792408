"""The factorial Bernoulli distribution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dvae_ext.precision import wide, without_autocast


def bernoulli_log_likelihood(value: Tensor, logits: Tensor) -> Tensor:
    """Σ log p(value) of ``value [..., D]`` in [0, 1] under ``logits [..., D]``: the leading shape.

    A logit of ±∞ is a certain variable: it adds 0 where the value agrees with it and -∞ where it does not. Computed in
    float32 or wider, whatever the dtypes and whatever autocast says.

    Example:
        >>> import torch
        >>> bernoulli_log_likelihood(torch.ones(2, 3), torch.full((2, 3), torch.inf))
        tensor([0., 0.])
    """
    value, logits = wide(value), wide(logits)
    # v l - softplus(l) about the likelier value, where nothing cancels and no two infinities meet.
    likely = logits > 0
    excess = value - likely.to(logits.dtype)
    finite = torch.where((excess == 0) & torch.isinf(logits), 0.0, logits)
    return (excess * finite - F.softplus(torch.where(likely, -logits, logits))).sum(-1)


def log_likelihood_of_samples(value: Tensor, logits: Tensor) -> Tensor:
    """The same of ``value [B, D]`` under finite ``logits [K, B, D]``: ``[K, B]``.

    Two passes over the large tensor: the inner product with the value and the sum of softplus.

    Example:
        >>> log_likelihood_of_samples(torch.ones(2, 3), torch.full((5, 2, 3), 9.0)).shape
        torch.Size([5, 2])
    """
    value, logits = wide(value), wide(logits)
    with without_autocast(logits):
        return torch.einsum("kbd,bd->kb", logits, value) - F.softplus(logits).sum(-1)
