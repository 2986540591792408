"""Importance-weighted likelihoods."""

from __future__ import annotations

import math
import weakref
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dvae_ext.data import DataInfo
from dvae_ext.evaluation import log_likelihood
from dvae_ext.models import Model
from dvae_ext.models.dvae import DVAE, DVAEConfig
from dvae_ext.rbm import LogZEstimate
from python_tests.enumeration import all_states


def tiny() -> DVAE:
    """A model with 2⁸ latents, 12 pixels and an RBM far from uniform."""
    torch.manual_seed(0)
    config = DVAEConfig(latent_groups=(4, 4), hidden=(8,), num_chains=1)
    model = DVAE(config, DataInfo("test", (3, 4), torch.full((12,), 0.4)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.25)
    return model


def exact_log_likelihood(model: DVAE, x: Tensor) -> Tensor:
    """log Σ_z p(z) p(x|z) over all 2⁸ latents, with p(z) normalised by the same sum."""
    model.eval()
    z = all_states(8, torch.float32)
    with torch.no_grad():
        pixels = torch.distributions.Bernoulli(logits=model.decoder(z)).log_prob(x[:, None]).sum(-1).double()
        prior = -model.rbm.energy(z[:, : model.rbm.n_visible], z[:, model.rbm.n_visible :]).double()
        return torch.logsumexp(pixels + torch.log_softmax(prior, 0), -1)


def test_agrees_with_enumeration() -> None:
    model = tiny()
    model.train()
    x = (torch.rand(7, 12) < 0.4).float()
    estimate = log_likelihood(model, x.split(3), num_samples=20_000, generator=Generator().manual_seed(1))
    assert model.training  # put back as it was
    exact = exact_log_likelihood(model, x)
    # The error of log of a mean of K weights is about 1/sqrt(effective samples).
    assert estimate.effective_samples.mean() > 1000
    torch.testing.assert_close(estimate.per_example, exact, rtol=0, atol=0.1)
    assert estimate.value == pytest.approx(exact.mean().item(), abs=0.04)
    assert estimate.log_z is not None
    assert estimate.log_z.method == "exact"


def test_is_a_lower_bound_that_tightens_and_is_unbiased_outside_the_logarithm() -> None:
    """E[exp(estimate)] = p(x) at K = 5: 4000 repetitions within 6 standard errors, false alarm 2e-9."""
    model = tiny()
    x = (torch.rand(1, 12) < 0.4).float()
    exact = exact_log_likelihood(model, x).item()
    repeated = x.expand(4000, -1)
    means = []
    for num_samples in (1, 5, 50):
        estimate = log_likelihood(model, [repeated], num_samples, generator=Generator().manual_seed(2))
        means.append(estimate.value)
        if num_samples == 5:
            ratio = torch.exp(estimate.per_example - exact)
            assert abs(ratio.mean().item() - 1) < 6 * ratio.std().item() / math.sqrt(4000)
    assert means[0] < means[1] < means[2] < exact + 0.05


class Fixed(Model):
    """log weights are the first pixel of each image: the likelihood is known, so averaging can be checked exactly."""

    def log_weights(self, x: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        return x[:, 0].expand(num_samples, -1)

    def unused(self, *arguments: object) -> Any:
        raise AssertionError("the likelihood is made from log_weights alone")

    training_loss = optimizer = generate = reconstruct = unused


def test_every_example_counts_the_same_in_unequal_batches() -> None:
    x = torch.arange(7.0)[:, None]
    log_z = LogZEstimate(1.5, 0.3, "ais", 0.0, ("chains disagree",))
    estimate = log_likelihood(Fixed(), x.split([4, 2, 1]), num_samples=20, chunk=3, log_z=log_z)
    assert estimate.value == pytest.approx(3.0 - 1.5)
    assert estimate.std_error == pytest.approx(math.sqrt(x.var().item() / 7 + 0.3**2))
    torch.testing.assert_close(estimate.per_example, x[:, 0].double() - 1.5)
    assert estimate.effective_samples.tolist() == pytest.approx([20.0] * 7)
    assert estimate.warnings == ("chains disagree",)
    assert "log Z 1.500 ± 0.300 (ais)" in str(estimate)
    assert "warning: chains disagree" in str(estimate)


def test_normalised_prior_needs_no_log_z() -> None:
    estimate = log_likelihood(Fixed(), [torch.arange(3.0)[:, None]], num_samples=2)
    assert estimate.value == pytest.approx(1.0)
    assert estimate.log_z is None
    assert "log Z" not in str(estimate)


class Uneven(Fixed):
    """Images with first pixel 1 have equal weights, those with 0 a single one, those with 2 none at all."""

    def log_weights(self, x: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        weights = torch.zeros(num_samples, x.shape[0])
        weights[1:, x[:, 0] == 0] = -1e4
        weights[:, x[:, 0] == 2] = -math.inf
        return weights


def test_a_mean_of_effective_samples_hides_no_loose_images() -> None:
    """41 of 100 images hang on one weight each, and the mean is 17.2."""
    x = (torch.arange(100) >= 41).float()[:, None]
    estimate = log_likelihood(Uneven(), [x], num_samples=28)
    assert estimate.effective_samples.mean() == pytest.approx((41 + 59 * 28) / 100)
    (warning,) = estimate.warnings
    assert warning.startswith("41 % of the examples have fewer than 10 effective importance samples: ")
    assert warning in str(estimate)
    assert log_likelihood(Uneven(), [x[31:]], num_samples=28, chunk=5).warnings[0].startswith("14 % of the examples")
    assert log_likelihood(Uneven(), [x[35:]], num_samples=28).warnings == ()  # 6 of 65


def test_likelihoods_that_are_not_finite_are_named() -> None:
    x = torch.tensor([1.0, 2.0, 1.0, 2.0])[:, None]
    estimate = log_likelihood(Uneven(), [x], num_samples=20)
    assert estimate.value == -math.inf
    assert estimate.warnings == ("2 of 4 examples have a log-likelihood that is not finite",)
    x[1] = math.nan
    estimate = log_likelihood(Fixed(), [x], num_samples=20)
    assert math.isnan(estimate.value)
    assert estimate.warnings == ("1 of 4 examples have a log-likelihood that is not finite",)


class PeakMemory(TorchDispatchMode):
    """The largest number of bytes held at once by tensors made inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.held = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self.seen:
                    self.seen.add(storage._cdata)
                    self.held += storage.nbytes()
                    self.peak = max(self.peak, self.held)
                    weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        return result

    def _free(self, identity: int, size: int) -> None:
        self.seen.discard(identity)
        self.held -= size


def test_memory_is_flat_in_the_number_of_samples() -> None:
    model = tiny()
    x = (torch.rand(20, 12) < 0.4).float()
    peaks = []
    for num_samples in (400, 4000):
        with PeakMemory() as memory:
            log_likelihood(model, [x], num_samples, chunk=100)
        peaks.append(memory.peak)
    assert peaks[1] == peaks[0] > 100 * 20 * 12 * 4  # at least the pixels' logits of one chunk


def test_bad_arguments() -> None:
    for arguments, name in (({"num_samples": 0}, "num_samples"), ({"chunk": 0}, "chunk")):
        with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
            log_likelihood(Fixed(), [torch.zeros(1, 1)], **arguments)
    with pytest.raises(ValueError, match="batches: expected at least one"):
        log_likelihood(Fixed(), [], num_samples=1)
