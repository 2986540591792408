"""The smoothed binary distributions against quadrature, closed forms and goodness-of-fit tests."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Distribution

from dvae_ext.distributions import CoarseGrained, OverlapExponential, OverlapLogistic, SpikeExponential

LOGITS = (-4.0, -0.5, 0.0, 2.0)
KINDS = {
    "overlap_exponential": lambda logits, sharpness: OverlapExponential(logits=logits, beta=sharpness),
    "overlap_logistic": lambda logits, sharpness: OverlapLogistic(logits=logits, scale=1 / sharpness),
    "spike_exponential": lambda logits, sharpness: SpikeExponential(logits=logits, beta=sharpness),
}
CONTINUOUS = ("overlap_exponential", "overlap_logistic")


def build(kind: str, sharpness: float, dtype: torch.dtype = torch.float64) -> Distribution:
    return KINDS[kind](torch.tensor(LOGITS, dtype=dtype), sharpness)


@cache
def quadrature(kind: str, count: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    """Gauss-Legendre nodes and weights on the support, the real line mapped by ζ = tan(πu/2)."""
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(count))
    if kind != "overlap_logistic":
        return (nodes + 1) / 2, weights / 2
    zeta = torch.tan(nodes * math.pi / 2)
    return zeta, weights * math.pi / 2 * (1 + zeta**2)


@pytest.mark.parametrize("sharpness", [1.0, 5.0, 12.0])
@pytest.mark.parametrize("kind", KINDS)
def test_density_integrates_to_one_and_gives_the_moments(kind: str, sharpness: float) -> None:
    distribution = build(kind, sharpness)
    zeta, weights = quadrature(kind)
    mass = distribution.log_prob(zeta[:, None]).exp() * weights[:, None]
    atom = distribution.log_prob(torch.zeros(1, dtype=torch.float64)).exp() if kind == "spike_exponential" else 0.0
    torch.testing.assert_close(mass.sum(0) + atom, torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-6)
    if kind == "overlap_logistic":
        return  # the moments' integrands need another map; the sample test below covers them
    mean = (mass * zeta[:, None]).sum(0)
    torch.testing.assert_close(distribution.mean, mean, rtol=0, atol=1e-9)
    variance = (mass * zeta[:, None] ** 2).sum(0) - mean**2
    torch.testing.assert_close(distribution.variance, variance, rtol=0, atol=1e-9)


@pytest.mark.parametrize("beta", [1e-6, 0.05, 0.199999, 0.2, 1.0, 50.0])
def test_exponential_moments_for_any_beta(beta: float) -> None:
    """The series and the closed form, against moments by quadrature."""
    zeta, weights = quadrature("overlap_exponential")
    density = torch.exp(-beta * zeta) * weights
    density = density / density.sum()
    low = OverlapExponential(logits=torch.tensor(-700.0, dtype=torch.float64), beta=beta)
    mean = (density * zeta).sum()
    torch.testing.assert_close(low.mean, mean, rtol=1e-11, atol=0)
    torch.testing.assert_close(low.variance, (density * (zeta - mean) ** 2).sum(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("sharpness", [1.0, 12.0])
@pytest.mark.parametrize("kind", CONTINUOUS)
def test_samples_follow_the_cdf(kind: str, sharpness: float) -> None:
    """Kolmogorov-Smirnov, 4 logits × 2 sharpnesses × 2 kinds: false alarm 16 · 1e-6 over all cases."""
    torch.manual_seed(1)
    distribution = build(kind, sharpness)
    samples = distribution.sample((20_000,))
    for unit in range(4):
        one = KINDS[kind](distribution.logits[unit], sharpness)
        result = stats.kstest(samples[:, unit].numpy(), lambda v, one=one: one.cdf(torch.from_numpy(v)).numpy())
        assert result.pvalue > 1e-6
    # Means of 20,000 draws within 6 standard errors: false alarm 4 · 2e-9 per case.
    error = (samples.mean(0) - distribution.mean).abs() / (distribution.variance / 20_000).sqrt()
    assert error.max() < 6


def test_spike_samples_have_the_atom_and_the_tail() -> None:
    """Binomial test of the atom and Kolmogorov-Smirnov of the rest: false alarm 8 · 1e-6."""
    torch.manual_seed(2)
    distribution = build("spike_exponential", 5.0)
    samples = distribution.sample((20_000,))
    for unit in range(4):
        zeta = samples[:, unit].numpy()
        q = distribution.probs[unit].item()
        positive = zeta[zeta > 0]
        assert stats.binomtest(len(positive), len(zeta), q).pvalue > 1e-6
        one = SpikeExponential(logits=distribution.logits[unit], beta=5.0)
        result = stats.kstest(positive, lambda v, one=one, q=q: (one.cdf(torch.from_numpy(v)).numpy() - (1 - q)) / q)
        assert result.pvalue > 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sharpness", [1.0, 8.0])
def test_cdf_inverts_icdf(kind: str, sharpness: float) -> None:
    distribution = build(kind, sharpness)
    rho = torch.linspace(0.001, 0.999, 97, dtype=torch.float64)[:, None]
    zeta = distribution.icdf(rho)
    expected = rho.expand(97, 4)
    if kind == "spike_exponential":  # below the atom's mass the inverse is 0, where the CDF is that mass
        expected = torch.maximum(expected, 1 - distribution.probs)
    torch.testing.assert_close(distribution.cdf(zeta), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", CONTINUOUS)
def test_posterior_logits_are_those_of_bayes(kind: str) -> None:
    """Densities of the two components, from saturated logits, give the posterior."""
    distribution = build(kind, 6.0)
    zeta = torch.linspace(0.01, 0.99, 11, dtype=torch.float64)[:, None]
    low, high = (KINDS[kind](torch.tensor(logit, dtype=torch.float64), 6.0) for logit in (-700.0, 700.0))
    expected = distribution.logits + high.log_prob(zeta) - low.log_prob(zeta)
    torch.testing.assert_close(distribution.posterior_logits(zeta), expected, rtol=1e-9, atol=1e-9)
    # The posterior's mean is the prior (the identity that simplifies DVAE++ eq. 6), here by quadrature.
    zeta, weights = quadrature(kind)
    mass = distribution.log_prob(zeta[:, None]).exp() * weights[:, None]
    mean = (mass * torch.sigmoid(distribution.posterior_logits(zeta[:, None]))).sum(0)
    torch.testing.assert_close(mean, distribution.probs, rtol=0, atol=1e-6)


def test_spike_posterior_is_certain() -> None:
    posterior = build("spike_exponential", 6.0).posterior_logits(torch.tensor([[0.0], [0.5]], dtype=torch.float64))
    assert posterior.tolist() == [[-math.inf] * 4, [math.inf] * 4]


@pytest.mark.parametrize("kind", KINDS)
def test_rsample_is_differentiable_and_reproducible(kind: str) -> None:
    logits = torch.tensor(LOGITS, requires_grad=True)
    distribution = KINDS[kind](logits, 6.0)
    torch.manual_seed(3)
    first = distribution.rsample((500,))
    torch.manual_seed(3)
    second = distribution.sample((500,))
    assert torch.equal(first.detach(), second)
    assert not second.requires_grad
    (gradient,) = torch.autograd.grad(first.sum(), logits)
    assert bool(torch.all(gradient > 0))  # every sample grows with its logit


@pytest.mark.parametrize("kind", KINDS)
def test_every_device_gives_the_same_values(kind: str, device: torch.device) -> None:
    distribution = KINDS[kind](torch.tensor(LOGITS, dtype=torch.float64, device=device), 6.0)
    zeta = distribution.rsample((1000,))
    assert zeta.device.type == device.type
    expected = build(kind, 6.0)
    assert torch.all((expected.cdf(zeta.cpu()) >= 0) & (expected.cdf(zeta.cpu()) <= 1))
    rho = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)[:, None]
    torch.testing.assert_close(distribution.icdf(rho.to(device)).cpu(), expected.icdf(rho), rtol=0, atol=1e-12)
    point = torch.tensor(0.3, dtype=torch.float64)
    torch.testing.assert_close(distribution.log_prob(point.to(device)).cpu(), expected.log_prob(point))


@pytest.mark.parametrize("kind", [*KINDS, "coarse_grained"])
def test_results_follow_the_parameters_and_not_the_default_device(kind: str) -> None:
    logits, value = torch.tensor(LOGITS), torch.full((4,), 0.3)
    torch.set_default_device("meta")
    try:
        if kind == "coarse_grained":
            distribution: Distribution = CoarseGrained(logits[:, None])
        else:
            distribution = KINDS[kind](logits, 6.0)
        results = [distribution.rsample((2,)), distribution.mean, distribution.variance]
        results += [getattr(distribution, name)(value) for name in ("log_prob", "cdf", "icdf")]
        distribution._validate_args = False
        results += [getattr(distribution, name)(0.3) for name in ("log_prob", "cdf", "icdf")]
    finally:
        torch.set_default_device(None)
    assert all(result.device.type == "cpu" and bool(result.isfinite().all()) for result in results)


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_expand(kind: str) -> None:
    torch.manual_seed(4)
    distribution = KINDS[kind](torch.zeros(2, 1), torch.tensor([4.0, 5.0, 6.0]))
    assert distribution.batch_shape == (2, 3)
    assert distribution.event_shape == ()
    assert distribution.rsample((5, 6)).shape == (5, 6, 2, 3)
    expanded = distribution.expand((4, 2, 3))
    assert type(expanded) is type(distribution)
    assert expanded.batch_shape == (4, 2, 3)
    assert expanded.rsample((5,)).shape == (5, 4, 2, 3)
    zeta = torch.full((2, 3), 0.3)
    torch.testing.assert_close(expanded.log_prob(zeta)[0], distribution.log_prob(zeta))
    torch.testing.assert_close(expanded.cdf(zeta)[0], distribution.cdf(zeta))
    torch.testing.assert_close(expanded.posterior_logits(zeta)[0], distribution.posterior_logits(zeta))
    for moment in ("mean", "variance"):
        torch.testing.assert_close(getattr(expanded, moment)[0], getattr(distribution, moment))
    assert KINDS[kind](0.3, 5.0).rsample().shape == ()
    assert KINDS[kind](torch.zeros(0, 3), 5.0).rsample().shape == (0, 3)
    with pytest.raises(RuntimeError):
        distribution.expand((4, 2, 2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_half_types_draw_with_float32_uniforms(kind: str, dtype: torch.dtype) -> None:
    """8-bit uniforms would be 0 once in 256 draws; at logit 7 z = 0 has probability 0.0009."""
    torch.manual_seed(5)
    zeta = KINDS[kind](torch.full((50_000,), 7.0, dtype=dtype), 8.0).rsample()
    assert zeta.dtype == dtype
    low = (zeta < 0.05).double().mean().item()
    assert 0.0002 < low < 0.002  # 10 to 100 draws where about 40 are expected: false alarm below 1e-6


@pytest.mark.parametrize("distribution", [OverlapExponential, OverlapLogistic, SpikeExponential])
def test_bad_parameters(distribution: type[Distribution]) -> None:
    with pytest.raises(ValueError, match="exactly one of logits and probs, got none"):
        distribution()
    with pytest.raises(ValueError, match="exactly one of logits and probs, got both"):
        distribution(probs=torch.tensor(0.5), logits=torch.tensor(0.0))
    for bad in (1.5, -0.1, math.nan):
        with pytest.raises(ValueError, match="probs"):
            distribution(probs=torch.tensor([0.5, bad]), validate_args=True)
    with pytest.raises(ValueError, match="logits"):
        distribution(logits=torch.tensor([0.0, math.nan]), validate_args=True)
    with pytest.raises(TypeError, match="probs: expected a floating point tensor"):
        distribution(probs=torch.tensor([1, 0]))
    assert distribution(logits=torch.tensor([math.nan, 0.0]), validate_args=False).rsample().isnan().tolist() == [
        True,
        False,
    ]


@pytest.mark.parametrize("distribution", [OverlapExponential, SpikeExponential])
def test_bad_beta_and_values(distribution: type[Distribution]) -> None:
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="beta"):
            distribution(logits=torch.zeros(2), beta=bad, validate_args=True)
    good = distribution(logits=torch.zeros(2), beta=5.0, validate_args=True)
    for bad in (-0.1, 1.1, math.nan):
        for method in (good.log_prob, good.cdf, good.icdf):
            with pytest.raises(ValueError):
                method(torch.tensor([0.5, bad]))


def test_bad_logistic_parameters() -> None:
    with pytest.raises(ValueError, match="scale"):
        OverlapLogistic(logits=torch.zeros(2), scale=-1.0, validate_args=True)
    with pytest.raises(ValueError, match="mu1"):
        OverlapLogistic(logits=torch.zeros(2), mu0=1.0, mu1=1.0, validate_args=True)


def test_probabilities_of_zero_and_one_are_finite() -> None:
    for distribution in (OverlapExponential, OverlapLogistic, SpikeExponential):
        zeta = distribution(probs=torch.tensor([0.0, 1.0])).rsample((1000,))
        assert bool(torch.isfinite(zeta).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sharpness", [1e-30, 0.1, 5.0, 87.0, 89.0, 200.0, 1e30])
def test_moments_have_finite_gradients(kind: str, sharpness: float) -> None:
    """At every sharpness, and equal to those of float64."""
    results = []
    for dtype in (torch.float32, torch.float64):
        parameter = torch.tensor(sharpness, dtype=dtype, requires_grad=True)
        distribution = KINDS[kind](torch.tensor([-0.5, 2.0], dtype=dtype), parameter)
        for moment in (distribution.mean, distribution.variance):
            if moment.requires_grad and not (kind == "overlap_logistic" and sharpness < 1):
                (slope,) = torch.autograd.grad(moment.sum(), parameter)
                assert slope.isfinite()
                results.append((moment.detach(), slope))
    half = len(results) // 2
    for (moment, slope), (wide_moment, wide_slope) in zip(results[:half], results[half:], strict=True):
        torch.testing.assert_close(moment.double(), wide_moment, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(slope.double(), wide_slope, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_dtypes_are_promoted_as_in_arithmetic(kind: str) -> None:
    double, half = torch.float64, torch.bfloat16
    build_one = KINDS[kind]
    cases = [
        (torch.zeros(3), torch.full((3,), 6.0, dtype=double), double),
        (torch.zeros(3), torch.tensor(6.0, dtype=double), torch.float32),
        (torch.zeros(3, dtype=half), torch.full((3,), 6.0), torch.float32),
        (torch.zeros(3), torch.tensor([6, 6, 6]), torch.float32),
        (0.0, torch.tensor(6), torch.float32),
        (0.0, torch.full((3,), 6.0, dtype=double), double),
    ]
    for logits, sharpness, dtype in cases:
        distribution = build_one(logits, sharpness)
        assert distribution.logits.dtype == distribution.mean.dtype == distribution.variance.dtype == dtype
        zeta = distribution.rsample((2,))
        assert zeta.dtype == distribution.log_prob(zeta).dtype == distribution.cdf(zeta).dtype == dtype
    narrow = build_one(torch.zeros(3), 6.0)
    value = torch.full((3,), 0.25, dtype=double)
    wide = build_one(torch.zeros(3, dtype=double), 6.0)
    for name in ("log_prob", "cdf", "icdf"):
        for distribution, argument in ((narrow, value), (wide, value.float())):
            result = getattr(distribution, name)(argument)
            assert result.dtype == double
            torch.testing.assert_close(result, getattr(wide, name)(value), rtol=1e-6, atol=1e-6)
        assert getattr(narrow, name)(value[0]).dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_and_values_outside_without_validation(kind: str) -> None:
    logits = torch.tensor([0.0, -1.0])
    checked = KINDS[kind](logits, 6.0)
    checked._validate_args = True  # whatever the default is
    with pytest.raises(ValueError, match=r"value: expected a tensor|must be a Tensor"):
        checked.icdf(0.25)
    with pytest.raises(ValueError, match="must be a Tensor"):
        checked.log_prob(0.25)
    free = KINDS[kind](logits, 6.0)
    free._validate_args = False
    for name in ("log_prob", "cdf", "icdf"):
        expected = getattr(checked, name)(torch.tensor(0.25))
        torch.testing.assert_close(getattr(free, name)(0.25), expected)
        # A number has all of its digits beside parameters in float64.
        wide = KINDS[kind](logits.double(), 6.0)
        wide._validate_args = False
        expected = getattr(wide, name)(torch.tensor(0.3, dtype=torch.float64))
        torch.testing.assert_close(getattr(wide, name)(0.3), expected, rtol=1e-14, atol=0)
    assert free.icdf(torch.tensor(1.5)).isnan().all()
    if kind != "overlap_logistic":
        for outside, below in ((-0.5, 0.0), (1.5, 1.0)):
            assert free.log_prob(torch.tensor(outside)).tolist() == [-math.inf] * 2
            torch.testing.assert_close(free.cdf(torch.tensor(outside)), torch.full((2,), below))
    assert free.log_prob(torch.tensor(math.nan)).isnan().all()
    assert free.cdf(torch.tensor(math.nan)).isnan().all()


@pytest.mark.parametrize("kind", KINDS)
def test_infinite_logits_are_those_of_a_certain_variable(kind: str) -> None:
    certain, saturated = (torch.tensor([-x, x], dtype=torch.float64, requires_grad=True) for x in (math.inf, 700.0))
    for name in ("log_prob", "cdf", "icdf"):
        value = torch.tensor([[0.2], [0.7]], dtype=torch.float64)
        results = [getattr(KINDS[kind](logits, 6.0), name)(value) for logits in (certain, saturated)]
        if not (kind == "spike_exponential" and name == "log_prob"):
            torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)
            slopes = [torch.autograd.grad(r.sum(), x)[0] for r, x in zip(results, (certain, saturated), strict=True)]
            torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-12)
    density = KINDS[kind](certain, 6.0).log_prob(torch.tensor(0.5, dtype=torch.float64))
    assert not density.isnan().any()
