"""CG-BPEF-VAE: coarse-grained bounded polynomial exponential families as posterior and prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn

from dvae_ext import ops, rng
from dvae_ext.distributions import CoarseGrained
from dvae_ext.models.variational import RelaxedConfig, VariationalAutoencoder, draw_categories

if TYPE_CHECKING:
    from dvae_ext.data import DataInfo


@dataclass(frozen=True)
class CGBPEFVAEConfig(RelaxedConfig):
    """Adds the polynomial and its grid.

    Args:
        order: M, of the polynomials; at most ``num_points`` - 2.
        num_points: R, points of the grid on [-1, 1].
    """

    order: int = 5
    num_points: int = 101

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.order <= self.num_points - 2:
            raise ValueError(f"order: expected 1 to num_points - 2 = {self.num_points - 2}, got {self.order}")


PRESETS: dict[str, dict[str, Any]] = {
    "digits": {"latents": 10, "hidden": (128, 128)},
    "table1-t0.5": {"latents": 20, "order": 5, "temperature": 0.5},
    "table1-t0.8": {"latents": 30, "order": 5, "temperature": 0.8},
    "svhn": {"latents": 20, "hidden": (), "network": "conv", "order": 15},
}


class CGBPEFVAE(rng.Sampler, VariationalAutoencoder):
    """Posterior and prior exp(Σ_m c_m z^m) on [-1, 1], the prior's coefficients learned (CG-BPEF-VAE section 3.3).

    Training draws z by coarse graining at a temperature and uses the KL of the categorical limit (eq. 4): the bound it
    reports is an estimate. The bound that holds is that of z on the grid, ``bound_terms(x, exact=True)``.

    Args:
        config: the constants.
        data: shape and mean of the training images.

    Example:
        >>> from dvae_ext.data import DataInfo
        >>> config = CGBPEFVAEConfig(latents=4, order=3, num_points=21, hidden=(16,))
        >>> model = CGBPEFVAE(config, DataInfo("example", (2, 2), torch.full((4,), 0.5)))
        >>> loss, metrics = model.training_loss(torch.ones(3, 4), step=0, total_steps=100)
        >>> sorted(metrics)
        ['kl', 'loss', 'reconstruction', 'relaxed']
    """

    states = ("key",)
    trained_bound = "relaxed"
    config: CGBPEFVAEConfig
    key: Tensor

    def __init__(self, config: CGBPEFVAEConfig, data: DataInfo) -> None:
        super().__init__(config, data, config.latents * config.order, config.latents)
        self.prior_coefficients = nn.Parameter(torch.zeros(config.latents, config.order))
        self.key = rng.key()

    def temperature_at(self, step: int, total_steps: int) -> float:
        return self.config.temperature_at(step, total_steps)

    def prior(self) -> CoarseGrained:
        """The prior of the d latents."""
        return CoarseGrained(
            self.prior_coefficients, self.config.temperature, self.config.num_points, validate_args=False
        )

    def posterior(self, parameters: Tensor) -> CoarseGrained:
        """q(z|x) of the encoder's outputs, batch shape ``[B, d]``."""
        return CoarseGrained(
            self._coefficients(parameters), self.config.temperature, self.config.num_points, validate_args=False
        )

    @torch.no_grad()
    def posterior_mean(self, x: Tensor) -> Tensor:
        """Mean of q(z|x) over the grid, ``[B, d]``."""
        self._check(x)
        posterior = self.posterior(self._encode(x))
        return (posterior.probs * posterior.grid).sum(-1)

    def _coefficients(self, parameters: Tensor) -> Tensor:
        return parameters.unflatten(-1, (self.config.latents, self.config.order))

    def kl(self, parameters: Tensor) -> Tensor:
        coefficients = self._coefficients(parameters)
        return ops.coarse_grain_kl(coefficients, self.prior_coefficients, self.config.num_points).sum(-1)

    def sample(self, parameters: Tensor, num_samples: int, temperature: float) -> Tensor:
        coefficients = self._coefficients(parameters)
        z = ops.coarse_grain_sample(coefficients, self.key, temperature, self.config.num_points, num_samples)
        rng.advance_(self.key, 1)
        return z

    def sample_exact(self, parameters: Tensor, num_samples: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        posterior = self.posterior(parameters)
        log_q, log_p = posterior.logits, self.prior().logits
        index, unknown = draw_categories(log_q, num_samples, generator)
        ratio = (log_p - log_q).expand(num_samples, *log_q.shape).gather(-1, index[..., None])[..., 0]
        return posterior.grid[index].masked_fill_(unknown, math.nan), ratio.sum(-1)

    def sample_prior(self, num_samples: int, generator: Generator | None) -> Tensor:
        prior = self.prior()
        index, unknown = draw_categories(prior.logits[None], num_samples, generator)
        return prior.grid[index[:, 0]].masked_fill_(unknown[:, 0], math.nan)
