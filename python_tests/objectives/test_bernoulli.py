"""The Bernoulli log-likelihood and schedules."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli

from dvae_ext.objectives import (
    bernoulli_log_likelihood,
    linear_warmup,
    log_likelihood_of_samples,
    piecewise_constant,
)


def test_matches_torch_distributions() -> None:
    torch.manual_seed(12)
    q = torch.randn(5, 7, dtype=torch.float64) * 3
    value = (torch.rand(5, 7) < 0.5).double()
    torch.testing.assert_close(bernoulli_log_likelihood(value, q), Bernoulli(logits=q).log_prob(value).sum(-1))


def test_value_and_gradient_are_finite_at_saturation() -> None:
    logits = torch.tensor([-200.0, -30.0, 0.0, 30.0, 200.0], requires_grad=True)
    loss = bernoulli_log_likelihood(torch.ones(5), logits)
    loss.backward()
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())
    assert bool(torch.isfinite(loss))


def test_certain_variables() -> None:
    value = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.5])
    logits = torch.tensor([-torch.inf, torch.inf, torch.inf, -torch.inf, 0.0], requires_grad=True)
    result = bernoulli_log_likelihood(value[:, None], logits[:, None])
    assert result.tolist() == pytest.approx([0, -torch.inf, 0, -torch.inf, -math.log(2)])
    (gradient,) = torch.autograd.grad(result.sum(), logits)
    assert gradient.tolist() == [0, -1, 0, 1, 0]  # value - probability


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_computed_in_float32(dtype: torch.dtype) -> None:
    """784 terms of which 16 bits keep two or three digits."""
    logits = 3 * torch.randn(5, 784, generator=torch.Generator().manual_seed(3)).to(dtype)
    value = (torch.rand(5, 784, generator=torch.Generator().manual_seed(4)) < 0.5).to(dtype)
    expected = bernoulli_log_likelihood(value.float(), logits.float())
    assert torch.equal(bernoulli_log_likelihood(value, logits), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(bernoulli_log_likelihood(value.float(), logits), expected)


def test_likelihoods_of_many_samples() -> None:
    logits = 3 * torch.randn(6, 5, 784, generator=torch.Generator().manual_seed(3))
    value = (torch.rand(5, 784, generator=torch.Generator().manual_seed(4)) < 0.5).float()
    expected = log_likelihood_of_samples(value, logits)
    torch.testing.assert_close(expected, bernoulli_log_likelihood(value, logits))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(log_likelihood_of_samples(value, logits), expected)


def test_schedules() -> None:
    assert [linear_warmup(step, 1000, 0.3) for step in (0, 150, 300, 999)] == [0.0, 0.5, 1.0, 1.0]
    assert linear_warmup(0, 1000, 0.0) == 1.0
    breaks, values = (0.02, 0.6), (0.1, 1.0, 0.3)
    assert [piecewise_constant(step, 1000, breaks, values) for step in (0, 19, 20, 599, 600, 1000)] == [
        0.1, 0.1, 1.0, 1.0, 0.3, 0.3,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="values: expected 2 for 1 breaks, got 1"):
        piecewise_constant(0, 10, [0.5], [1.0])
