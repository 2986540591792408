"""vae, cat-vae and cg-bpef-vae."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dvae_ext.data import DataInfo
from dvae_ext.models import MODELS
from dvae_ext.models.variational import VariationalAutoencoder
from dvae_ext.objectives import bernoulli_log_likelihood

NAMES = ["vae", "cat-vae", "cg-bpef-vae"]
SMALL: dict[str, dict[str, Any]] = {
    "vae": {"latents": 3},
    "cat-vae": {"latents": 2, "categories": 3},
    "cg-bpef-vae": {"latents": 2, "order": 3, "num_points": 7},
}


def build(name: str, seed: int = 0, pixels: int = 16, **changes: Any) -> VariationalAutoencoder:
    torch.manual_seed(seed)
    spec = MODELS[name]
    config = spec.config_class(**{"hidden": (16,), **SMALL[name], **changes})
    return spec.build(config, DataInfo("test", (1, pixels), torch.full((pixels,), 0.3)))


def images(batch: int = 20, pixels: int = 16) -> Tensor:
    return (torch.rand(batch, pixels, generator=torch.Generator().manual_seed(1)) < 0.3).float()


@pytest.mark.parametrize("num_samples", [1, 4])
@pytest.mark.parametrize("name", NAMES)
def test_loss_reaches_every_parameter(name: str, num_samples: int) -> None:
    model = build(name, num_samples=num_samples)
    loss, metrics = model.training_loss(images(), 10, 100)
    loss.backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None, label
        assert bool(parameter.grad.isfinite().all()), label
        assert bool((parameter.grad != 0).any()), label
    bound = metrics["relaxed" if "temperature" in vars(model.config) else "bound"]
    torch.testing.assert_close(bound, -loss.detach())
    torch.testing.assert_close(bound, metrics["reconstruction"] - metrics["kl"])


@pytest.mark.parametrize("name", NAMES)
def test_training_improves_the_bound(name: str) -> None:
    model = build(name, learning_rate=0.01)
    optimizer, schedule = model.optimizer(300)
    x = images()
    for step in range(300):
        loss, _ = model.training_loss(x, step, 300)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step == 0:
            first = loss.item()
    # 16 pixels of density 0.3 have an entropy of 9.8 nats; 20 images can be told apart with 3 nats.
    assert loss.item() < first - 1.5


def enumerated_latents(model: VariationalAutoencoder) -> Tensor:
    """All values of the discrete latents, ``[n, features]``."""
    config: Any = model.config
    if hasattr(config, "categories"):
        values = list(torch.eye(config.categories))
    else:
        values = list(torch.linspace(-1, 1, config.num_points)[:, None])
    return torch.stack([torch.cat(states) for states in itertools.product(values, repeat=config.latents)])


@pytest.mark.parametrize("name", ["cat-vae", "cg-bpef-vae"])
def test_discrete_limit_against_enumeration(name: str) -> None:
    """log p(x) by enumeration of all latents: importance weights average to it, and the bound stays below it."""
    model = build(name)
    with torch.no_grad():
        x = images(4)
        latents = enumerated_latents(model)
        if name == "cat-vae":
            log_prior = torch.full((len(latents),), -model.config.latents * math.log(model.config.categories))
        else:
            model.prior_coefficients.normal_(std=0.5, generator=torch.Generator().manual_seed(2))
            rows = model.prior().logits
            index = torch.tensor(list(itertools.product(range(model.config.num_points), repeat=model.config.latents)))
            log_prior = sum(rows[d, index[:, d]] for d in range(model.config.latents))
        likelihood = bernoulli_log_likelihood(x[:, None], model.decoder(latents)[None])
        exact = (likelihood + log_prior).logsumexp(1)
        torch.manual_seed(3)
        log_weights = model.log_weights(x, 20_000)
        # Five standard errors of the mean weight.
        ratio = (log_weights - exact).double().exp()
        assert ((ratio.mean(0) - 1).abs() < 5 * ratio.std(0) / math.sqrt(20_000)).all()
        repeated = torch.stack([torch.sub(*model.bound_terms(x, exact=True)) for _ in range(2000)])
        mean, error = repeated.double().mean(0), repeated.double().std(0) / math.sqrt(2000)
        assert (mean - 5 * error < exact).all()
        # The mean log weight is the bound.
        difference = (log_weights.double().mean(0) - mean).abs()
        assert (difference < 5 * (error + log_weights.double().std(0) / math.sqrt(20_000))).all()


@pytest.mark.parametrize("name", NAMES)
def test_nan_in_the_encoder_is_nan_in_every_result(name: str) -> None:
    """torch refuses to draw from NaN, and a category in its place would make it a likelihood and features again."""
    model, x = build(name), images(4)
    with torch.no_grad():
        model.encoder[-1].bias[0] = math.nan
    assert bool(model.log_weights(x, 3).isnan().all())
    assert all(bool(torch.sub(*model.bound_terms(x, exact=exact)).isnan().all()) for exact in (False, True))
    assert bool(model.posterior_features(x).isnan().any(-1).all())
    assert bool(model.reconstruct(x).isnan().all())


def test_gaussian_weights_have_the_bound_as_mean() -> None:
    model = build("vae")
    x = images(4)
    torch.manual_seed(3)
    with torch.no_grad():
        log_weights = model.log_weights(x, 20_000).double()
        repeated = torch.stack([torch.sub(*model.bound_terms(x)) for _ in range(4000)]).double()
        error = log_weights.std(0) / math.sqrt(20_000) + repeated.std(0) / math.sqrt(4000)
        assert ((log_weights.mean(0) - repeated.mean(0)).abs() < 5 * error).all()


def test_temperature_falls_over_the_first_half() -> None:
    model = build("cg-bpef-vae", temperature=0.25)
    temperatures = [model.temperature_at(step, 100) for step in (0, 25, 50, 99)]
    assert temperatures == pytest.approx([1.0, 0.5, 0.25, 0.25])


def test_key_moves_and_resumes() -> None:
    """The noise of a training step comes from the key in the state: a restored model repeats the draws."""
    model, other = build("cg-bpef-vae"), build("cg-bpef-vae", seed=5)
    other.load_state_dict(model.state_dict())
    first = [model.training_loss(images(), 0, 10)[0].item() for _ in range(2)]
    assert first[0] != first[1]
    assert [other.training_loss(images(), 0, 10)[0].item() for _ in range(2)] == first


def test_mae_penalty_enters_the_loss_and_the_metrics() -> None:
    plain, regularised = build("vae"), build("vae", eta=2.0, gamma=0.5)
    losses = []
    for model in (plain, regularised):
        torch.manual_seed(1)
        losses.append(model.training_loss(images(), 0, 10))
    assert {"mpd", "mpd_std", "diverse"} <= set(losses[1][1])
    metrics = losses[1][1]
    expected = losses[0][0] + 2.0 * metrics["diverse"] + 0.5 * metrics["mpd_std"]
    torch.testing.assert_close(losses[1][0], expected)


def test_convolutions_of_svhn() -> None:
    for name in NAMES:
        spec = MODELS[name]
        model = spec.build(
            spec.config_class(**spec.presets["svhn"]), DataInfo("svhn", (32, 32), torch.full((1024,), 0.5))
        )
        loss, _ = model.training_loss(torch.rand(3, 1024), 0, 10)
        loss.backward()
        assert loss.isfinite()
    with pytest.raises(ValueError, match="network: conv is made for images of 32 x 32"):
        build("vae", network="conv")


@pytest.mark.parametrize("name", NAMES)
def test_shapes(name: str) -> None:
    model = build(name)
    assert model.generate(5).shape == (5, 16)
    assert model.reconstruct(images(4)).shape == (4, 16)
    assert model.posterior_features(images(4)).shape[0] == 4
    generator = torch.Generator().manual_seed(1)
    first = model.generate(5, generator)
    assert torch.equal(first, model.generate(5, torch.Generator().manual_seed(1)))
    with pytest.raises(ValueError, match=r"x: expected at least one image, shape \[B, 16\], got \[3, 4\]"):
        model.training_loss(torch.zeros(3, 4), 0, 10)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("vae", {"eta": -1.0}, "eta: expected a number ≥ 0"),
        ("vae", {"latents": 0}, "latents: expected at least 1"),
        ("vae", {"network": "deep"}, "network: expected dense or conv"),
        ("cat-vae", {"categories": 1}, "categories: expected at least 2"),
        ("cat-vae", {"temperature": 0.0}, "temperature: expected a positive"),
        ("cat-vae", {"temperature": 2.0}, "start_temperature: expected at least"),
        ("cg-bpef-vae", {"order": 6}, "order: expected 1 to num_points - 2 = 5"),
    ],
)
def test_bad_configurations(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, **changes)
