"""log Z of a restricted Boltzmann machine by enumeration, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 1 << 14


def rbm_log_z_exact(weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> Tensor:
    """Direct enumeration of the smaller side: a float64 scalar, differentiable by autograd.

    Same arguments as :func:`dvae_ext.ops.rbm_log_z_exact`; memory is ``2^14`` states times the larger side.
    """
    weight, visible_bias, hidden_bias = (x.to(torch.float64) for x in (weight, visible_bias, hidden_bias))
    if weight.shape[0] <= weight.shape[1]:
        enumerated_bias, summed_bias = visible_bias, hidden_bias
    else:
        weight, enumerated_bias, summed_bias = weight.T, hidden_bias, visible_bias
    bits = torch.arange(weight.shape[0], device=weight.device)
    parts = []
    for states in torch.arange(1 << weight.shape[0], device=weight.device).split(_CHUNK):
        on = (states[:, None] >> bits & 1).to(torch.float64)
        field = on @ weight + summed_bias  # torch's softplus drops e^-20; logaddexp keeps it
        negative_energy = on @ enumerated_bias + torch.logaddexp(field, torch.zeros_like(field)).sum(1)
        parts.append(torch.logsumexp(negative_energy, 0))
    return torch.logsumexp(torch.stack(parts), 0)
