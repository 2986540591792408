"""Annealed importance sampling of an RBM's partition function."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import softplus

from dvae_ext import ops, rng
from dvae_ext.precision import without_autocast


@torch.no_grad()
def annealed_log_weights(
    weight: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    num_betas: int = 1000,
    chains: int = 1024,
    seed: int | None = None,
) -> Tensor:
    """Log importance weights ``[chains]`` of one annealing pass; the mean of their exponentials estimates Z.

    The path scales the weights by ``num_betas`` equal steps from 0 to 1 and leaves the biases as they are, so that it
    starts from independent units of known normalisation (Neal 2001; Salakhutdinov and Murray 2008, section 4). The
    increments are taken on the marginal of the visible units; a step moves the chains by one sweep.
    """
    key = rng.key(seed, weight.device)
    nowhere = torch.zeros_like(weight)
    visible = weight.new_zeros(chains, len(visible_bias))
    hidden = weight.new_zeros(chains, len(hidden_bias))
    ops.rbm_gibbs_(visible, hidden, nowhere, visible_bias, hidden_bias, key, 1)  # an exact draw of independent units
    rng.advance_(key, 1)
    biases = torch.cat([visible_bias, hidden_bias]).double()
    log_weight = softplus(biases).sum().expand(chains).clone()
    for before, after in pairwise(torch.linspace(0, 1, num_betas + 1, dtype=torch.float64).tolist()):
        with without_autocast(weight):
            field = visible @ weight
        increment = softplus(hidden_bias + after * field) - softplus(hidden_bias + before * field)
        log_weight += increment.sum(1, dtype=torch.float64)
        if after < 1:
            ops.rbm_gibbs_(visible, hidden, after * weight, visible_bias, hidden_bias, key, 1)
            rng.advance_(key, 1)
    return log_weight
