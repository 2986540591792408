"""States of an RBM that many short chains run into from anywhere."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from dvae_ext import ops, rng
from dvae_ext.reference.rbm_temper import negative_free_energy

_CHAINS = 1024
_SWEEPS = 64


def quenched_states(weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, seed: int) -> Tensor:
    """Visible states ``[1024, n_visible]`` of chains that started as fair coins and ran 64 sweeps.

    They hold every mode with a basin of attraction that a few of a thousand coins fall into, not in their right
    proportions.
    """
    generator = Generator().manual_seed(seed & (2**63 - 1))
    coins = torch.randint(0, 2, (_CHAINS, len(visible_bias)), generator=generator, device="cpu")
    visible = coins.to(weight.device, weight.dtype)
    hidden = weight.new_zeros(_CHAINS, len(hidden_bias))
    ops.rbm_gibbs_(visible, hidden, weight, visible_bias, hidden_bias, rng.key(seed, weight.device), _SWEEPS)
    return visible


def log_z_of_states(states: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> float:
    """log of the part of Z that ``states [N, n_visible]`` hold, each counted once: a certain lower bound of log Z."""
    distinct = states.unique(dim=0).double()
    model = (weight.double(), visible_bias.double(), hidden_bias.double())
    nowhere = (torch.zeros_like(model[1]), torch.zeros_like(model[2]))
    return negative_free_energy(distinct, *model, *nowhere, distinct.new_ones(())).logsumexp(0).item()


def rounding(states: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> float:
    """What a free energy of ``states [N, n_visible]`` may lose in the dtype of ``weight``, in nats.

    Half an ulp of the sum of its terms' sizes: the same loss at every visit to a state, which no average removes.
    """
    terms = states @ visible_bias.abs() + torch.nn.functional.softplus(hidden_bias + states @ weight).sum(-1)
    return 0.5 * torch.finfo(weight.dtype).eps * terms.mean(dtype=torch.float64).item()
