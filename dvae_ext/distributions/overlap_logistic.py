"""The mixture of two logistic distributions on the real line."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints

from dvae_ext import ops
from dvae_ext.distributions.smoothed_bernoulli import SmoothedBernoulli


class OverlapLogistic(SmoothedBernoulli):
    r"""r(ζ|z) logistic with mean μ_z and scale s, mixed by a Bernoulli (DVAE++ appendix B); ζ is any real number.

    Args:
        probs: q(z = 1), in [0, 1], any shape; or
        logits: its logits. Exactly one of the two.
        mu0: mean μ₀ of r(ζ|0), a number or a tensor that broadcasts.
        mu1: mean μ₁ of r(ζ|1), likewise; above μ₀.
        scale: s > 0, likewise. (μ₁ − μ₀)/s plays the part of β in :class:`OverlapExponential`.
        validate_args: check parameters and values, as everywhere in torch.distributions.

    Raises:
        ValueError: both or none of ``probs`` and ``logits``; with validation, s ≤ 0, μ₁ ≤ μ₀, probabilities outside
            [0, 1], NaN.
        TypeError: ``probs`` or ``logits`` not floating point.

    Example:
        >>> posterior = OverlapLogistic(probs=torch.tensor([0.1, 0.9]), scale=0.1)
        >>> posterior.rsample((3,)).shape, posterior.mean
        (torch.Size([3, 2]), tensor([0.1000, 0.9000]))
    """

    arg_constraints: ClassVar = {
        "probs": constraints.unit_interval,
        "logits": constraints.real,
        "mu0": constraints.real,
        "mu1": constraints.real,
        "scale": constraints.positive,
    }
    support = constraints.real
    shape_parameters = ("mu0", "mu1", "scale")
    mu0: Tensor
    mu1: Tensor
    scale: Tensor

    def __init__(
        self,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        mu0: Tensor | float = 0.0,
        mu1: Tensor | float = 1.0,
        scale: Tensor | float = 0.1,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(logits, probs, {"mu0": mu0, "mu1": mu1, "scale": scale}, validate_args)
        if self._validate_args and not bool(torch.all(self.mu1 > self.mu0)):
            raise ValueError("mu1: expected values above mu0")

    @property
    def mean(self) -> Tensor:
        return self.mu0 + self.probs * (self.mu1 - self.mu0)

    @property
    def variance(self) -> Tensor:
        return (self.scale * math.pi) ** 2 / 3 + self.probs * (1 - self.probs) * (self.mu1 - self.mu0) ** 2

    def cdf(self, value: Tensor) -> Tensor:
        """P(ζ ≤ value), broadcast against the batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        low = torch.sigmoid((value - self.mu0) / self.scale)
        high = torch.sigmoid((value - self.mu1) / self.scale)
        return torch.sigmoid(-self.logits) * low + self.probs * high

    def posterior_logits(self, value: Tensor) -> Tensor:
        # A logistic's log density is −t − 2 softplus(−t) − log s with t = (ζ − μ)/s; log s cancels in the ratio.
        t0, t1 = (value - self.mu0) / self.scale, (value - self.mu1) / self.scale
        return self.logits + (self.mu1 - self.mu0) / self.scale + 2 * (F.softplus(-t0) - F.softplus(-t1))

    def _icdf(self, rho: Tensor) -> Tensor:
        return ops.overlap_logistic_icdf(*self._arguments(rho))

    def _log_prob(self, value: Tensor) -> Tensor:
        return ops.overlap_logistic_log_prob(*self._arguments(value))
