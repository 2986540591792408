"""The factorial Bernoulli distribution."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bernoulli_log_likelihood(value: Tensor, logits: Tensor) -> Tensor:
    """Σ log p(value) of ``value [..., D]`` in [0, 1] under ``logits [..., D]``: the leading shape.

    Example:
        >>> import torch
        >>> bernoulli_log_likelihood(torch.ones(2, 3), torch.full((2, 3), 100.0))
        tensor([0., 0.])
    """
    return (value * logits - F.softplus(logits)).sum(-1)
