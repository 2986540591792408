"""The factorial Bernoulli distribution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dvae_ext.precision import wide


def bernoulli_log_likelihood(value: Tensor, logits: Tensor) -> Tensor:
    """Σ log p(value) of ``value [..., D]`` in [0, 1] under ``logits [..., D]``: the leading shape.

    A logit of ±∞ is a certain variable: it adds 0 where the value agrees with it and -∞ where it does not. Computed in
    float32 or wider, whatever the dtypes and whatever autocast says.

    Example:
        >>> import torch
        >>> bernoulli_log_likelihood(torch.ones(2, 3), torch.full((2, 3), 100.0))
        tensor([0., 0.])
    """
    value, logits = wide(value), wide(logits)
    # v l - softplus(l) about the likelier value, where nothing cancels and no two infinities meet.
    likely = logits > 0
    excess = value - likely.to(logits.dtype)
    finite = torch.where((excess == 0) & torch.isinf(logits), 0.0, logits)
    return (excess * finite - F.softplus(torch.where(likely, -logits, logits))).sum(-1)
