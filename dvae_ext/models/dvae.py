"""Feed-forward discrete VAE with an RBM prior (DVAE++ section 7.2, Table 2)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from dvae_ext import rng
from dvae_ext.models.base import Model, evaluating
from dvae_ext.nn import MLP, ExponentialSmoothing, LogisticSmoothing, Smoothing, SpikeSmoothing
from dvae_ext.objectives import (
    bernoulli_log_likelihood,
    linear_warmup,
    log_likelihood_of_samples,
    piecewise_constant,
    rbm_kl,
)
from dvae_ext.rbm import RBM, LogZEstimate, PersistentChains, log_z
from dvae_ext.rbm.eager import eager_gibbs_
from dvae_ext.rbm.log_z import DEFAULT_SWEEPS, MAX_EXACT_UNITS

if TYPE_CHECKING:
    from dvae_ext.data import DataInfo


@dataclass(frozen=True)
class DVAEConfig:
    """Every constant of the feed-forward models; the defaults are those of DVAE++ section 7.2 and appendix F.

    Args:
        latent_groups: units of each latent group z₁, z₂, …; group k is inferred from x and ζ of the groups before it.
        hidden: widths of the tanh layers of every encoder and of the decoder; empty for linear networks.
        smoothing: "overlap_exponential", "overlap_logistic" or "spike_exponential".
        beta: inverse temperature of the exponential smoothings. By default the published choice for MNIST. Overlapping:
            12 (one group, linear), 14 (one group, nonlinear), 10 (more groups); spike: 5 (one group), 4 (more).
        scale: scale of the logistic smoothing. Its means are 0 and 1, so that ζ tends to z, as likelihoods need.
        batch_norm: normalise the hidden layers.
        batch_norm_momentum: weight of the new batch in the running statistics.
        batch_norm_eps: added to the variance.
        learning_rate: base rate of Adam.
        learning_rate_breaks: fractions of the steps at which the rate changes.
        learning_rate_factors: what the base rate is multiplied by between the breaks.
        adam_betas: decay rates of Adam's moments.
        adam_eps: Adam's ε.
        weight_decay: the loss has ½ weight_decay ‖·‖² of kernels, batch-norm scales and the RBM's weights.
        kl_warmup: fraction of the steps over which the weight of the KL term rises linearly from 0 to 1.
        num_chains: persistent chains that estimate the gradient of log Z.
        sweeps: Gibbs sweeps of the chains after each update.
        generation_sweeps: Gibbs sweeps from random states before a sample is taken.
        output_bias_clip: the decoder's bias starts at the logit of the mean image clipped this far from 0 and 1.
        ops: "native" for the compiled ops; "reference" for plain PyTorch in their place, to compare the cost.

    Raises:
        ValueError: a field outside its range, naming the field.
    """

    latent_groups: tuple[int, ...] = (200,)
    hidden: tuple[int, ...] = (200, 200)
    smoothing: str = "overlap_exponential"
    beta: float | None = None
    scale: float = 0.1
    batch_norm: bool = True
    batch_norm_momentum: float = 0.2
    batch_norm_eps: float = 1e-2
    learning_rate: float = 3e-3
    learning_rate_breaks: tuple[float, ...] = (0.02, 0.6, 0.75, 0.95)
    learning_rate_factors: tuple[float, ...] = (0.1, 1.0, 1 / 3, 0.1, 0.03)
    adam_betas: tuple[float, float] = (0.9, 0.999)
    adam_eps: float = 1e-3
    weight_decay: float = 1e-4
    kl_warmup: float = 0.3
    num_chains: int = 1000
    sweeps: int = 40
    generation_sweeps: int = 5000
    output_bias_clip: float = 1e-3
    ops: str = "native"

    def __post_init__(self) -> None:
        if not self.latent_groups or min(self.latent_groups) < 1 or sum(self.latent_groups) < 2:
            raise ValueError(f"latent_groups: expected sizes of at least 1, 2 in all, got {self.latent_groups}")
        choices = {
            "smoothing": ("overlap_exponential", "overlap_logistic", "spike_exponential"),
            "ops": ("native", "reference"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.beta is None:
            object.__setattr__(self, "beta", self._default_beta())
        if self.hidden and min(self.hidden) < 1:
            raise ValueError(f"hidden: expected widths of at least 1, got {self.hidden}")
        for name in ("beta", "scale", "learning_rate", "adam_eps", "batch_norm_eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a positive finite number, got {getattr(self, name)}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay: expected a finite number of at least 0, got {self.weight_decay}")
        if not 0 < self.output_bias_clip < 0.5:
            raise ValueError(f"output_bias_clip: expected a number between 0 and 1/2, got {self.output_bias_clip}")
        if not 0 < self.batch_norm_momentum <= 1:
            raise ValueError(f"batch_norm_momentum: expected a weight in (0, 1], got {self.batch_norm_momentum}")
        if not all(0 <= decay < 1 for decay in self.adam_betas):
            raise ValueError(f"adam_betas: expected rates in [0, 1), got {self.adam_betas}")
        for name in ("num_chains", "sweeps", "generation_sweeps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not 0 <= self.kl_warmup <= 1:
            raise ValueError(f"kl_warmup: expected a fraction in [0, 1], got {self.kl_warmup}")
        breaks = (0.0, *self.learning_rate_breaks, 1.0)
        if any(not first <= second for first, second in pairwise(breaks)):
            raise ValueError(
                f"learning_rate_breaks: expected rising fractions of the steps, got {self.learning_rate_breaks}"
            )
        if len(self.learning_rate_factors) != len(self.learning_rate_breaks) + 1:
            raise ValueError(
                f"learning_rate_factors: expected {len(self.learning_rate_breaks) + 1} for "
                f"{len(self.learning_rate_breaks)} breaks, got {len(self.learning_rate_factors)}"
            )

    def _default_beta(self) -> float:
        one_group = len(self.latent_groups) == 1
        if self.smoothing == "spike_exponential":
            return 5.0 if one_group else 4.0
        return (14.0 if self.hidden else 12.0) if one_group else 10.0


PRESETS: dict[str, dict[str, Any]] = {
    "1-linear": {"latent_groups": (200,), "hidden": ()},
    "2-linear": {"latent_groups": (200, 200), "hidden": ()},
    "1-nonlinear": {"latent_groups": (200,), "hidden": (200, 200)},
    "2-nonlinear": {"latent_groups": (200, 200), "hidden": (200, 200)},
    # Small enough for an exact partition function (24 + 24 units) and for minutes on a laptop.
    "digits": {"latent_groups": (48,), "hidden": (128, 128), "beta": 8.0},
}


class DVAE(Model):
    """Discrete VAE: q(z₁|x) q(z₂|x, ζ₁) …, a Bernoulli decoder p(x|ζ) and an RBM prior p(z) over all groups.

    The concatenated groups are split into two halves, the sides of the RBM.

    Args:
        config: the constants.
        data: shape and mean of the training images.

    Example:
        >>> from dvae_ext.data import DataInfo
        >>> config = DVAEConfig(latent_groups=(8, 8), hidden=(16,), num_chains=10)
        >>> model = DVAE(config, DataInfo("example", (4, 4), torch.full((16,), 0.5)))
        >>> loss, metrics = model.training_loss(torch.ones(5, 16), step=0, total_steps=100)
        >>> loss.shape, sorted(metrics)
        (torch.Size([]), ['chain_free_energy', 'kl_without_log_z', 'reconstruction'])
    """

    config: DVAEConfig
    input_mean: Tensor

    def __init__(self, config: DVAEConfig, data: DataInfo) -> None:
        super().__init__()
        self.config = config
        self.num_pixels = data.train_mean.numel()
        self.smallest_batch = 2 if config.batch_norm and config.hidden else 1
        functions = import_module("dvae_ext.ops" if config.ops == "native" else "dvae_ext.reference")
        self.smoothing = _smoothing(config, functions)
        groups = config.latent_groups
        starts = accumulate(groups, initial=0)
        self.encoders = nn.ModuleList(
            self._network(self.num_pixels + start, size) for start, size in zip(starts, groups, strict=False)
        )
        num_latents = sum(groups)
        self.decoder = self._network(num_latents, self.num_pixels)
        self.rbm = RBM(num_latents // 2, num_latents - num_latents // 2)
        self._gibbs = functions.rbm_gibbs_ if config.ops == "native" else eager_gibbs_
        self.chains = PersistentChains(self.rbm, config.num_chains, gibbs=self._gibbs)
        self.register_buffer("input_mean", torch.empty(self.num_pixels))
        self.initialise(data.train_mean)

    def _network(self, in_features: int, out_features: int) -> MLP:
        c = self.config
        return MLP(in_features, c.hidden, out_features, c.batch_norm, c.batch_norm_momentum, c.batch_norm_eps)

    @torch.no_grad()
    def initialise(self, data_mean: Tensor) -> None:
        """Centre the input at ``data_mean [D]`` and start the output there: bias = logit of the clipped mean.

        Raises:
            ValueError: a mean of another size, or outside [0, 1].
        """
        mean = data_mean.flatten()
        if mean.numel() != self.num_pixels or not bool(torch.all((mean >= 0) & (mean <= 1))):
            raise ValueError(
                f"data_mean: expected {self.num_pixels} values in [0, 1], got shape {list(data_mean.shape)}"
            )
        self.input_mean.copy_(mean)
        mean = mean.to(self.input_mean)
        clip = self.config.output_bias_clip
        output = self.decoder[-1]
        assert isinstance(output, nn.Linear)
        output.bias.copy_(torch.logit(mean.clamp(clip, 1 - clip)))

    def optimizer(self, steps: int) -> tuple[Optimizer, LRScheduler]:
        """Adam, with weight decay on kernels, batch-norm scales and W, and a piecewise constant rate over ``steps``."""
        c = self.config
        decayed = [m.weight for m in self.modules() if isinstance(m, nn.Linear | nn.BatchNorm1d | RBM)]
        chosen = {id(p) for p in decayed}
        others = [p for p in self.parameters() if id(p) not in chosen]
        groups = [{"params": decayed, "weight_decay": c.weight_decay}, {"params": others, "weight_decay": 0.0}]
        optimizer = Adam(groups, lr=c.learning_rate, betas=c.adam_betas, eps=c.adam_eps, fused=True)

        def factor(step: int) -> float:
            return piecewise_constant(step, steps, c.learning_rate_breaks, c.learning_rate_factors)

        return optimizer, LambdaLR(optimizer, factor)

    def training_loss(self, x: Tensor, step: int, total_steps: int) -> tuple[Tensor, dict[str, Tensor]]:
        """w (KL − log Z + E_chains[−E]) − log p(x|ζ), averaged over the batch, with w the KL weight of ``step``.

        The mean of −E over the persistent chains has the gradient of log Z and another value (DVAE++ appendix E): the
        loss is for its gradient. log Z changes with every update and is known after :meth:`log_partition` alone, so the
        metrics are what does not depend on it: "reconstruction", "kl_without_log_z" and "chain_free_energy", the mean
        of F over the chains' visible states.

        Args:
            x: images ``[B, D]`` in [0, 1], B at least 1 (2 with batch normalisation).
            step: index of the update, from 0.
            total_steps: length of the schedule.

        Raises:
            ValueError: an empty batch or another number of pixels.
        """
        self._check(x)
        centred = x - self.input_mean
        logits: list[Tensor] = []
        zetas: list[Tensor] = []
        for encoder in self.encoders:
            # Under autocast the networks alone have 16 bits.
            logits.append(encoder(torch.cat([centred, *zetas], -1) if zetas else centred).to(x.dtype))
            zetas.append(self.smoothing.sample(logits[-1]))
        means = [self.smoothing.posterior_mean(g, zeta) for g, zeta in zip(logits[:-1], zetas[:-1], strict=True)]
        reconstruction = bernoulli_log_likelihood(x, self._decode(zetas)).mean()
        kl_without_log_z = rbm_kl(self.rbm, logits, means).mean()
        kl_for_gradient = kl_without_log_z + self.rbm.negative_energy_mean(self.chains.visible, self.chains.hidden)
        loss = linear_warmup(step, total_steps, self.config.kl_warmup) * kl_for_gradient - reconstruction
        with torch.no_grad():
            metrics = {
                "reconstruction": reconstruction.detach(),
                "kl_without_log_z": kl_without_log_z.detach(),
                "chain_free_energy": self.rbm.free_energy(self.chains.visible).mean(),
            }
        return loss, metrics

    def after_step(self, step: int) -> None:
        """Move the persistent chains to the new parameters."""
        self.chains.sample(self.config.sweeps)

    @torch.no_grad()
    def log_weights(self, x: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        """log p(x|z) − E(z) − log q(z|x) for ``num_samples`` binary z ~ q(z|x) of each x: ``[num_samples, B]``.

        The binary limit of DVAE++ section 7: z takes the place of ζ in encoder and decoder. Subtract log Z.
        """
        self._check(x)
        batch = x.shape[0]
        states, log_q = self._infer_binary(x, num_samples, generator)
        log_likelihood = log_likelihood_of_samples(x, self._decode(states).view(num_samples, batch, -1))
        joined = torch.cat(states, -1)
        energy = self.rbm.energy(joined[:, : self.rbm.n_visible], joined[:, self.rbm.n_visible :])
        return log_likelihood - (energy + log_q).view(num_samples, batch)

    def log_partition(self, method: str = "auto", quick: bool = False) -> LogZEstimate:
        """log Z of the prior by :func:`dvae_ext.rbm.log_z`.

        Args:
            method: "auto" enumerates if the smaller side has at most 30 units and runs parallel tempering otherwise;
                or a method of :func:`dvae_ext.rbm.log_z`.
            quick: an eighth of the sweeps of tempering; for decisions during training.
        """
        if method == "auto":
            method = "exact" if min(self.rbm.n_visible, self.rbm.n_hidden) <= MAX_EXACT_UNITS else "tempering"
        return log_z(self.rbm, method=method, sweeps=DEFAULT_SWEEPS // 8 if quick and method == "tempering" else None)

    def generate(self, num_samples: int, generator: Generator | None = None) -> Tensor:
        """Mean images ``[num_samples, D]`` of ``num_samples`` independent chains of the prior."""
        return self.generate_chains(num_samples, 1, generator=generator)[:, 0]

    def generate_chains(
        self, num_chains: int, length: int, sweeps_between: int = 100, generator: Generator | None = None
    ) -> Tensor:
        """Mean images ``[num_chains, length, D]``: successive states of chains, ``sweeps_between`` sweeps apart.

        The chains start from random states and are moved ``generation_sweeps`` sweeps before their first image.
        """
        with evaluating(self):
            device = self.input_mean.device
            source = torch.device("cpu") if generator is None else generator.device
            seed = int(torch.randint(2**62, (), generator=generator, device=source))
            chains = PersistentChains(self.rbm, num_chains, seed, self._gibbs).to(device)
            images = []
            for state in range(length):
                halves = chains.sample(sweeps_between if state else self.config.generation_sweeps)
                images.append(torch.sigmoid(self._decode(halves)))
            return torch.stack(images, 1)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean images ``[B, D]`` of one binary z ~ q(z|x) each."""
        with evaluating(self):
            self._check(x)
            states, _ = self._infer_binary(x, 1, None)
            return torch.sigmoid(self._decode(states))

    def _infer_binary(self, x: Tensor, num_samples: int, generator: Generator | None) -> tuple[list[Tensor], Tensor]:
        """z of every group ``[num_samples · B, n_g]``, the samples outermost, and log q(z|x) ``[num_samples · B]``."""
        centred = x - self.input_mean
        states: list[Tensor] = []
        log_q = x.new_zeros(num_samples * x.shape[0])
        for encoder in self.encoders:
            if states:
                rows = centred.expand(num_samples, -1, -1).flatten(0, 1)
                logits = encoder(torch.cat([rows, *states], -1))
            else:
                logits = encoder(centred).expand(num_samples, -1, -1).flatten(0, 1)
            logits = logits.to(x.dtype)
            uniform = rng.uniform(logits.shape, logits, generator)
            states.append((uniform < torch.sigmoid(logits)).to(x.dtype))
            log_q += bernoulli_log_likelihood(states[-1], logits)
        return states, log_q

    def _decode(self, latents: Iterator[Tensor] | list[Tensor] | tuple[Tensor, ...]) -> Tensor:
        return self.decoder(torch.cat(list(latents), -1))

    def _check(self, x: Tensor) -> None:
        if x.dim() != 2 or x.shape[1] != self.num_pixels or x.shape[0] == 0:
            raise ValueError(f"x: expected at least one image, shape [B, {self.num_pixels}], got {list(x.shape)}")


def _smoothing(config: DVAEConfig, functions: Any) -> Smoothing:
    assert config.beta is not None  # resolved by the config
    if config.smoothing == "overlap_exponential":
        return ExponentialSmoothing(functions.overlap_exponential_icdf, config.beta)
    if config.smoothing == "overlap_logistic":
        return LogisticSmoothing(functions.overlap_logistic_icdf, 0.0, 1.0, config.scale)
    return SpikeSmoothing(functions.spike_exponential_icdf, config.beta)
