"""Bounds, active units and features."""

from __future__ import annotations

import math

import pytest
import torch

from dvae_ext.data import DataInfo
from dvae_ext.evaluation import active_units, bound, features
from dvae_ext.models.cat_vae import CatVAE, CatVAEConfig
from dvae_ext.models.vae import VAE, VAEConfig

INFO = DataInfo("test", (2, 2), torch.full((4,), 0.5))


def test_every_example_counts_the_same() -> None:
    torch.manual_seed(0)
    model = VAE(VAEConfig(latents=2, hidden=(), num_samples=2), INFO)
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.zero_()
        for parameter in model.decoder.parameters():
            parameter.zero_()
    x = torch.rand(7, 4).round()
    estimate = bound(model, [x[:4], x[4:]])
    assert estimate.kl == 0
    assert estimate.reconstruction == pytest.approx(-4 * math.log(2), rel=1e-6)
    assert estimate.value == pytest.approx(-4 * math.log(2), rel=1e-6)
    assert estimate.std_error == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="batches: expected at least one"):
        bound(model, [])


def test_exact_bound_of_concrete_latents_uses_vertices() -> None:
    model = CatVAE(CatVAEConfig(latents=3, categories=4, hidden=()), INFO)
    seen = []
    model.decoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    bound(model, [torch.ones(5, 4)], exact=True)
    bound(model, [torch.ones(5, 4)])
    assert set(seen[0].unique().tolist()) == {0.0, 1.0}
    assert len(seen[1].unique()) > 12


def test_active_units_counts_by_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(1000, 4, generator=generator) * torch.tensor([1.0, 0.2, 0.05, 0.0])
    assert active_units(means) == 2
    assert active_units(means, threshold=1e-3) == 3
    with pytest.raises(ValueError, match="means: expected at least two rows"):
        active_units(torch.zeros(1, 3))


def test_features_are_means_of_posterior_samples() -> None:
    torch.manual_seed(0)
    model = VAE(VAEConfig(latents=2, hidden=()), INFO)
    x = torch.rand(6, 4)
    mean, logvar = model.posterior(x)
    rows = features(model, [x[:4], x[4:]], num_samples=4000)
    # Five standard errors of a mean of 4000 samples.
    assert ((rows - mean).abs() < 5 * (0.5 * logvar).exp() / math.sqrt(4000)).all()
