"""A small model with every kind of state a checkpoint must hold: for tests of the loop, quick and without ops."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from dvae_ext.models import Model, ModelSpec


@dataclass(frozen=True)
class ToyConfig:
    """Constants of the toy.

    Args:
        latents: Gaussian latents.
        widths: hidden layers of the encoder.
        rate: learning rate of Adam.
        break_at: the loss is NaN from this step on; None for never.
    """

    latents: int = 4
    widths: tuple[int, ...] = (16,)
    rate: float | None = None
    break_at: int | None = None

    def __post_init__(self) -> None:
        if self.latents < 1:
            raise ValueError(f"latents: expected at least 1, got {self.latents}")
        if self.rate is None:
            object.__setattr__(self, "rate", 0.01)


class Toy(Model):
    """A Gaussian VAE with a Bernoulli decoder, batch normalisation, and a counter that plays the part of chains."""

    def __init__(self, config, info):
        super().__init__()
        self.config = config
        sizes = [info.num_pixels, *config.widths]
        layers = [
            module
            for n_in, n_out in itertools.pairwise(sizes)
            for module in (nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.Tanh())
        ]
        self.encoder = nn.Sequential(*layers, nn.Linear(sizes[-1], 2 * config.latents))
        self.decoder = nn.Linear(config.latents, info.num_pixels)
        self.register_buffer("chains", torch.randn(8))

    def training_loss(self, x, step, total_steps):
        mean, log_std = self.encoder(x).chunk(2, -1)
        z = mean + log_std.exp() * torch.randn_like(mean)
        reconstruction = -F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="none").sum(-1).mean()
        kl = (0.5 * (mean**2 + (2 * log_std).exp() - 1) - log_std).sum(-1).mean()
        bound = reconstruction - kl + 1e-3 * self.chains.mean()
        if self.config.break_at is not None and step >= self.config.break_at:
            bound = bound * math.nan
        return -bound, {"loss": -bound.detach(), "bound": bound.detach(), "kl": kl.detach()}

    @torch.no_grad()
    def after_step(self, step):
        self.chains.add_(torch.randn(8))

    def optimizer(self, steps):
        optimizer = torch.optim.Adam(self.parameters(), lr=self.config.rate)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / (steps + 1))

    def initialise(self, data_mean):
        with torch.no_grad():
            self.decoder.bias.copy_(torch.logit(data_mean.clamp(0.01, 0.99)))

    def log_weights(self, x, num_samples, generator=None):
        mean, log_std = self.encoder(x).chunk(2, -1)
        noise = torch.randn((num_samples, *mean.shape), generator=generator)
        z = mean + log_std.exp() * noise
        log_p = -0.5 * (z**2).sum(-1)
        log_q = -0.5 * (noise**2).sum(-1) - log_std.sum(-1)
        logits = self.decoder(z)
        return log_p - log_q + (x * logits - F.softplus(logits)).sum(-1)

    def generate(self, num_samples, generator=None):
        return self.decoder(torch.randn(num_samples, self.config.latents, generator=generator)).sigmoid()

    def reconstruct(self, x):
        return self.decoder(self.encoder(x).chunk(2, -1)[0]).sigmoid()


SPEC = ModelSpec(ToyConfig, Toy, {"wide": {"widths": (32,)}, "digits": {"latents": 3}})
