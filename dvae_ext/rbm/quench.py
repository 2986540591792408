"""States of an RBM that many short chains run into from anywhere."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from dvae_ext import ops, rng
from dvae_ext.reference.rbm_temper import negative_free_energy

_CHAINS = 4096
_SWEEPS = 64
_DEEP = 32  # states that chains start from again
_COPIES = 32  # of each
_APART = 2**40  # sweeps from the draws of whoever else has the seed


def quenched_states(weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, seed: int) -> Tensor:
    """Visible states ``[4096, n_visible]`` of chains that started as fair coins and ran 64 sweeps.

    They hold every mode with a basin of attraction that a few of the coins fall into, not in their right
    proportions.
    """
    generator = Generator().manual_seed(seed + _APART & (2**63 - 1))
    coins = torch.randint(0, 2, (_CHAINS, len(visible_bias)), generator=generator, device="cpu")
    visible = coins.to(weight.device, weight.dtype)
    _run(visible, weight, visible_bias, hidden_bias, seed, _APART)
    return visible


def deep_states(states: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, seed: int) -> Tensor:
    """Visible states ``[N, n_visible]`` of chains that started from the likeliest of ``states``, far from each other.

    A narrow mode that one of the coins fell into has as many chains here as any other, whatever wide regions
    hold the rest of the coins.
    """
    distinct = states.unique(dim=0)
    model = weight, visible_bias, hidden_bias
    depth = _log_unnormalised(distinct, *model)
    apart = max(2, len(visible_bias) // 8)
    starts: list[Tensor] = []
    while len(starts) < _DEEP and bool((depth > -torch.inf).any()):
        starts.append(distinct[depth.argmax()])
        near = (distinct - starts[-1]).abs().sum(-1) < apart
        depth = depth.masked_fill(near, -torch.inf)
    visible = torch.stack(starts).repeat_interleave(_COPIES, 0)
    _run(visible, *model, seed, _APART + _SWEEPS)
    return visible


def _run(
    visible: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, seed: int, first_sweep: int
) -> None:
    hidden = weight.new_zeros(len(visible), len(hidden_bias))
    key = rng.advance_(rng.key(seed, weight.device), first_sweep)
    ops.rbm_gibbs_(visible, hidden, weight, visible_bias, hidden_bias, key, _SWEEPS)


def log_z_of_states(states: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> float:
    """log of the part of Z that ``states [N, n_visible]`` hold, each counted once: a certain lower bound of log Z."""
    return _log_unnormalised(states.unique(dim=0), weight, visible_bias, hidden_bias).logsumexp(0).item()


def _log_unnormalised(states: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> Tensor:
    """log of the unnormalised probability of each row, in float64."""
    states, model = states.double(), (weight.double(), visible_bias.double(), hidden_bias.double())
    nowhere = (torch.zeros_like(model[1]), torch.zeros_like(model[2]))
    return negative_free_energy(states, *model, *nowhere, states.new_ones(()))


def rounding(states: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> float:
    """What a free energy of ``states [N, n_visible]`` may lose in the dtype of ``weight``, in nats.

    Half an ulp of the sum of its terms' sizes: the same loss at every visit to a state, which no average removes.
    """
    terms = states @ visible_bias.abs() + torch.nn.functional.softplus(hidden_bias + states @ weight).sum(-1)
    return 0.5 * torch.finfo(weight.dtype).eps * terms.mean(dtype=torch.float64).item()
