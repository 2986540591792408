"""MAE's penalty."""

from __future__ import annotations

import pytest
import torch

from dvae_ext import ops
from dvae_ext.objectives import exponential_annealing, mutual_divergence_penalty


def test_weights_the_two_terms() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, logvar = (torch.randn(8, 3, generator=generator, requires_grad=True) for _ in range(2))
    penalty, metrics = mutual_divergence_penalty(mean, logvar, eta=0.7, gamma=0.2)
    diverse, smooth, mpd = ops.mutual_posterior_divergence(mean, logvar)
    torch.testing.assert_close(penalty, 0.7 * diverse + 0.2 * smooth)
    assert metrics["mpd"] == mpd
    assert metrics["mpd_std"] == smooth
    assert not any(value.requires_grad for value in metrics.values())
    penalty.backward()
    assert mean.grad is not None
    assert mean.grad.abs().sum() > 0


def test_a_smoothness_that_is_not_asked_for_may_be_infinite() -> None:
    mean, logvar = torch.tensor([[0.0], [3.0]]), torch.tensor([[-80.0], [80.0]], requires_grad=True)
    penalty, metrics = mutual_divergence_penalty(mean, logvar, eta=1.0, gamma=0.0)
    assert metrics["mpd_std"] == torch.inf
    assert penalty.isfinite()
    assert torch.autograd.grad(penalty, logvar)[0].isfinite().all()


def test_bad_weights() -> None:
    with pytest.raises(ValueError, match="gamma: expected a number ≥ 0, got -1"):
        mutual_divergence_penalty(torch.zeros(3, 2), torch.zeros(3, 2), 1.0, -1.0)


def test_exponential_annealing_is_straight_in_the_logarithm() -> None:
    values = torch.tensor([exponential_annealing(step, 100, 1.0, 0.1, 0.5) for step in range(51)]).log()
    torch.testing.assert_close(values.diff(), values.diff()[:1].expand(50), rtol=1e-3, atol=1e-6)
    assert exponential_annealing(80, 100, 1.0, 0.1, 0.5) == pytest.approx(0.1)
