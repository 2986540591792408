"""Mixtures of independent units: what replicas are proposed to jump to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

_ROUNDS = 6  # of expectation maximisation, from seeds that are states
_COINS = 0.2  # fair observations beside those of each component: no unit is ever certain


@dataclass(frozen=True)
class Mixture:
    """One mixture for each level: ``log_weight [levels, K]`` and ``logits [levels, K, units]`` of its components.

    In float64, like the states that it takes and gives.

    Example:
        >>> states = torch.eye(2).repeat(1, 50, 1).double()
        >>> mixture = Mixture.fit(states, 2, torch.Generator().manual_seed(0))
        >>> torch.sigmoid(mixture.logits).round()[0].sum(0)
        tensor([1., 1.], dtype=torch.float64)
    """

    log_weight: Tensor
    logits: Tensor

    @staticmethod
    def fit(states: Tensor, components: int, generator: Generator) -> Mixture:
        """To ``states [levels, N, units]`` of zeros and ones, by expectation maximisation.

        It starts from states far apart (k-means++, Arthur and Vassilvitskii 2007), so that small modes far from the
        others have a component too.
        """
        # In float64 and rounded at the end: the same for any number of threads and any precision of products.
        states = states.double()
        levels, count, _ = states.shape
        each = torch.arange(levels, device=states.device)
        ones = states.sum(-1)
        distance = torch.ones_like(ones)
        centres = []
        for _ in range(components):
            cumulative = (distance.square() + 1e-9).cumsum(1)
            uniform = torch.rand(levels, 1, generator=generator, dtype=torch.float64, device="cpu").to(states.device)
            chosen = torch.searchsorted(cumulative, uniform * cumulative[:, -1:]).clamp(max=count - 1)[:, 0]
            centres.append(states[each, chosen])
            apart = ones + ones[each, chosen, None] - 2 * (states @ centres[-1][..., None])[..., 0]
            distance = apart if len(centres) == 1 else torch.minimum(distance, apart)
        logits = torch.logit(0.05 + 0.9 * torch.stack(centres, 1))
        mixture = Mixture(torch.full_like(logits[..., 0], -math.log(components)), logits)
        for _ in range(_ROUNDS):
            share = mixture.log_joint(states).softmax(-1)
            size = share.sum(1)
            mean = (share.mT @ states + 0.5 * _COINS) / (size + _COINS)[..., None]
            mixture = Mixture(torch.log((size + 1) / (count + components)), torch.logit(mean))
        log_weight, logits = (torch.round(64 * part) / 64 for part in (mixture.log_weight, mixture.logits))
        return Mixture(log_weight.log_softmax(-1), logits)

    @staticmethod
    def independent(states: Tensor) -> Mixture:
        """The one component with the marginals of ``states [levels, N, units]``."""
        mean = (states.sum(1, dtype=torch.float64) + 0.5 * _COINS) / (states.shape[1] + _COINS)
        logits = torch.logit(mean)[:, None]
        return Mixture(torch.zeros_like(logits[..., 0]), logits)

    @staticmethod
    def of(parts: list[tuple[float, Mixture]]) -> Mixture:
        """A mixture of mixtures; those of one level serve all levels."""
        levels = max(len(part.log_weight) for _, part in parts)
        return Mixture(
            torch.cat([(part.log_weight + math.log(weight)).expand(levels, -1) for weight, part in parts], 1),
            torch.cat([part.logits.expand(levels, -1, -1) for _, part in parts], 1),
        )

    @staticmethod
    def stack(parts: list[Mixture]) -> Mixture:
        """The levels of all parts, one after the other."""
        return Mixture(torch.cat([part.log_weight for part in parts]), torch.cat([part.logits for part in parts]))

    def log_joint(self, states: Tensor) -> Tensor:
        """log of weight times probability of ``states [levels, N, units]`` in each component: ``[levels, N, K]``."""
        constant = self.log_weight - softplus(self.logits).sum(-1)
        return states @ self.logits.mT + constant[:, None]

    def log_prob(self, states: Tensor) -> Tensor:
        """``[levels, N]`` of ``states [levels, N, units]``."""
        return self.log_joint(states).logsumexp(-1)

    def sample(self, uniform: Tensor) -> Tensor:
        """States ``[levels, N, units]`` made of ``uniform [levels, N, 1 + units]``, numbers in [0, 1)."""
        cumulative = self.log_weight.exp().cumsum(-1)
        chosen = torch.searchsorted(cumulative, (uniform[..., 0] * cumulative[:, -1:]).contiguous())
        chosen = chosen.clamp(max=cumulative.shape[1] - 1)[..., None].expand(-1, -1, self.logits.shape[-1])
        return (uniform[..., 1:] < torch.sigmoid(self.logits.gather(1, chosen))).to(self.logits.dtype)
