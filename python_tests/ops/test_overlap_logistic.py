"""Overlapping logistic: accuracy against 50-digit arithmetic, gradients, tails, bad input."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from elementwise_checks import Case, check_everything_common

from dvae_ext import ops, reference

PARAMETERS = (0.0, 1.0, 0.1)
ICDF = Case(ops.overlap_logistic_icdf, reference.overlap_logistic_icdf, names=("rho", "logits"), parameters=PARAMETERS)
LOG_PROB = Case(
    ops.overlap_logistic_log_prob, reference.overlap_logistic_log_prob, names=("zeta", "logits"), parameters=PARAMETERS
)


@pytest.mark.parametrize("case", [ICDF, LOG_PROB], ids=["icdf", "log_prob"])
def test_common(device, case):
    check_everything_common(case, device)


@pytest.mark.parametrize("scale", [0.5, 0.1, 0.02, 0.004])
def test_icdf_solves_its_equation(device, scale):
    """The mixture's CDF, in 50 digits, maps zeta back to rho as closely as zeta's own rounding allows."""
    rho_values = [2.0**-24, 1e-3, 0.25, 0.5, 0.75, 1 - 1e-3, 1 - 2.0**-24]
    logit_values = [-30.0, -3.0, -0.5, 0.0, 0.5, 3.0, 30.0]
    rho, logits = (
        x.reshape(-1).to(device)
        for x in torch.meshgrid(torch.tensor(rho_values), torch.tensor(logit_values), indexing="ij")
    )
    for dtype, epsilon in ((torch.float32, 6e-8), (torch.float64, 1.2e-16)):
        zeta = ops.overlap_logistic_icdf(rho.to(dtype), logits.to(dtype), 0.0, 1.0, scale)
        assert zeta.isfinite().all()
        with mpmath.workdps(50):
            width = mpmath.mpf(float(torch.tensor(scale, dtype=dtype)))
            for z, r, logit in zip(zeta.tolist(), rho.to(dtype).tolist(), logits.tolist(), strict=True):
                q = 1 / (1 + mpmath.exp(-mpmath.mpf(logit)))

                def cdf(x, q=q, width=width):
                    return (1 - q) / (1 + mpmath.exp(-x / width)) + q / (1 + mpmath.exp(-(x - 1) / width))

                slack = 6 * epsilon * (1 + abs(z)) + 12 * epsilon * width * (1 + abs(mpmath.log(r * (1 - r))))
                # A probability carries its own rounding: where the CDF is flat, zeta may move by what that allows.
                drift = 8 * epsilon * (r + float(q)) * (1 - r + float(1 - q))
                assert cdf(z - slack) - drift <= r <= cdf(z + slack) + drift, (r, logit)


def test_ends_of_the_uniform_are_held_inside(device):
    rho = torch.tensor([0.0, 1.0], device=device, requires_grad=True)
    logits = torch.zeros(2, device=device, requires_grad=True)
    zeta = ops.overlap_logistic_icdf(rho, logits, *PARAMETERS)
    assert zeta.isfinite().all()
    for grad in torch.autograd.grad(zeta.sum(), (rho, logits)):
        assert grad.isfinite().all()


def test_saturated_logits_have_finite_gradients(device):
    logits = torch.tensor([-100.0, -30, -17, 17, 30, 100], device=device, requires_grad=True)
    rho = torch.full((6,), 0.3, device=device)
    zeta = ops.overlap_logistic_icdf(rho, logits, *PARAMETERS)
    (slope,) = torch.autograd.grad(zeta.sum(), logits)
    assert zeta.isfinite().all()
    assert slope.isfinite().all()
    assert (slope >= 0).all()


def test_density_is_the_slope_of_the_cdf(device):
    rho = torch.linspace(0.001, 0.999, 999, dtype=torch.float64, device=device).requires_grad_()
    logits = torch.full_like(rho, 0.7).detach()
    zeta = ops.overlap_logistic_icdf(rho, logits, *PARAMETERS)
    (slope,) = torch.autograd.grad(zeta.sum(), rho)
    log_prob = ops.overlap_logistic_log_prob(zeta.detach(), logits, *PARAMETERS)
    torch.testing.assert_close(log_prob, -slope.log(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", [ICDF, LOG_PROB], ids=["icdf", "log_prob"])
def test_second_order_is_an_error(device, case):
    first, logits = (x.requires_grad_() for x in case.inputs((3,), torch.float64, device))
    (slope,) = torch.autograd.grad(case.op(first, logits, *PARAMETERS).sum(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="has no second-order gradient"):
        slope.sum().backward()


def test_bad_parameters_are_named():
    rho, logits = torch.rand(3), torch.zeros(3)
    with pytest.raises(ValueError, match=r"mu1 is 0.0, expected more than mu0, which is 1.0"):
        ops.overlap_logistic_icdf(rho, logits, 1.0, 0.0, 0.1)
    with pytest.raises(ValueError, match=r"scale is -0.1, expected a positive finite number"):
        ops.overlap_logistic_icdf(rho, logits, 0.0, 1.0, -0.1)
    with pytest.raises(ValueError, match=r"mu0 is nan, expected a finite number|mu1 is 1.0, expected more"):
        ops.overlap_logistic_icdf(rho, logits, math.nan, 1.0, 0.1)
    assert ops.overlap_logistic_icdf(rho, logits, torch.ones(3), torch.zeros(3), 0.1).isnan().all()


@pytest.mark.parametrize("scale", [1e-6, 1e-20, 1e-37])
def test_tiny_scales_keep_their_digits(device, scale):
    """Where one component holds all the mass, zeta - mu is scale times the logit of a uniform; slopes by the CDF."""
    rho = torch.tensor([0.1, 0.3, 0.6, 0.9], device=device, requires_grad=True)
    logits = torch.zeros(4, device=device, requires_grad=True)
    parameters = [torch.tensor(v, device=device, requires_grad=True) for v in (0.0, 1.0, scale)]
    zeta = ops.overlap_logistic_icdf(rho, logits, *parameters)
    uniform = torch.tensor([0.2, 0.6, 0.2, 0.8], device=device)  # within the component: rho = (z + uniform) / 2
    offset = uniform.logit()
    torch.testing.assert_close(zeta[:2] / scale, offset[:2], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(zeta[2:], 1 + scale * offset[2:], rtol=1e-6, atol=0)
    by_rho, by_logits, by_mu0, by_mu1, by_scale = torch.autograd.grad(zeta.sum(), (rho, logits, *parameters))
    density = uniform * (1 - uniform) / 2
    torch.testing.assert_close(by_rho / scale, 1 / density, rtol=1e-4, atol=0)
    # The CDF's derivative by the logit is q p (R1 - R0).
    torch.testing.assert_close(
        by_logits / scale, 0.25 * torch.cat([uniform[:2], 1 - uniform[2:]]) / density, rtol=1e-4, atol=0
    )
    assert (by_mu0.item(), by_mu1.item()) == (2, 2)
    assert by_scale.item() == pytest.approx(offset.sum().item(), rel=1e-5)


def test_a_denormal_scale_and_infinite_points_have_limits(device):
    scale = torch.tensor(1e-39, device=device)
    zeta = torch.tensor([0.0, 0.4, 0.6, 1.0], device=device, requires_grad=True)
    logits = torch.zeros(4, device=device, requires_grad=True)
    result = ops.overlap_logistic_log_prob(zeta, logits, 0.0, 1.0, scale)
    peak = math.log(0.125) - math.log(scale.item())
    assert result.tolist() == pytest.approx([peak, -math.inf, -math.inf, peak], rel=1e-6)
    assert torch.autograd.grad(result.sum(), logits)[0].tolist() == [-0.5, -0.5, 0.5, 0.5]
    rho = torch.tensor([0.2, 0.5, 0.8], device=device)
    torch.testing.assert_close(
        ops.overlap_logistic_icdf(rho, logits[:3].detach(), 0.0, 1.0, scale), torch.tensor([0, 0.5, 1], device=device)
    )
    infinite = torch.tensor([-math.inf, math.inf], device=device, requires_grad=True)
    result = ops.overlap_logistic_log_prob(infinite, torch.zeros(2, device=device), *PARAMETERS)
    assert result.tolist() == [-math.inf, -math.inf]
    torch.testing.assert_close(
        torch.autograd.grad(result.sum(), infinite)[0], torch.tensor([10.0, -10.0], device=device)
    )


@pytest.mark.parametrize("case", [ICDF, LOG_PROB], ids=["icdf", "log_prob"])
def test_infinite_logits_have_the_derivatives_of_saturated_ones(device, case):
    def values(size):
        first = torch.tensor([0.3, 0.3, 0.7, 0.7], device=device, requires_grad=True)
        logits = torch.tensor([size, -size, size, -size], device=device, requires_grad=True)
        parameters = [torch.tensor(v, device=device, requires_grad=True) for v in PARAMETERS]
        result = case.op(first, logits, *parameters)
        return [result, *torch.autograd.grad(result.sum(), (first, logits, *parameters))]

    for certain, saturated in zip(values(math.inf), values(90.0), strict=True):
        torch.testing.assert_close(certain, saturated)


@pytest.mark.parametrize("function", [ops.overlap_logistic_icdf, reference.overlap_logistic_icdf], ids=["op", "ref"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-3, 6e-4, 1e-4])
def test_half_way_between_narrow_components(function, dtype, scale, device):
    """rho = 1 - q exactly: B vanishes beside T = exp(-h), whose square underflows or which is 0 itself."""
    arguments = [torch.tensor(x, dtype=dtype, device=device, requires_grad=True) for x in (0.5, 0.0, 0.0, 1.0, scale)]
    zeta = function(*arguments)
    assert zeta.item() == 0.5
    by_rho, by_logits, *by_parameters = (g.item() for g in torch.autograd.grad(zeta, arguments))
    assert by_parameters == [0.5, 0.5, 0]
    if dtype == torch.float64 and scale > 7e-4:
        assert by_rho == pytest.approx(scale * math.exp(0.5 / scale), rel=1e-9)
        assert by_logits == pytest.approx(scale * math.exp(0.5 / scale) / 4, rel=1e-9)
    else:  # larger than the dtype has
        assert by_rho > 1e30
        assert by_logits > 1e30


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_reference_has_the_op_s_limits(dtype, device):
    zeta = torch.tensor([-math.inf, 0.0, 0.5, 1.0, math.inf], dtype=dtype, device=device)
    for scale in (1e-3, 0.1):
        torch.testing.assert_close(
            reference.overlap_logistic_log_prob(zeta, torch.zeros_like(zeta), 0.0, 1.0, scale),
            ops.overlap_logistic_log_prob(zeta, torch.zeros_like(zeta), 0.0, 1.0, scale),
        )
