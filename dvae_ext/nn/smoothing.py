"""The smoothing transformations as a model uses them: reparameterised samples and the posterior of the bits.

The classes take the inverse CDF of their family, that of :mod:`dvae_ext.ops` or of :mod:`dvae_ext.reference`. They cost
less per step than the distributions, which check and broadcast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dvae_ext import rng


class Smoothing(Protocol):
    """A family r(ζ|z) with its sampler and its posterior."""

    def sample(self, logits: Tensor) -> Tensor:
        """ζ of the shape and dtype of ``logits``, differentiable, by uniforms of float32's precision at least."""
        ...

    def posterior_mean(self, logits: Tensor, zeta: Tensor) -> Tensor:
        """ν = E[z | ζ] of the shape of ``logits``, differentiable (DVAE++ section 5)."""
        ...


@dataclass(frozen=True)
class ExponentialSmoothing:
    """Overlapping exponentials on [0, 1] (DVAE++ eq. 3).

    Example:
        >>> from dvae_ext import ops
        >>> smoothing = ExponentialSmoothing(ops.overlap_exponential_icdf, beta=10.0)
        >>> logits = torch.zeros(2, 3)
        >>> smoothing.posterior_mean(logits, smoothing.sample(logits)).shape
        torch.Size([2, 3])
    """

    icdf: Callable[..., Tensor]
    beta: float

    def sample(self, logits: Tensor) -> Tensor:
        return self.icdf(rng.uniform(logits.shape, logits), logits, self.beta).to(logits.dtype)

    def posterior_mean(self, logits: Tensor, zeta: Tensor) -> Tensor:
        return torch.sigmoid(logits + self.beta * (2 * zeta - 1))


@dataclass(frozen=True)
class LogisticSmoothing:
    """Overlapping logistics on the real line (DVAE++ appendix B)."""

    icdf: Callable[..., Tensor]
    mu0: float
    mu1: float
    scale: float

    def sample(self, logits: Tensor) -> Tensor:
        rho = rng.uniform(logits.shape, logits)
        return self.icdf(rho, logits, self.mu0, self.mu1, self.scale).to(logits.dtype)

    def posterior_mean(self, logits: Tensor, zeta: Tensor) -> Tensor:
        t0, t1 = (zeta - self.mu0) / self.scale, (zeta - self.mu1) / self.scale
        log_ratio = (self.mu1 - self.mu0) / self.scale + 2 * (F.softplus(-t0) - F.softplus(-t1))
        return torch.sigmoid(logits + log_ratio)


@dataclass(frozen=True)
class SpikeSmoothing:
    """A spike at zero and an exponential on [0, 1] (Rolfe 2016)."""

    icdf: Callable[..., Tensor]
    beta: float

    def sample(self, logits: Tensor) -> Tensor:
        return self.icdf(rng.uniform(logits.shape, logits), logits, self.beta).to(logits.dtype)

    def posterior_mean(self, logits: Tensor, zeta: Tensor) -> Tensor:
        """z = 1[ζ > 0], with the gradient that the jump of z contributes to E[zᵀ W μ] (Rolfe 2016).

        As q = σ(logits) grows by dq, z jumps for the uniforms in an interval of length dq, all of which have ζ = 0 on
        one side of the jump. The average of (1 − z)/(1 − q) · dq over those with ζ = 0 is the same number, and
        dq/(1 − q) = q · dlogits stays bounded.
        """
        z = (zeta > 0).to(logits.dtype)
        jump = (1 - z) * torch.sigmoid(logits.detach())
        return z + jump * (logits - logits.detach())
