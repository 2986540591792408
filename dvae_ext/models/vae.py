"""Variational autoencoder with Gaussian latents, optionally with the regulariser of MAE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Generator, Tensor

from dvae_ext.models.variational import VariationalAutoencoder, VariationalConfig
from dvae_ext.objectives import mutual_divergence_penalty

if TYPE_CHECKING:
    from dvae_ext.data import DataInfo


@dataclass(frozen=True)
class VAEConfig(VariationalConfig):
    """Adds the weights of MAE's regulariser.

    Args:
        eta: weight of the diversity of posteriors (MAE eq. 7); the paper tries 0.5, 1 and 2.
        gamma: weight of their smoothness; the paper tries 0.1, 0.5 and 1. Both zero: no regulariser.
    """

    eta: float = 0.0
    gamma: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("eta", "gamma"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected a number ≥ 0, got {getattr(self, name)}")


PRESETS: dict[str, dict[str, Any]] = {
    "digits": {"latents": 10, "hidden": (128, 128)},
    "table1": {"latents": 20},
    "mae": {"latents": 32, "eta": 1.0, "gamma": 0.5},
    "svhn": {"latents": 30, "hidden": (), "network": "conv"},
}


class VAE(VariationalAutoencoder):
    """Gaussian posterior, standard normal prior (Kingma & Welling 2014; Gauss-VAE in CG-BPEF-VAE Table 1).

    Args:
        config: the constants.
        data: shape and mean of the training images.

    Example:
        >>> from dvae_ext.data import DataInfo
        >>> model = VAE(VAEConfig(latents=4, hidden=(16,), eta=1.0), DataInfo("example", (2, 2), torch.full((4,), 0.5)))
        >>> loss, metrics = model.training_loss(torch.ones(3, 4), step=0, total_steps=100)
        >>> sorted(metrics)
        ['bound', 'diverse', 'kl', 'loss', 'mpd', 'mpd_std', 'reconstruction']
    """

    config: VAEConfig

    def __init__(self, config: VAEConfig, data: DataInfo) -> None:
        super().__init__(config, data, 2 * config.latents, config.latents)
        alone = not (dist.is_available() and dist.is_initialized())  # else the posteriors of all processes are compared
        self.smallest_batch = 2 if self.regularised and alone else 1

    @property
    def regularised(self) -> bool:
        """Whether MAE's regulariser is part of the loss."""
        return self.config.eta > 0 or self.config.gamma > 0

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), ``[B, d]`` each."""
        self._check(x)
        mean, logvar = self._encode(x).chunk(2, -1)
        return mean, logvar

    @torch.no_grad()
    def posterior_mean(self, x: Tensor) -> Tensor:
        """Mean of q(z|x), ``[B, d]``."""
        return self.posterior(x)[0]

    def kl(self, parameters: Tensor) -> Tensor:
        mean, logvar = parameters.chunk(2, -1)
        return 0.5 * (mean**2 + torch.expm1(logvar) - logvar).sum(-1)

    def sample(self, parameters: Tensor, num_samples: int, temperature: float) -> Tensor:
        mean, logvar = parameters.chunk(2, -1)
        noise = torch.randn((num_samples, *mean.shape), dtype=mean.dtype, device=mean.device)
        return mean + noise * torch.exp(0.5 * logvar)

    def sample_exact(self, parameters: Tensor, num_samples: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        mean, logvar = parameters.chunk(2, -1)
        shape = (num_samples, *mean.shape)
        noise = torch.randn(shape, generator=generator, dtype=mean.dtype, device=mean.device)
        z = mean + noise * torch.exp(0.5 * logvar)
        return z, 0.5 * (noise**2 + logvar - z**2).sum(-1)

    def sample_prior(self, num_samples: int, generator: Generator | None) -> Tensor:
        weight = next(self.decoder.parameters())
        shape = (num_samples, self.config.latents)
        return torch.randn(shape, generator=generator, dtype=weight.dtype, device=weight.device)

    def penalty(self, parameters: Tensor) -> tuple[Tensor | None, dict[str, Tensor]]:
        if not self.regularised:
            return None, {}
        mean, logvar = parameters.chunk(2, -1)
        return mutual_divergence_penalty(mean, logvar, self.config.eta, self.config.gamma)
