"""The Bernoulli log-likelihood and schedules."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Bernoulli

from dvae_ext.objectives import bernoulli_log_likelihood, linear_warmup, piecewise_constant


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


def test_schedules() -> None:
    assert [linear_warmup(step, 1000, 0.3) for step in (0, 150, 300, 999)] == [0.0, 0.5, 1.0, 1.0]
    assert linear_warmup(0, 1000, 0.0) == 1.0
    breaks, values = (0.02, 0.6), (0.1, 1.0, 0.3)
    assert [piecewise_constant(step, 1000, breaks, values) for step in (0, 19, 20, 599, 600, 1000)] == [
        0.1, 0.1, 1.0, 1.0, 0.3, 0.3,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="values: expected 2 for 1 breaks, got 1"):
        piecewise_constant(0, 10, [0.5], [1.0])
