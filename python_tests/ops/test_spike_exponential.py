"""Spike-and-exponential: accuracy against 50-digit arithmetic, the spike, gradients, bad input."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from elementwise_checks import Case, check_everything_common

from dvae_ext import ops, reference

ICDF = Case(ops.spike_exponential_icdf, reference.spike_exponential_icdf, names=("rho", "logits"), parameters=(5.0,))


def test_common(device):
    check_everything_common(ICDF, device)


@pytest.mark.parametrize("beta", [1.0, 5.0, 20.0, 100.0])
def test_accuracy(device, beta):
    rho_values = [0.0, 0.2, 0.5, 0.6, 0.95, 1 - 1e-3, 1 - 2.0**-24, 1.0]
    logit_values = [-10.0, -3.0, -0.5, 0.0, 0.5, 3.0, 10.0, 30.0, 100.0]
    points = torch.cartesian_prod(torch.tensor(rho_values), torch.tensor(logit_values))
    rho, logits = (x.contiguous().to(device) for x in points.unbind(1))
    results = {
        dtype: ops.spike_exponential_icdf(rho.to(dtype), logits.to(dtype), beta)
        for dtype in (torch.float32, torch.float64)
    }
    with mpmath.workdps(50):
        for i, (r, logit) in enumerate(points.tolist()):
            q = 1 / (1 + mpmath.exp(-mpmath.mpf(logit)))
            t = 1 - (1 - mpmath.mpf(r)) / q
            e = mpmath.exp(-mpmath.mpf(beta))
            zeta = 1 + mpmath.log(t + (1 - t) * e) / mpmath.mpf(beta) if t > 0 else mpmath.mpf(0)
            # t is a difference: what its own rounding moves zeta by, near the spike, is beta-independent in t.
            slope = (1 - e) / (beta * (max(t, mpmath.mpf(0)) + e)) if t > -1e-6 else 0
            assert abs(results[torch.float32][i].item() - zeta) <= 5e-7 + 3e-7 * slope
            assert abs(results[torch.float64][i].item() - zeta) <= 1e-13 + 1e-15 * slope


def test_zeros_have_the_spike_s_probability(device):
    """P(zeta = 0) = 1 - q: on a midpoint grid of rho, the count is exact to one grid step."""
    rho = ((torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000).to(device)
    for logits in (-2.0, 0.0, 1.5):
        zeta = ops.spike_exponential_icdf(rho, torch.full_like(rho, logits), 5.0)
        assert (zeta == 0).double().mean().item() == pytest.approx(1 / (1 + math.exp(logits)), abs=1.5e-4)


def test_gradients_vanish_on_the_spike_and_stay_finite(device):
    logits = torch.tensor([-100.0, -5.0, 0.0, 5.0, 100.0], device=device, requires_grad=True)
    for rho_value in (0.0, 0.4, 1.0):
        rho = torch.full((5,), rho_value, device=device, requires_grad=True)
        zeta = ops.spike_exponential_icdf(rho, logits, 5.0)
        grads = torch.autograd.grad(zeta.sum(), (rho, logits))
        assert grads[1].isfinite().all()
        for grad in grads:
            assert (grad[zeta == 0] == 0).all()


def test_second_order_is_an_error(device):
    rho, logits = (x.requires_grad_() for x in ICDF.inputs((3,), torch.float64, device))
    (slope,) = torch.autograd.grad(ops.spike_exponential_icdf(rho, logits, 5.0).sum(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="has no second-order gradient"):
        slope.sum().backward()


def test_a_certain_zero_is_all_spike(device):
    """For every finite logit rho = 1 maps to 1; at minus infinity the inverse CDF of the spike alone is 0."""
    for dtype in (torch.float32, torch.float64):
        logits = torch.tensor([-math.inf, -math.inf, -800.0, math.inf], dtype=dtype, device=device, requires_grad=True)
        rho = torch.tensor([1.0, 0.5, 1.0, 1.0], dtype=dtype, device=device)
        zeta = ops.spike_exponential_icdf(rho, logits, 5.0)
        assert zeta.tolist() == [0, 0, 1, 1]
        assert reference.spike_exponential_icdf(rho, logits, 5.0).tolist() == [0, 0, 1, 1]
        (slope,) = torch.autograd.grad(zeta.sum(), logits)
        assert slope.tolist() == [0, 0, 0, 0]
