"""Variational autoencoder with categorical latents by Gumbel-softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from dvae_ext.models.variational import RelaxedConfig, VariationalAutoencoder, draw_categories

if TYPE_CHECKING:
    from dvae_ext.data import DataInfo


@dataclass(frozen=True)
class CatVAEConfig(RelaxedConfig):
    """Adds the number of categories.

    Args:
        categories: C, of each latent variable.
    """

    categories: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.categories < 2:
            raise ValueError(f"categories: expected at least 2, got {self.categories}")


PRESETS: dict[str, dict[str, Any]] = {
    "digits": {"latents": 10, "hidden": (128, 128)},
    "table1-t0.5": {"latents": 20, "categories": 5, "temperature": 0.5},
    "table1-t0.8": {"latents": 20, "categories": 10, "temperature": 0.8},
    "svhn": {"latents": 20, "hidden": (), "network": "conv"},
}


class CatVAE(VariationalAutoencoder):
    """d categorical latents of C categories, uniform prior (Jang et al. 2017; Cat-VAE in CG-BPEF-VAE Table 1).

    Training draws Concrete vectors and uses the KL of the categorical limit: the bound it reports is an estimate. The
    bound that holds is that of one-hot latents, ``bound_terms(x, exact=True)``.

    Args:
        config: the constants.
        data: shape and mean of the training images.

    Example:
        >>> from dvae_ext.data import DataInfo
        >>> config = CatVAEConfig(latents=4, categories=3, hidden=(16,))
        >>> model = CatVAE(config, DataInfo("example", (2, 2), torch.full((4,), 0.5)))
        >>> model.log_weights(torch.ones(3, 4), num_samples=5).shape
        torch.Size([5, 3])
    """

    config: CatVAEConfig

    trained_bound = "relaxed"

    def __init__(self, config: CatVAEConfig, data: DataInfo) -> None:
        size = config.latents * config.categories
        super().__init__(config, data, size, size)

    def temperature_at(self, step: int, total_steps: int) -> float:
        return self.config.temperature_at(step, total_steps)

    def _log_probs(self, parameters: Tensor) -> Tensor:
        """``[B, d, C]``."""
        return parameters.unflatten(-1, (self.config.latents, self.config.categories)).log_softmax(-1)

    def kl(self, parameters: Tensor) -> Tensor:
        log_q = self._log_probs(parameters)
        return (log_q.exp() * (log_q + math.log(self.config.categories))).sum((-2, -1))

    def sample(self, parameters: Tensor, num_samples: int, temperature: float) -> Tensor:
        log_q = self._log_probs(parameters)
        return F.gumbel_softmax(log_q.expand(num_samples, *log_q.shape), tau=temperature).flatten(-2)

    def sample_exact(self, parameters: Tensor, num_samples: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        log_q = self._log_probs(parameters)
        index, unknown = draw_categories(log_q, num_samples, generator)
        chosen = log_q.expand(num_samples, *log_q.shape).gather(-1, index[..., None])[..., 0]
        one_hot = F.one_hot(index, self.config.categories).to(log_q.dtype).masked_fill_(unknown[..., None], math.nan)
        return one_hot.flatten(-2), -(chosen + math.log(self.config.categories)).sum(-1)

    def sample_prior(self, num_samples: int, generator: Generator | None) -> Tensor:
        weight = next(self.decoder.parameters())
        shape = (num_samples, self.config.latents)
        index = torch.randint(self.config.categories, shape, generator=generator, device=weight.device)
        return F.one_hot(index, self.config.categories).to(weight.dtype).flatten(-2)
