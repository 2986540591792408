"""The feed-forward DVAE++ model."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from dvae_ext.data import DataInfo
from dvae_ext.models import MODELS
from dvae_ext.models.dvae import DVAE, PRESETS, DVAEConfig
from dvae_ext.rbm import RBM
from python_tests.enumeration import all_states, exact_log_z

SMALL = DVAEConfig(latent_groups=(6, 6), hidden=(16,), num_chains=50, sweeps=5, generation_sweeps=50)
SMOOTHINGS = ("overlap_exponential", "overlap_logistic", "spike_exponential")


def build(config: DVAEConfig = SMALL, seed: int = 0, pixels: int = 16, mean: float = 0.3) -> DVAE:
    torch.manual_seed(seed)
    return DVAE(config, DataInfo("test", (1, pixels), torch.full((pixels,), mean)))


def stripes(batch: int = 50) -> Tensor:
    """Two prototypes with 5 % of the pixels flipped: one bit of information."""
    prototypes = torch.tensor([[1.0, 0.0] * 8, [0.0, 0.0, 1.0, 1.0] * 4])
    clean = prototypes[torch.randint(0, 2, (batch,))]
    return torch.where(torch.rand(batch, 16) < 0.05, 1 - clean, clean)


def train(model: DVAE, steps: int, first: int = 0, last: int | None = None, optimisers=None) -> list[float]:
    """Negative bounds without their log Z."""
    optimizer, schedule = optimisers or model.optimizer(steps)
    losses = []
    for step in range(first, steps if last is None else last):
        loss, metrics = model.training_loss(stripes(), step, steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        model.after_step(step)
        losses.append((metrics["kl_without_log_z"] - metrics["reconstruction"]).item())
    return losses


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("groups", [(7,), (6, 6), (3, 4, 5)])
@pytest.mark.parametrize("hidden", [(), (16,)])
def test_loss_reaches_every_parameter(groups: tuple[int, ...], hidden: tuple[int, ...], smoothing: str) -> None:
    model = build(replace(SMALL, latent_groups=groups, hidden=hidden, smoothing=smoothing, beta=None))
    loss, metrics = model.training_loss(stripes(), 50, 100)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool(torch.any(parameter.grad != 0)), name
    assert all(value.dim() == 0 and not value.requires_grad and bool(value.isfinite()) for value in metrics.values())
    # Nothing that needs log Z, which changes with every update and is not known.
    assert set(metrics) == {"reconstruction", "kl_without_log_z", "chain_free_energy"}
    # At the end of the warm-up; all energies are zero at the start.
    torch.testing.assert_close(loss.detach(), metrics["kl_without_log_z"] - metrics["reconstruction"])
    assert metrics["kl_without_log_z"] + sum(groups) * math.log(2) >= 0
    assert metrics["chain_free_energy"].item() == pytest.approx(-model.rbm.n_hidden * math.log(2), rel=1e-6)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_a_whole_step_on_every_device(smoothing: str, device: torch.device) -> None:
    model = build(replace(SMALL, smoothing=smoothing, beta=None)).to(device)
    optimizer, _ = model.optimizer(10)
    x = stripes().to(device)
    loss, metrics = model.training_loss(x, 5, 10)
    loss.backward()
    optimizer.step()
    model.after_step(0)
    assert all(value.device.type == device.type for value in (loss, *metrics.values()))
    assert model.log_weights(x, 3).shape == (3, 50)
    assert model.reconstruct(x).device.type == model.generate(2).device.type == device.type
    exact = exact_log_z(copy.deepcopy(model.rbm).cpu().double()).item()
    assert model.log_partition().value == pytest.approx(exact, abs=1e-5)


def test_kl_weight_rises_linearly() -> None:
    model = build()
    losses = []
    for step in (0, 15, 30):
        torch.manual_seed(1)
        loss, metrics = model.training_loss(torch.ones(4, 16), step, 100)
        losses.append(loss.item())
        torch.manual_seed(1)
        expected = min(1.0, step / 30) * metrics["kl_without_log_z"] - metrics["reconstruction"]
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert losses[0] > losses[1] > losses[2]  # KL - log Z is negative


def test_the_loss_has_the_gradient_of_the_bound() -> None:
    """With chains that stand for all states in proportion to p, the gradient is that of the bound with the exact log Z.

    2¹⁶ chains with rounded multiplicities: the probabilities are met within 2⁻¹⁶, the gradients within 1e-3.
    """
    model = build(replace(SMALL, latent_groups=(4, 4)), seed=4)
    with torch.no_grad():
        for parameter in model.rbm.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.4)
    states = all_states(8, torch.float32)
    probabilities = model.rbm.log_prob(states[:, :4], states[:, 4:], exact_log_z(model.rbm)).exp()
    rows = states.repeat_interleave((probabilities * 2**16).round().long(), 0)
    model.chains.visible, model.chains.hidden = rows[:, :4].contiguous(), rows[:, 4:].contiguous()
    x, gradients = stripes(), []
    for exact in (False, True):
        torch.manual_seed(1)
        loss, _ = model.training_loss(x, 15, 100)
        if exact:  # half of the KL term's weight at this step
            chains = model.rbm.negative_energy_mean(model.chains.visible, model.chains.hidden)
            loss = loss + 0.5 * (exact_log_z(model.rbm) - chains)
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-3)
    assert max(float(gradient.abs().max()) for gradient in gradients[1]) > 0.1


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_training_learns_two_prototypes(smoothing: str) -> None:
    """The entropy of the data is ln 2 + 16 · H(0.05) = 3.87 nats; independent pixels cost 8 nats or more."""
    model = build(replace(SMALL, smoothing=smoothing, beta=None))
    losses = train(model, 600)
    assert sum(losses[-50:]) / 50 + exact_log_z(copy.deepcopy(model.rbm).double()).item() < 5.5
    images = model.generate(200)
    # Each prototype is the nearest for at least a tenth of the samples, and most samples are close to one of them.
    prototypes = torch.tensor([[1.0, 0.0] * 8, [0.0, 0.0, 1.0, 1.0] * 4])
    distance, nearest = torch.cdist(images, prototypes, p=1).min(1)
    assert 20 < int(nearest.sum()) < 180
    assert distance.median() < 3
    x = stripes()
    assert (model.reconstruct(x) - x).abs().mean() < 0.15


def test_a_run_resumes_from_its_state() -> None:
    torch.manual_seed(2)
    whole = build()
    optimisers = whole.optimizer(10)
    train(whole, 10, 0, 5, optimisers)
    saved = copy.deepcopy((whole.state_dict(), optimisers[0].state_dict(), optimisers[1].state_dict()))
    rng_state = torch.get_rng_state()
    expected = train(whole, 10, 5, 10, optimisers)
    other = build(seed=3)
    resumed = other.optimizer(10)
    for target, state in zip((other, *resumed), saved, strict=True):
        target.load_state_dict(state)
    torch.set_rng_state(rng_state)
    assert train(other, 10, 5, 10, resumed) == expected
    for (name, a), b in zip(whole.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_initialisation() -> None:
    mean = torch.tensor([0.0, 0.5, 1.0, 0.25])
    model = DVAE(replace(SMALL, hidden=()), DataInfo("test", (2, 2), mean))
    assert torch.equal(model.input_mean, mean)
    expected = torch.logit(torch.tensor([0.001, 0.5, 0.999, 0.25]))
    torch.testing.assert_close(model.decoder[-1].bias.detach(), expected)
    assert all(bool(torch.all(p == 0)) for p in model.rbm.parameters())
    for bad in (torch.zeros(3), torch.tensor([0.0, 0.5, 1.1, 0.2]), torch.tensor([0.0, 0.5, math.nan, 0.2])):
        with pytest.raises(ValueError, match="data_mean"):
            model.initialise(bad)


def test_optimizer_follows_the_published_recipe() -> None:
    model = build()
    optimizer, schedule = model.optimizer(1000)
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] > 0 for p in group["params"]}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            kernel = name == "weight" and isinstance(module, nn.Linear | nn.BatchNorm1d | RBM)
            assert (id(parameter) in decayed) == kernel
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    assert all(group["eps"] == 1e-3 and group["betas"] == (0.9, 0.999) for group in optimizer.param_groups)
    rates = []
    for _ in range(1000):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    expected = [3e-4] * 20 + [3e-3] * 580 + [1e-3] * 150 + [3e-4] * 200 + [9e-5] * 50
    assert rates == pytest.approx(expected)


def test_weight_decay_is_the_gradient_of_half_the_squared_norm() -> None:
    model = build(
        replace(SMALL, weight_decay=0.5, adam_betas=(0.0, 0.0), adam_eps=1e6, learning_rate_factors=(1e6,) * 5)
    )
    optimizer, _ = model.optimizer(10)
    before = model.decoder[0].weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # with a large ε Adam is gradient descent with rate lr / ε = 3e-3
    torch.testing.assert_close(model.decoder[0].weight.detach(), before * (1 - 3e-3 * 0.5))


def test_presets_are_the_rows_of_table_2() -> None:
    assert list(PRESETS)[:4] == ["1-linear", "2-linear", "1-nonlinear", "2-nonlinear"]
    shapes = {name: (config.latent_groups, config.hidden, config.beta) for name, config in (
        (name, DVAEConfig(**preset)) for name, preset in PRESETS.items()
    )}  # fmt: skip
    assert shapes["1-linear"] == ((200,), (), 12.0)
    assert shapes["1-nonlinear"] == ((200,), (200, 200), 14.0)
    assert shapes["2-linear"] == ((200, 200), (), 10.0)
    assert shapes["2-nonlinear"] == ((200, 200), (200, 200), 10.0)
    assert DVAEConfig(**PRESETS["1-linear"], smoothing="spike_exponential").beta == 5.0
    assert DVAEConfig(**PRESETS["2-linear"], smoothing="spike_exponential").beta == 4.0
    spec = MODELS["dvae"]
    assert spec.config_class is DVAEConfig
    assert spec.presets is PRESETS
    model = spec.build(spec.config_class(**spec.presets["digits"]), DataInfo("digits", (8, 8), torch.zeros(64)))
    assert min(model.rbm.n_visible, model.rbm.n_hidden) <= 30


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("latent_groups", ()),
        ("latent_groups", (0, 4)),
        ("latent_groups", (1,)),
        ("smoothing", "gumbel"),
        ("ops", "fast"),
        ("beta", -1.0),
        ("beta", math.nan),
        ("scale", 0.0),
        ("learning_rate", 0.0),
        ("kl_warmup", 1.5),
        ("num_chains", 0),
        ("sweeps", 0),
        ("learning_rate_factors", (1.0,)),
        ("learning_rate_breaks", (0.5, 0.2, 0.75, 0.95)),
        ("hidden", (16, 0)),
        ("adam_betas", (2.0, 0.999)),
        ("weight_decay", -1e-4),
        ("output_bias_clip", 0.0),
        ("batch_norm_momentum", 3.0),
    ],
)
def test_bad_config_names_the_field(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected"):
        DVAEConfig(**{field: value})


def test_bad_images() -> None:
    model = build()
    for bad in (torch.zeros(0, 16), torch.zeros(4, 15), torch.zeros(16)):
        for method in (lambda x: model.training_loss(x, 0, 10), lambda x: model.log_weights(x, 2), model.reconstruct):
            with pytest.raises(ValueError, match=r"x: expected at least one image, shape \[B, 16\]"):
                method(bad)


@pytest.mark.parametrize("groups", [(8,), (4, 4), (3, 2, 3)])
def test_log_weights_are_unbiased(groups: tuple[int, ...]) -> None:
    """E[w] = Z p(x), enumerated over 2⁸ latents.

    200,000 weights within 6 standard errors: false alarm 3 cases · 4 images · 2e-9.
    """
    model = build(replace(SMALL, latent_groups=groups), seed=4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.4)
    model.eval()
    x = stripes(4)
    z = all_states(8, torch.float32)
    pixels = torch.distributions.Bernoulli(logits=model.decoder(z)).log_prob(x[:, None]).sum(-1)
    energy = model.rbm.energy(z[:, : model.rbm.n_visible], z[:, model.rbm.n_visible :])
    exact = torch.logsumexp(pixels - energy, -1).detach().double()
    weights = torch.exp(model.log_weights(x, 200_000).double() - exact)
    error = weights.std(0) / math.sqrt(200_000)
    assert error.max() < 0.1
    assert ((weights.mean(0) - 1).abs() / error).max() < 6


def test_large_priors_are_tempered_and_say_so() -> None:
    """31 + 31 units in pairs, each pair on its own, so that log Z has a closed form. 4 standard errors: 6e-5."""
    model = build(replace(SMALL, latent_groups=(31, 31)))
    with torch.no_grad():
        model.rbm.weight.copy_(0.8 * torch.eye(31))
    exact = 31 * math.log(3 + math.exp(0.8))
    for quick in (True, False):
        torch.manual_seed(0)
        estimate = model.log_partition(quick=quick)
        assert estimate.method == "tempering"
        assert estimate.value == pytest.approx(exact, abs=4 * estimate.std_error)
        assert 0 < estimate.std_error < 0.02


def test_generation_is_seeded_and_leaves_the_model_as_it_was() -> None:
    model = build()
    train(model, 20)
    before = copy.deepcopy(model.state_dict())
    first = model.generate(5, torch.Generator().manual_seed(5))
    assert torch.equal(first, model.generate(5, torch.Generator().manual_seed(5)))
    assert first.shape == (5, 16)
    assert bool(torch.all((first >= 0) & (first <= 1)))
    chains = model.generate_chains(3, 4, generator=torch.Generator().manual_seed(5))
    assert chains.shape == (3, 4, 16)
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_reference_ops_give_the_same_loss(smoothing: str) -> None:
    config = replace(SMALL, smoothing=smoothing, beta=None)
    losses = []
    for ops in ("native", "reference"):
        model = build(replace(config, ops=ops))
        torch.manual_seed(6)
        loss, _ = model.training_loss(stripes(), 50, 100)
        loss.backward()
        losses.append((loss.detach(), model.encoders[0][0].weight.grad))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_training_loss_compiles_without_graph_break(smoothing: str) -> None:
    """``aot_eager`` traces forward and backward through the fake kernels; the code generator is torch's own matter.

    The number of graphs does not grow with the step: the compiler may keep one apart for step 0 and after the warm-up.
    """
    torch.compiler.reset()
    model = build(replace(SMALL, smoothing=smoothing, hidden=(), beta=None))
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model.training_loss, fullgraph=True, backend=counter)
    x = stripes()
    for step in (0, 10, 20, 50):
        torch.manual_seed(7)
        expected, _ = model.training_loss(x, step, 100)
        torch.manual_seed(7)
        loss, _ = compiled(x, step, 100)
        torch.testing.assert_close(loss, expected)
    assert counter.frame_count <= 3
    loss.backward()
    assert model.rbm.weight.grad is not None


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_a_copy_is_a_model_of_its_own(smoothing: str) -> None:
    model = build(replace(SMALL, smoothing=smoothing, beta=None))
    twin = copy.deepcopy(model)
    torch.manual_seed(1)
    loss, _ = model.training_loss(stripes(), 50, 100)
    torch.manual_seed(1)
    other, _ = twin.training_loss(stripes(), 50, 100)
    assert torch.equal(loss, other)
