"""Exact sums over all binary states, for tests."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from dvae_ext.rbm import RBM


def all_states(units: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Every binary vector: ``[2 ** units, units]``."""
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=units)), dtype=dtype)


def exact_log_z(rbm: RBM) -> Tensor:
    """log Σ exp(−E) over all states, differentiable."""
    states = all_states(rbm.n_visible + rbm.n_hidden, rbm.weight.dtype)
    return torch.logsumexp(-rbm.energy(states[:, : rbm.n_visible], states[:, rbm.n_visible :]), 0)


def random_rbm(n_visible: int, n_hidden: int, scale: float = 1.0, seed: int = 0) -> RBM:
    """A float64 RBM with normal parameters."""
    generator = torch.Generator().manual_seed(seed)
    rbm = RBM(n_visible, n_hidden, dtype=torch.float64)
    with torch.no_grad():
        for parameter in rbm.parameters():
            parameter.normal_(0, scale, generator=generator)
    return rbm
