"""Annealed importance sampling of an RBM's partition function."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn.functional import softplus


@torch.no_grad()
def annealed_log_weights(
    weight: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    num_betas: int = 1000,
    chains: int = 1024,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Log importance weights ``[chains]`` of one annealing pass; the mean of their exponentials estimates Z.

    The path scales the weights by ``num_betas`` equal steps from 0 to 1 and leaves the biases as they are, so that it
    starts from independent units of known normalisation (Neal 2001; Salakhutdinov and Murray 2008, section 4). The
    increments are taken on the marginal of the visible units.
    """

    def uniform(size: int) -> Tensor:
        return torch.rand(chains, size, device=weight.device, dtype=weight.dtype, generator=generator)

    def bernoulli(logits: Tensor) -> Tensor:
        return (uniform(logits.shape[-1]) < torch.sigmoid(logits)).to(weight.dtype)

    betas = torch.linspace(0, 1, num_betas + 1, dtype=torch.float64).tolist()
    visible = bernoulli(visible_bias.expand(chains, -1))
    log_weight = (softplus(visible_bias.double()).sum() + softplus(hidden_bias.double()).sum()).expand(chains).clone()
    for before, after in itertools.pairwise(betas):
        field = visible @ weight
        at_after = hidden_bias + after * field
        log_weight += (softplus(at_after) - softplus(hidden_bias + before * field)).sum(1, dtype=torch.float64)
        if after < 1:
            hidden = bernoulli(at_after)
            visible = bernoulli(visible_bias + after * (hidden @ weight.T))
    return log_weight
