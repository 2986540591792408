"""Overlapping exponential: accuracy against 50-digit arithmetic, gradients, boundaries, bad input."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from elementwise_checks import Case, check_everything_common

from dvae_ext import ops, reference

BETAS = [1, 2, 5, 8, 12, 20, 50, 100]
LOGITS = [sign * value for value in (0, 0.5, 3, 10, 17, 30, 100) for sign in (1, -1)]
RHOS = [0.0, 2.0**-24, 1e-3, 0.25, 0.5, 0.75, 1 - 1e-3, 1 - 2.0**-24]
SMALLEST_NORMAL = {torch.float32: 1.2e-38, torch.float64: 2.3e-308}

ICDF = Case(
    ops.overlap_exponential_icdf, reference.overlap_exponential_icdf, names=("rho", "logits"), parameters=(8.0,)
)
LOG_PROB = Case(
    ops.overlap_exponential_log_prob,
    reference.overlap_exponential_log_prob,
    names=("zeta", "logits"),
    parameters=(8.0,),
)


def grid(dtype: torch.dtype) -> list[torch.Tensor]:
    """rho, logits, beta: every combination, after rounding to float32 so that both precisions see the same points."""
    points = torch.tensor(list(itertools.product(RHOS, LOGITS, BETAS)), dtype=torch.float64).float()
    return [column.contiguous().to(dtype) for column in points.unbind(1)]


@pytest.fixture(scope="module")
def exact() -> list[tuple[mpmath.mpf, ...]]:
    """zeta, its three derivatives and the magnitude of the terms of the last, from the textbook root in 60 digits."""
    values = []
    with mpmath.workdps(60):
        for rho, logits, beta in zip(*(column.tolist() for column in grid(torch.float64)), strict=True):
            rho, logits, beta = mpmath.mpf(rho), mpmath.mpf(logits), mpmath.mpf(beta)
            q, p, e = 1 / (1 + mpmath.exp(-logits)), 1 / (1 + mpmath.exp(logits)), mpmath.exp(-beta)
            d = 1 - e
            b = rho * d + q * e - p
            root = mpmath.sqrt(b * b + 4 * p * q * e)
            m = (root - b) / (2 * p) if b < 0 else 2 * q * e / (b + root)
            zeta = -mpmath.log(m) / beta
            density = beta * root / d
            lower, upper = 1 - m, 1 - e / m
            term0 = p * (zeta * m - e * lower / d) / d / density
            term1 = q * (e * upper / d - (1 - zeta) * e / m) / d / density
            slope_rho, slope_logits = d / (beta * root), p * q * lower * upper / (beta * root)
            values.append((zeta, slope_rho, slope_logits, -(term0 + term1), abs(term0) + abs(term1)))
    return values


@pytest.mark.parametrize(
    ("dtype", "zeta_error", "slope_error"), [(torch.float32, 5e-7, 1e-5), (torch.float64, 1e-13, 1e-12)]
)
def test_accuracy_on_the_grid(device, exact, dtype, zeta_error, slope_error):
    arguments = [column.to(device).requires_grad_() for column in grid(dtype)]
    zeta = ops.overlap_exponential_icdf(*arguments)
    slopes = torch.autograd.grad(zeta.sum(), arguments)
    for result in (zeta, *slopes):
        assert result.isfinite().all()
    rho = arguments[0].tolist()
    largest = torch.finfo(dtype).max
    for i, (true_zeta, *true_slopes, beta_terms) in enumerate(exact):
        assert abs(zeta[i].item() - true_zeta) <= zeta_error
        for k, (slope, true) in enumerate(zip(slopes, true_slopes, strict=True)):
            got = slope[i].item()
            if k == 0 and true > largest / 1e4:
                assert got > 1e30  # past the format's range: held finite
            elif k > 0 and rho[i] == 0:
                assert abs(got) <= 1e-7  # exactly zero: zeta stays at 0
            else:
                # The beta slope is a difference of two terms and passes through zero.
                scale = beta_terms if k == 2 else abs(true)
                assert abs(got - true) <= slope_error * scale + 2 * SMALLEST_NORMAL[dtype], (k, i)


@pytest.mark.parametrize("case", [ICDF, LOG_PROB], ids=["icdf", "log_prob"])
def test_common(device, case):
    check_everything_common(case, device)


@pytest.mark.parametrize("case", [ICDF, LOG_PROB], ids=["icdf", "log_prob"])
def test_second_order(device, case):
    generator = torch.Generator().manual_seed(1)
    first = torch.rand(6, dtype=torch.float64, generator=generator).to(device).requires_grad_()
    logits = (4 * torch.randn(6, dtype=torch.float64, generator=generator)).to(device).requires_grad_()
    beta = torch.tensor([1.0, 3.0, 8.0, 8.0, 12.0, 2.0], dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradgradcheck(case.op, (first, logits, beta))
    scalar = torch.tensor(5.0, dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradgradcheck(case.op, (first, logits, scalar))


@pytest.mark.parametrize("case", [ICDF, LOG_PROB], ids=["icdf", "log_prob"])
def test_second_order_is_finite_at_saturated_logits(device, case):
    first = torch.rand(8, device=device, generator=torch.Generator(device).manual_seed(0)).requires_grad_()
    logits = torch.tensor([-100.0, -30, -17, 0, 0, 17, 30, 100], device=device, requires_grad=True)
    (slope,) = torch.autograd.grad(case.op(first, logits, 8.0).sum(), logits, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), logits)
    assert curvature.isfinite().all()


@pytest.mark.parametrize("beta", [1.0, 8.0, 20.0])
def test_mean_slope_identity(device, beta):
    """E_rho[d zeta / d q] = coth(beta/2) - 2/beta for every q: the midpoint rule on a fine grid."""
    rho = ((torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000).to(device)
    for logits in (-3.0, 0.0, 2.0):
        argument = torch.full_like(rho, logits).requires_grad_()
        (slope,) = torch.autograd.grad(ops.overlap_exponential_icdf(rho, argument, beta).sum(), argument)
        q = 1 / (1 + math.exp(-logits))
        mean = slope.mean().item() / (q * (1 - q))
        assert mean == pytest.approx(1 / math.tanh(beta / 2) - 2 / beta, rel=1e-4)


def test_log_prob_integrates_to_one_and_matches_the_icdf(device):
    for logits, beta in ((-2.0, 5.0), (0.0, 8.0), (4.0, 1.0)):
        rho = torch.linspace(0, 1, 20_001, dtype=torch.float64, device=device).requires_grad_()
        zeta = ops.overlap_exponential_icdf(rho, torch.full_like(rho, logits).detach(), beta)
        (slope,) = torch.autograd.grad(zeta.sum(), rho)
        log_prob = ops.overlap_exponential_log_prob(zeta.detach(), torch.full_like(rho, logits).detach(), beta)
        torch.testing.assert_close(log_prob.detach(), -slope.log(), rtol=1e-9, atol=1e-9)
        grid_points = torch.linspace(0, 1, 20_001, dtype=torch.float64, device=device)
        density = ops.overlap_exponential_log_prob(grid_points, torch.full_like(grid_points, logits), beta).exp()
        assert torch.trapezoid(density, grid_points).item() == pytest.approx(1, abs=1e-7)


def test_log_prob_outside_the_support_is_minus_infinity(device):
    zeta = torch.tensor([-0.1, 1.1, math.nan], device=device, requires_grad=True)
    result = ops.overlap_exponential_log_prob(zeta, torch.zeros(3, device=device), 8.0)
    assert result[:2].tolist() == [-math.inf, -math.inf]
    assert result[2].isnan()
    (slope,) = torch.autograd.grad(result[:2].sum(), zeta)
    assert slope[:2].tolist() == [0, 0]


def test_arguments_outside_their_range_give_nan(device):
    rho = torch.tensor([-0.1, 1.1, 0.5, 0.5], device=device)
    beta = torch.tensor([8.0, 8.0, -1.0, 0.0], device=device)
    assert ops.overlap_exponential_icdf(rho, torch.zeros(4, device=device), beta).isnan().all()


def test_infinite_logits_are_certain(device):
    logits = torch.tensor([math.inf, -math.inf], device=device, requires_grad=True)
    zeta = ops.overlap_exponential_icdf(torch.tensor([0.5, 0.5], device=device), logits, 8.0)
    assert zeta[0] > 0.9
    assert zeta[1] < 0.1
    (slope,) = torch.autograd.grad(zeta.sum(), logits)
    assert slope.tolist() == [0, 0]


@pytest.mark.parametrize("beta", [-1.0, 0.0, math.nan, math.inf])
def test_bad_beta_is_named(beta):
    with pytest.raises(ValueError, match=r"overlap_exponential_icdf: beta is .*, expected a positive finite number"):
        ops.overlap_exponential_icdf(torch.rand(3), torch.zeros(3), beta)


def test_numbers_of_numpy_are_numbers():
    rho, logits = torch.rand(3), torch.zeros(3)
    expected = ops.overlap_exponential_icdf(rho, logits, 8.0)
    for beta in (np.float32(8), np.float64(8), np.float16(8)):
        assert torch.equal(ops.overlap_exponential_icdf(rho, logits, beta), expected)


def test_an_empty_batch_of_rows_has_empty_gradients():
    logits = torch.zeros(0, 3, requires_grad=True)
    beta = torch.tensor(8.0, requires_grad=True)
    ops.overlap_exponential_icdf(torch.rand(0, 3), logits, beta).sum().backward()
    assert logits.grad.shape == (0, 3)
    assert beta.grad == 0
    ops.overlap_exponential_icdf(torch.rand(0, 3), logits, 8.0).sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [8.0, 120.0, 800.0])
def test_ends_map_to_ends_however_small_their_density(device, dtype, beta):
    logits = torch.tensor([-math.inf, -800, -200, -103, -100, 0, 100, 200, 800, math.inf], dtype=dtype, device=device)
    for end in (0.0, 1.0):
        rho = torch.full_like(logits, end).requires_grad_()
        leaf = logits.clone().requires_grad_()
        zeta = ops.overlap_exponential_icdf(rho, leaf, beta)
        torch.testing.assert_close(zeta.detach(), torch.full_like(logits, end), rtol=0, atol=3e-7)
        assert not torch.signbit(zeta).any()
        for slope in torch.autograd.grad(zeta.sum(), (rho, leaf)):
            assert slope.isfinite().all()


def test_log_prob_of_a_certain_variable_is_the_component_s(device):
    """log r(zeta | 0) = ln beta - ln(1 - e^-beta) - beta zeta; the other one is its mirror image."""
    beta = 8.0
    zeta = torch.tensor([0.0, 0.3, 0.5, 0.7, 1.0], dtype=torch.float64, device=device)
    zero = math.log(beta) - math.log(-math.expm1(-beta)) - beta * zeta
    for infinity, expected in ((-math.inf, zero), (math.inf, zero.flip(0))):
        for dtype, tolerance in ((torch.float32, 2e-6), (torch.float64, 1e-14)):
            logits = torch.full((5,), infinity, dtype=dtype, device=device)
            result = ops.overlap_exponential_log_prob(zeta.to(dtype), logits, beta)
            torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)
        reference_value = reference.overlap_exponential_log_prob(zeta, logits, beta)
        torch.testing.assert_close(reference_value, expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("case", [ICDF, LOG_PROB], ids=["icdf", "log_prob"])
def test_derivatives_at_infinite_logits_are_those_of_saturated_ones(device, case):
    def derivatives(size):
        first = torch.tensor([0.3, 0.3, 0.7, 0.7], dtype=torch.float64, device=device, requires_grad=True)
        logits = torch.tensor([size, -size, size, -size], dtype=torch.float64, device=device, requires_grad=True)
        beta = torch.tensor(8.0, dtype=torch.float64, device=device, requires_grad=True)
        arguments = (first, logits, beta)
        slopes = torch.autograd.grad(case.op(*arguments).sum(), arguments, create_graph=True)
        curvatures = torch.autograd.grad(sum((i + 1) * s.sum() for i, s in enumerate(slopes)), arguments)
        return [*slopes, *curvatures]

    for certain, saturated in zip(derivatives(math.inf), derivatives(90.0), strict=True):
        torch.testing.assert_close(certain, saturated, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "function", [ops.overlap_exponential_icdf, reference.overlap_exponential_icdf], ids=["op", "reference"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [100.0, 200.0, 1000.0, 3000.0])
def test_half_way_between_steep_components(function, dtype, beta, device):
    """rho = 1 - q exactly: B vanishes beside T = exp(-beta/2), whose square underflows or which is 0 itself."""
    arguments = [torch.tensor(x, dtype=dtype, device=device, requires_grad=True) for x in (0.5, 0.0, beta)]
    zeta = function(*arguments)
    assert zeta.item() == pytest.approx(0.5, abs=1e-7)
    by_rho, by_logits, by_beta = (g.item() for g in torch.autograd.grad(zeta, arguments))
    assert by_beta == pytest.approx(0, abs=1e-9)
    if beta == 100 or (dtype == torch.float64 and beta < 1400):
        slope = math.exp(beta / 2) / beta
        assert by_rho == pytest.approx(slope, rel=1e-5)
        assert by_logits == pytest.approx(slope / 4, rel=1e-5)
    else:  # larger than the dtype has
        assert by_rho > 1e30
        assert by_logits > 1e30
