"""The spike at zero mixed with an exponential: the smoothing of the original discrete VAE."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints

from dvae_ext import ops
from dvae_ext.distributions.moments import exponential_mean, exponential_variance
from dvae_ext.distributions.smoothed_bernoulli import SmoothedBernoulli


class SpikeExponential(SmoothedBernoulli):
    r"""r(ζ|0) = δ(ζ), r(ζ|1) ∝ exp(βζ) on [0, 1], mixed by a Bernoulli (Rolfe 2016; DVAE++ section 2).

    The distribution has an atom at zero: ``log_prob`` is with respect to δ₀ plus Lebesgue measure, so it is the log
    probability log q(z = 0) at ζ = 0 and a log density elsewhere.

    Args:
        probs: q(z = 1), in [0, 1], any shape; or
        logits: its logits. Exactly one of the two.
        beta: inverse temperature β > 0, a number or a tensor that broadcasts.
        validate_args: check parameters and values, as everywhere in torch.distributions.

    Raises:
        ValueError: both or none of ``probs`` and ``logits``; with validation, β ≤ 0, probabilities outside [0, 1], NaN.
        TypeError: ``probs`` or ``logits`` not floating point.

    Example:
        >>> posterior = SpikeExponential(probs=torch.tensor(0.25), beta=4.0)
        >>> posterior.icdf(torch.tensor([0.5, 0.74, 1.0]))
        tensor([0., 0., 1.])
        >>> posterior.log_prob(torch.tensor(0.0)).exp()
        tensor(0.7500)
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
        beta: Tensor | float = 5.0,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(logits, probs, {"beta": beta}, validate_args)

    @property
    def mean(self) -> Tensor:
        return self.probs * (1 - exponential_mean(self.beta))

    @property
    def variance(self) -> Tensor:
        high = 1 - exponential_mean(self.beta)
        return self.probs * exponential_variance(self.beta) + self.probs * (1 - self.probs) * high**2

    def cdf(self, value: Tensor) -> Tensor:
        """P(ζ ≤ value), broadcast against the batch shape; it starts at q(z = 0)."""
        if self._validate_args:
            self._validate_sample(value)
        value = self._promoted(value)
        inside = torch.clamp(value, 0, 1)
        component = torch.exp(-self.beta * (1 - inside)) * torch.expm1(-self.beta * inside) / torch.expm1(-self.beta)
        return torch.where(value < 0, 0.0, torch.sigmoid(-self.logits) + self.probs * component)

    def posterior_logits(self, value: Tensor) -> Tensor:
        """+∞ where ζ > 0 and −∞ where ζ = 0: ζ determines z."""
        infinity = torch.full_like(value, torch.inf)
        return torch.where(value > 0, infinity, -infinity).expand(torch.broadcast_shapes(value.shape, self.batch_shape))

    def _icdf(self, rho: Tensor) -> Tensor:
        return ops.spike_exponential_icdf(*self._arguments(rho))

    def _log_prob(self, value: Tensor) -> Tensor:
        value, logits, beta = self._arguments(value)
        density = F.logsigmoid(logits) + torch.log(beta) - torch.log(-torch.expm1(-beta)) - beta * (1 - value)
        result = torch.where(value == 0, F.logsigmoid(-logits), density)
        return torch.where((value < 0) | (value > 1), -torch.inf, result)
