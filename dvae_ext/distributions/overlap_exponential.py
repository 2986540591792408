"""The mixture of two overlapping exponentials on [0, 1]."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from dvae_ext import ops
from dvae_ext.distributions.moments import exponential_mean, exponential_variance
from dvae_ext.distributions.smoothed_bernoulli import SmoothedBernoulli


class OverlapExponential(SmoothedBernoulli):
    r"""r(ζ|0) ∝ exp(−βζ), r(ζ|1) ∝ exp(β(ζ − 1)) on [0, 1], mixed by a Bernoulli (DVAE++ section 3, eq. 3).

    Args:
        probs: q(z = 1), in [0, 1], any shape; or
        logits: its logits. Exactly one of the two.
        beta: inverse temperature β > 0, a number or a tensor that broadcasts. The variance of the gradient grows as
            exp(β/2) / β²: train with β up to about 15.
        validate_args: check parameters and values, as everywhere in torch.distributions.

    Raises:
        ValueError: both or none of ``probs`` and ``logits``; with validation, β ≤ 0, probabilities outside [0, 1], NaN.
        TypeError: ``probs`` or ``logits`` not floating point.

    Example:
        >>> posterior = OverlapExponential(logits=torch.zeros(100, 200), beta=10.0)
        >>> zeta = posterior.rsample()
        >>> zeta.shape, posterior.log_prob(zeta).shape
        (torch.Size([100, 200]), torch.Size([100, 200]))
        >>> bool(torch.all((posterior.posterior_logits(zeta) > 0) == (zeta > 0.5)))
        True
    """

    arg_constraints: ClassVar = {
        "probs": constraints.unit_interval,
        "logits": constraints.real,
        "beta": constraints.positive,
    }
    support = constraints.unit_interval
    shape_parameters = ("beta",)
    beta: Tensor

    def __init__(
        self,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        beta: Tensor | float = 10.0,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(logits, probs, {"beta": beta}, validate_args)

    @property
    def mean(self) -> Tensor:
        low = exponential_mean(self.beta)
        return low + self.probs * (1 - 2 * low)

    @property
    def variance(self) -> Tensor:
        separation = 1 - 2 * exponential_mean(self.beta)
        return exponential_variance(self.beta) + self.probs * (1 - self.probs) * separation**2

    def cdf(self, value: Tensor) -> Tensor:
        """P(ζ ≤ value), broadcast against the batch shape (DVAE++ appendix A)."""
        if self._validate_args:
            self._validate_sample(value)
        value = torch.clamp(self._promoted(value), 0, 1)
        # Both component CDFs carry the factor 1 − exp(−βζ), exact near ζ = 0 through expm1.
        tail = torch.sigmoid(-self.logits) + self.probs * torch.exp(-self.beta * (1 - value))
        return torch.expm1(-self.beta * value) / torch.expm1(-self.beta) * tail

    def posterior_logits(self, value: Tensor) -> Tensor:
        return self.logits + self.beta * (2 * value - 1)

    def _icdf(self, rho: Tensor) -> Tensor:
        return ops.overlap_exponential_icdf(*self._arguments(rho))

    def _log_prob(self, value: Tensor) -> Tensor:
        return ops.overlap_exponential_log_prob(*self._arguments(value))
