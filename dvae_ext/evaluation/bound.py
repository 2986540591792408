"""The variational bound and its two terms, and active units."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class HasBoundTerms(Protocol):
    """A model whose bound is a reconstruction minus a KL term, as in dvae_ext.models.variational."""

    def bound_terms(self, x: Tensor, exact: bool = False) -> tuple[Tensor, Tensor]: ...


@runtime_checkable
class HasPosteriorFeatures(Protocol):
    """A model that represents an image by its mean latent."""

    def posterior_features(self, x: Tensor, num_samples: int = 50) -> Tensor: ...


@dataclass(frozen=True)
class BoundEstimate:
    """Means over a data set, in nats per example.

    Args:
        value: reconstruction − kl.
        std_error: standard error of ``value`` over the examples.
        reconstruction: E_q log p(x|z), minus term₂ of CG-BPEF-VAE.
        kl: KL(q(z|x) ‖ p(z)), term₁.
    """

    value: float
    std_error: float
    reconstruction: float
    kl: float


def bound(model: HasBoundTerms, batches: Iterable[Tensor], exact: bool = False) -> BoundEstimate:
    """The bound with L samples for each example.

    Args:
        model: a model of dvae_ext.models with ``bound_terms``.
        batches: images ``[B, D]``; batches may differ in size, every example counts the same.
        exact: with latents that have a probability: for Concrete latents the categorical limit T → 0, where the value
            bounds log p(x). Without, the relaxed latents of training, where it is an estimate.

    Raises:
        ValueError: no batch.

    Example:
        >>> from dvae_ext.data import DataInfo
        >>> from dvae_ext.models.vae import VAE, VAEConfig
        >>> model = VAE(VAEConfig(latents=2, hidden=()), DataInfo("example", (2, 2), torch.full((4,), 0.5)))
        >>> estimate = bound(model, [torch.ones(3, 4), torch.zeros(2, 4)])
        >>> abs(estimate.value - (estimate.reconstruction - estimate.kl)) < 1e-9
        True
    """
    reconstructions, kls = [], []
    for x in batches:
        reconstruction, kl = model.bound_terms(x, exact)
        reconstructions.append(reconstruction.double().cpu())
        kls.append(kl.double().cpu())
    if not kls:
        raise ValueError("batches: expected at least one, got none")
    reconstruction, kl = torch.cat(reconstructions), torch.cat(kls)
    values = reconstruction - kl
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return BoundEstimate(float(values.mean()), error, float(reconstruction.mean()), float(kl.mean()))


def features(model: HasPosteriorFeatures, batches: Iterable[Tensor], num_samples: int = 50) -> Tensor:
    """Mean latents ``[N, features]`` of a data set, on the CPU: means of samples of q(z|x) (MAE section 4.1.2).

    Raises:
        ValueError: no batch.
    """
    rows = [model.posterior_features(x, num_samples).float().cpu() for x in batches]
    if not rows:
        raise ValueError("batches: expected at least one, got none")
    return torch.cat(rows)


def active_units(means: Tensor, threshold: float = 1e-2) -> int:
    """How many latents follow the data: the variance of the posterior mean over examples exceeds ``threshold``.

    Args:
        means: posterior means ``[N, d]``.
        threshold: 0.01 by convention; other thresholds give other counts.

    Raises:
        ValueError: not a matrix with at least two rows.

    Example:
        >>> active_units(torch.tensor([[0.0, 1.0], [0.0, -1.0]]))
        1
    """
    if means.ndim != 2 or means.shape[0] < 2:
        raise ValueError(f"means: expected at least two rows, shape [N, d], got {list(means.shape)}")
    return int((means.double().var(0) > threshold).sum())
