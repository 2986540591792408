"""Parallel tempering of a restricted Boltzmann machine, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dvae_ext.precision import without_autocast


def _softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


def negative_free_energy(
    visible: Tensor,
    weight: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    reference_visible_bias: Tensor,
    reference_hidden_bias: Tensor,
    beta: Tensor,
) -> Tensor:
    """log of the unnormalised marginal probability of ``visible`` on the path at ``beta``, which broadcasts."""
    beta = beta[..., None]
    with without_autocast(weight):
        field = (1 - beta) * reference_hidden_bias + beta * (visible @ weight + hidden_bias)
    bias = (1 - beta) * reference_visible_bias + beta * visible_bias
    return (visible * bias).sum(-1) + _softplus(field).sum(-1)


def rbm_temper_(
    visible: Tensor,
    level: Tensor,
    travel: Tensor,
    statistics: Tensor,
    weight: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    reference_visible_bias: Tensor,
    reference_hidden_bias: Tensor,
    betas: Tensor,
    shifts: Tensor,
    key: Tensor,
    sweeps: int,
    batch: int = 1,
    first_ladder: int = 0,
    free_energy: Callable[..., Tensor] = negative_free_energy,
) -> None:
    """The same chain as :func:`dvae_ext.ops.rbm_temper_`, with torch's draws in place of the counter's.

    ``free_energy`` is what swaps are accepted on; tests put a wrong one here to show that they would notice.
    """
    del first_ladder
    model = (weight, visible_bias, hidden_bias, reference_visible_bias, reference_hidden_bias)
    generator = torch.Generator(device=visible.device).manual_seed(int(key.sum()) & (2**63 - 1))
    ladders, levels, _ = visible.shape
    batch_sum = torch.zeros(ladders, levels, dtype=torch.float64, device=visible.device)

    def bernoulli(logits: Tensor) -> Tensor:
        uniform = torch.rand(logits.shape, generator=generator, dtype=logits.dtype, device=logits.device)
        return (uniform < torch.sigmoid(logits)).to(logits.dtype)

    for sweep in range(sweeps):
        if levels > 1:
            order = level.argsort(1)  # replica at each level
            at_level = visible.gather(1, order[..., None].expand_as(visible))
            lower, upper = betas[:-1].to(visible.dtype), betas[1:].to(visible.dtype)
            forward = free_energy(at_level[:, :-1], *model, upper) - free_energy(at_level[:, :-1], *model, lower)
            reverse = free_energy(at_level[:, 1:], *model, lower) - free_energy(at_level[:, 1:], *model, upper)
            forward, reverse = forward.double(), reverse.double()
            acceptance = torch.exp((forward + reverse).clamp(max=0))
            statistics[:, 0, :-1] = torch.logaddexp(statistics[:, 0, :-1], forward)
            statistics[:, 1, :-1] = torch.logaddexp(statistics[:, 1, :-1], reverse)
            statistics[:, 2, :-1] += torch.sigmoid(forward - shifts)
            statistics[:, 3, :-1] += torch.sigmoid(reverse + shifts)
            statistics[:, 4, :-1] += acceptance
            x = torch.cat([forward - shifts, -reverse[:, -1:] - shifts[-1]], 1)
            statistics[:, 5] += x
            statistics[:, 6] += x**2
            batch_sum += x
            uniform = torch.rand(acceptance.shape, generator=generator, dtype=torch.float64, device=visible.device)
            active = torch.arange(levels - 1, device=visible.device) % 2 == (int(key[1]) + sweep) % 2
            swap = (uniform < acceptance) & active
            down = torch.nn.functional.pad(swap, (0, 1))  # the replica at this level goes up
            up = torch.nn.functional.pad(swap, (1, 0))
            new_level = torch.arange(levels, device=visible.device) + down.long() - up.long()
            level.scatter_(1, order, new_level)
            bottom, top = level == 0, level == levels - 1
            statistics[:, 8] += (bottom & (travel == 2)).double()
            travel.masked_fill_(bottom, 1)
            travel.masked_fill_(top & (travel == 1), 2)
        if (sweep + 1) % batch == 0:
            statistics[:, 7] += batch_sum**2
            batch_sum.zero_()
        beta = betas[level].to(visible.dtype)[..., None]
        with without_autocast(weight):
            hidden = bernoulli((1 - beta) * reference_hidden_bias + beta * (visible @ weight + hidden_bias))
            visible.copy_(bernoulli((1 - beta) * reference_visible_bias + beta * (hidden @ weight.T + visible_bias)))
