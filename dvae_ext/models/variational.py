"""What the autoencoders with independent latents and a Bernoulli decoder share: vae, cat-vae, cg-bpef-vae."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from dvae_ext.models.base import Model, evaluating
from dvae_ext.nn import relu_mlp, svhn_decoder, svhn_encoder
from dvae_ext.objectives import bernoulli_log_likelihood, exponential_annealing, log_likelihood_of_samples

if TYPE_CHECKING:
    from dvae_ext.data import DataInfo


@dataclass(frozen=True)
class VariationalConfig:
    """Constants that the three models share; the defaults are those of CG-BPEF-VAE section 4 on MNIST.

    Args:
        latents: d, the number of latent variables.
        hidden: widths of the dense ReLU layers of the encoder; the decoder has them in reverse.
        network: "dense", or "conv" for the SVHN layers of the paper's appendix E, which need images of 32 x 32.
        num_samples: L, latent samples of each image in the training bound.
        learning_rate: of Adam, constant.

    Raises:
        ValueError: a field outside its range, naming the field.
    """

    latents: int = 20
    hidden: tuple[int, ...] = (400, 400)
    network: str = "dense"
    num_samples: int = 1
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("latents", "num_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.hidden and min(self.hidden) < 1:
            raise ValueError(f"hidden: expected widths of at least 1, got {self.hidden}")
        if self.network not in ("dense", "conv"):
            raise ValueError(f"network: expected dense or conv, got {self.network!r}")
        self.check_positive("learning_rate")

    def check_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name}: expected a positive finite number, got {value}")


@dataclass(frozen=True)
class RelaxedConfig(VariationalConfig):
    """Adds the temperature of Concrete latents.

    Args:
        temperature: T_min, reached after half of the steps and used in evaluation.
        start_temperature: T_max, from which it falls exponentially (CG-BPEF-VAE section 3.3).
    """

    temperature: float = 0.5
    start_temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_positive("temperature", "start_temperature")
        if self.start_temperature < self.temperature:
            raise ValueError(
                f"start_temperature: expected at least temperature = {self.temperature}, got {self.start_temperature}"
            )

    def temperature_at(self, step: int, total_steps: int) -> float:
        """The temperature of a training step."""
        return exponential_annealing(step, total_steps, self.start_temperature, self.temperature, 0.5)


def draw_categories(log_q: Tensor, num_samples: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
    """Categories ``[K, B, d]`` drawn from normalised ``log_q [B, d, C]``, and where they are not known, ``[K, B, d]``.

    Where ``log_q`` is NaN, torch refuses to draw: there is a category, for which the caller has to say NaN.

    Example:
        >>> index, unknown = draw_categories(torch.tensor([[[0.0, -math.inf], [math.nan, math.nan]]]), 1, None)
        >>> int(index[0, 0, 0]), unknown.tolist()
        (0, [[[False, True]]])
    """
    unknown = log_q.isnan().any(-1)
    probabilities = log_q.exp().masked_fill(unknown[..., None], 1.0)
    index = torch.multinomial(probabilities.flatten(0, 1), num_samples, replacement=True, generator=generator)
    return index.unflatten(0, log_q.shape[:2]).movedim(-1, 0), unknown.expand(num_samples, *unknown.shape)


class VariationalAutoencoder(Model):
    """Encoder of the posterior's parameters, decoder of Bernoulli logits, and the bound between them.

    A subclass says what the latents are.

    Args:
        config: the constants.
        data: shape and mean of the training images.
        parameters: outputs of the encoder.
        features: inputs of the decoder.

    Raises:
        ValueError: network "conv" for images that are not 32 x 32.
    """

    config: VariationalConfig

    trained_bound: ClassVar[str] = "bound"

    def __init__(self, config: VariationalConfig, data: DataInfo, parameters: int, features: int) -> None:
        super().__init__()
        self.config = config
        self.num_pixels = data.train_mean.numel()
        if config.network == "conv" and tuple(data.image_shape) != (32, 32):
            raise ValueError(f"network: conv is made for images of 32 x 32, {data.name} has {data.image_shape}")
        self.encoder: nn.Module
        self.decoder: nn.Module
        if config.network == "conv":
            self.encoder, self.decoder = svhn_encoder(parameters), svhn_decoder(features)
        else:
            self.encoder = relu_mlp(self.num_pixels, config.hidden, parameters)
            self.decoder = relu_mlp(features, config.hidden[::-1], self.num_pixels)

    @abstractmethod
    def kl(self, parameters: Tensor) -> Tensor:
        """KL of posterior and prior for each image ``[B]``."""

    @abstractmethod
    def sample(self, parameters: Tensor, num_samples: int, temperature: float) -> Tensor:
        """Differentiable latents ``[num_samples, B, features]``."""

    @abstractmethod
    def sample_exact(self, parameters: Tensor, num_samples: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Latents ``[K, B, features]`` of the exact posterior, and log p(z) − log q(z|x) ``[K, B]``."""

    @abstractmethod
    def sample_prior(self, num_samples: int, generator: Generator | None) -> Tensor:
        """Latents ``[num_samples, features]`` of the prior."""

    def temperature_at(self, step: int, total_steps: int) -> float:
        """The temperature of a training step; models without one ignore it."""
        return 1.0

    def penalty(self, parameters: Tensor) -> tuple[Tensor | None, dict[str, Tensor]]:
        """What is added to the negative bound, and what to report of it."""
        return None, {}

    def optimizer(self, steps: int) -> tuple[Optimizer, LRScheduler]:
        """Adam at a constant rate."""
        optimizer = Adam(self.parameters(), lr=self.config.learning_rate, fused=True)
        return optimizer, LambdaLR(optimizer, lambda step: 1.0)

    def training_loss(self, x: Tensor, step: int, total_steps: int) -> tuple[Tensor, dict[str, Tensor]]:
        """−bound + penalty, averaged over the batch; "kl" and "reconstruction" are the bound's two terms.

        The bound of relaxed latents goes by the name "relaxed": it may lie above the likelihood.

        Raises:
            ValueError: an empty batch or another number of pixels.
        """
        self._check(x)
        parameters = self._encode(x)
        temperature = self.temperature_at(step, total_steps)
        kl = self.kl(parameters).mean()
        reconstruction = self._reconstruction(x, parameters, self.config.num_samples, temperature).mean()
        penalty, metrics = self.penalty(parameters)
        loss = kl - reconstruction
        if penalty is not None:
            loss = loss + penalty
        terms = {"loss": loss, self.trained_bound: reconstruction - kl, "kl": kl, "reconstruction": reconstruction}
        metrics.update((name, value.detach()) for name, value in terms.items())
        return loss, metrics

    @torch.no_grad()
    def bound_terms(self, x: Tensor, exact: bool = False) -> tuple[Tensor, Tensor]:
        """The bound's reconstruction and KL terms for each image, ``[B]`` each, with L samples, at the end of training.

        Args:
            x: images ``[B, D]``.
            exact: take latents that have a probability: for Concrete latents the categorical limit T → 0, where the
                difference of the terms is a bound on log p(x). The relaxed value is an estimate alone.
        """
        self._check(x)
        parameters = self._encode(x)
        if exact:
            latents, _ = self.sample_exact(parameters, self.config.num_samples, None)
            reconstruction = bernoulli_log_likelihood(x, self._decode(latents)).mean(0)
        else:
            reconstruction = self._reconstruction(x, parameters, self.config.num_samples, self.temperature_at(1, 1))
        return reconstruction, self.kl(parameters)

    @torch.no_grad()
    def log_weights(self, x: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        """log p(x|z) + log p(z) − log q(z|x), ``[num_samples, B]``; Concrete latents in their categorical limit."""
        self._check(x)
        latents, log_ratio = self.sample_exact(self._encode(x), num_samples, generator)
        return log_likelihood_of_samples(x, self._decode(latents)) + log_ratio

    @torch.no_grad()
    def posterior_features(self, x: Tensor, num_samples: int = 50, generator: Generator | None = None) -> Tensor:
        """The mean of samples of the posterior, ``[B, features]``: what MAE section 4.1.2 probes."""
        self._check(x)
        latents, _ = self.sample_exact(self._encode(x), num_samples, generator)
        return latents.mean(0)

    def generate(self, num_samples: int, generator: Generator | None = None) -> Tensor:
        """Mean images ``[num_samples, D]`` of latents drawn from the prior."""
        with evaluating(self):
            return torch.sigmoid(self.decoder(self.sample_prior(num_samples, generator)))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean images ``[B, D]`` of one latent of q(z|x) each."""
        with evaluating(self):
            self._check(x)
            latents, _ = self.sample_exact(self._encode(x), 1, None)
            return torch.sigmoid(self.decoder(latents[0]))

    def _reconstruction(self, x: Tensor, parameters: Tensor, num_samples: int, temperature: float) -> Tensor:
        """log p(x|z) averaged over the samples, ``[B]``."""
        return bernoulli_log_likelihood(x, self._decode(self.sample(parameters, num_samples, temperature))).mean(0)

    def _encode(self, x: Tensor) -> Tensor:
        """Parameters of q(z|x) in the precision of ``x``: under autocast the networks alone have 16 bits."""
        return self.encoder(x).to(x.dtype)

    def _decode(self, latents: Tensor) -> Tensor:
        """Logits ``[L, B, D]`` of latents ``[L, B, features]``."""
        return self.decoder(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])

    def _check(self, x: Tensor) -> None:
        if x.dim() != 2 or x.shape[1] != self.num_pixels or x.shape[0] == 0:
            raise ValueError(f"x: expected at least one image, shape [B, {self.num_pixels}], got {list(x.shape)}")
