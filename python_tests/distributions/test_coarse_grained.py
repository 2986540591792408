"""The coarse-grained distribution against SciPy and its own pieces."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch.distributions import kl_divergence

from dvae_ext.distributions import CoarseGrained


def truncated_normal(location: float, scale: float, **options) -> CoarseGrained:
    coefficients = torch.tensor([location / scale**2, -0.5 / scale**2], dtype=torch.float64)
    return CoarseGrained(coefficients, num_points=2001, **options)


def test_order_two_is_a_truncated_normal() -> None:
    ours = truncated_normal(0.3, 0.4)
    theirs = stats.truncnorm((-1 - 0.3) / 0.4, (1 - 0.3) / 0.4, loc=0.3, scale=0.4)
    z = torch.linspace(-1, 1, 41, dtype=torch.float64)
    torch.testing.assert_close(ours.log_prob(z), torch.from_numpy(theirs.logpdf(z)), rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.cdf(z), torch.from_numpy(theirs.cdf(z)), rtol=0, atol=1e-6)
    u = torch.linspace(0, 1, 41, dtype=torch.float64)
    torch.testing.assert_close(ours.icdf(u), torch.from_numpy(theirs.ppf(u)), rtol=0, atol=1e-6)
    assert ours.mean.item() == pytest.approx(theirs.mean(), abs=2e-3)
    assert ours.variance.item() == pytest.approx(theirs.var(), abs=2e-3)


def test_icdf_inverts_cdf() -> None:
    coefficients = 5 * torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    distribution = CoarseGrained(coefficients)
    u = torch.rand(10, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(distribution.cdf(distribution.icdf(u)), u, rtol=0, atol=1e-9)


def test_density_integrates_to_one() -> None:
    coefficients = 1.5 * torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = torch.linspace(-1, 1, 100_001, dtype=torch.float64)[:, None]
    total = torch.trapezoid(CoarseGrained(coefficients, num_points=401).log_prob(z).exp(), z, dim=0)
    torch.testing.assert_close(total, torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-3)


def test_samples_follow_the_density_at_low_temperature() -> None:
    """Kolmogorov-Smirnov at a false-alarm rate of 1e-3; 4000 draws see nothing of a grid of 401 points."""
    torch.manual_seed(0)
    distribution = CoarseGrained(torch.tensor([1.0, -3.0, 2.0]), temperature=1e-3, num_points=401)
    z = distribution.rsample((4000,))
    assert stats.kstest(z.numpy(), lambda v: distribution.cdf(torch.from_numpy(v)).numpy()).pvalue > 1e-3


def test_shapes_expand_and_gradients() -> None:
    coefficients = torch.zeros(3, 2, requires_grad=True)
    distribution = CoarseGrained(coefficients)
    assert distribution.batch_shape == (3,)
    wide = distribution.expand((4, 3))
    assert wide.rsample((2,)).shape == (2, 4, 3)
    assert wide.log_prob(torch.zeros(4, 3)).shape == (4, 3)
    wide.rsample().sum().backward()
    assert coefficients.grad is not None
    assert CoarseGrained(torch.zeros(2)).rsample().shape == ()
    assert CoarseGrained(torch.zeros(2)).sample((5,)).requires_grad is False


def test_manual_seed_decides() -> None:
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(CoarseGrained(torch.zeros(4, 2)).sample())
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_kl_is_registered() -> None:
    q = CoarseGrained(torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0)))
    p = CoarseGrained(torch.zeros(3, 2))
    expected = (q.probs * (q.logits - p.logits)).sum(-1)
    torch.testing.assert_close(kl_divergence(q, p), expected, rtol=1e-4, atol=1e-6)
    assert kl_divergence(q, q).abs().max() == 0
    torch.testing.assert_close(kl_divergence(p, p.expand((3,))), torch.zeros(3))
    with pytest.raises(ValueError, match="expected equal num_points and orders"):
        kl_divergence(q, CoarseGrained(torch.zeros(3, 2), num_points=51))


def test_uniform() -> None:
    uniform = CoarseGrained(torch.zeros(2, dtype=torch.float64))
    assert uniform.log_prob(torch.tensor(0.3, dtype=torch.float64)).item() == pytest.approx(-math.log(2))
    assert uniform.cdf(torch.tensor(0.0, dtype=torch.float64)).item() == pytest.approx(0.5)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="num_points: expected at least 5"):
        CoarseGrained(torch.zeros(3), num_points=4)
    with pytest.raises(ValueError, match="temperature: expected a positive finite number"):
        CoarseGrained(torch.zeros(3), temperature=0.0)
    for tensor in (torch.tensor(0.5), torch.tensor(0.5, requires_grad=True)):
        with pytest.raises(TypeError, match="temperature: expected a number, got a tensor"):
            CoarseGrained(torch.zeros(3), temperature=tensor)
    with pytest.raises(TypeError, match="coefficients: expected a floating point tensor"):
        CoarseGrained(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="coefficients: expected at least one dimension"):
        CoarseGrained(torch.tensor(1.0))
    with pytest.raises(ValueError, match="within the support"):
        CoarseGrained(torch.zeros(3), validate_args=True).log_prob(torch.tensor(2.0))


@pytest.mark.parametrize("num_points", [4, 7, 101])
def test_one_density_gives_everything(num_points: int) -> None:
    """The density integrates to one, the distribution function is its integral, the moments are its moments."""
    coefficients = torch.tensor([[1.0, 2.0], [-6.0, 3.0]], dtype=torch.float64)
    distribution = CoarseGrained(coefficients, num_points=num_points)
    cells = num_points - 1
    z = torch.linspace(-1, 1, cells * 2000 + 1, dtype=torch.float64)[:, None]
    density = distribution.log_prob(z).exp()
    total = torch.cumulative_trapezoid(density, z, dim=0)
    torch.testing.assert_close(total[-1], torch.ones(2, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(distribution.cdf(z[1:]), total, rtol=0, atol=1e-12)
    mean = torch.trapezoid(density * z, z, dim=0)
    torch.testing.assert_close(distribution.mean, mean, rtol=0, atol=1e-7)
    variance = torch.trapezoid(density * (z - mean) ** 2, z, dim=0)
    torch.testing.assert_close(distribution.variance, variance, rtol=0, atol=1e-7)


def test_log_prob_holds_for_steep_polynomials_and_outside() -> None:
    coefficients = torch.tensor([5000.0, 0.0], requires_grad=True)
    distribution = CoarseGrained(coefficients, num_points=5, validate_args=False)
    z = torch.tensor([-1.0, -0.75, 0.25, 1.0, 1.5, math.nan])
    log_prob = distribution.log_prob(z)
    height = math.log(4)  # the last hat has all of the mass
    expected = [-10000 + height, -7500 + height - math.log(2), -2500 + height - math.log(2), height, -math.inf]
    torch.testing.assert_close(log_prob[:5], torch.tensor(expected), rtol=0, atol=1e-3)
    assert log_prob[5].isnan()
    assert distribution.cdf(z).isnan().tolist() == [False] * 5 + [True]
    (slope,) = torch.autograd.grad(log_prob[:4].sum(), coefficients)
    torch.testing.assert_close(slope, torch.tensor([-1 - 0.5 + 0.5 + 1 - 4, 1 + 0.25 + 0.25 + 1 - 4]))


def test_values_outside_of_the_range_are_refused_or_answered() -> None:
    checked, free = (CoarseGrained(torch.tensor([1.0, -2.0]), validate_args=check) for check in (True, False))
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"value: expected a tensor of probabilities in \[0, 1\]"):
            checked.icdf(torch.tensor([0.5, bad]))
        assert free.icdf(torch.tensor([0.5, bad])).isnan().tolist() == [False, True]
    for bad in (-1.1, 1.1, math.nan):
        for method in (checked.log_prob, checked.cdf):
            with pytest.raises(ValueError, match="within the support"):
                method(torch.tensor([0.5, bad]))
    torch.testing.assert_close(free.cdf(torch.tensor([-1.1, 1.1])), torch.tensor([0.0, 1.0]))
    assert free.log_prob(torch.tensor([-1.1, 1.1])).tolist() == [-math.inf] * 2
    torch.testing.assert_close(checked.icdf(torch.tensor([0.0, 1.0])), torch.tensor([-1.0, 1.0]))
    for name in ("log_prob", "cdf", "icdf"):
        torch.testing.assert_close(getattr(free, name)(0.25), getattr(checked, name)(torch.tensor(0.25)))


def test_empty_batches_and_samples() -> None:
    for batch in ((0,), (3, 0), (0, 2)):
        coefficients = torch.zeros(*batch, 2, requires_grad=True)
        distribution = CoarseGrained(coefficients)
        z = distribution.rsample((4,))
        assert z.shape == (4, *batch)
        z.sum().backward()
        assert coefficients.grad is not None
        assert coefficients.grad.shape == (*batch, 2)
        assert distribution.mean.shape == distribution.log_prob(torch.zeros(batch)).shape == batch
        assert kl_divergence(distribution, CoarseGrained(torch.zeros(*batch, 2))).shape == batch
    assert CoarseGrained(torch.zeros(3, 2)).rsample((0,)).shape == (0, 3)
    assert CoarseGrained(torch.zeros(2)).rsample((2, 0)).shape == (2, 0)


def test_values_of_another_dtype_are_promoted() -> None:
    distribution = CoarseGrained(torch.tensor([[1.0, -2.0], [0.0, 1.0]]))
    value = torch.tensor([0.3, 0.4], dtype=torch.float64)
    for method in (distribution.log_prob, distribution.cdf, distribution.icdf):
        assert method(value).dtype == torch.float64
        torch.testing.assert_close(method(value).float(), method(value.float()), rtol=1e-5, atol=1e-6)
