"""The KL divergence to an RBM prior against enumeration of the bits and quadrature of ζ."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dvae_ext import ops
from dvae_ext.nn import ExponentialSmoothing, LogisticSmoothing, Smoothing, SpikeSmoothing
from dvae_ext.objectives import rbm_kl
from dvae_ext.rbm import RBM
from python_tests.enumeration import all_states, exact_log_z, random_rbm

BETA = 3.0
SMOOTHINGS: dict[str, Smoothing] = {
    "overlap_exponential": ExponentialSmoothing(ops.overlap_exponential_icdf, BETA),
    "overlap_logistic": LogisticSmoothing(ops.overlap_logistic_icdf, 0.0, 1.0, 0.25),
    "spike_exponential": SpikeSmoothing(ops.spike_exponential_icdf, BETA),
}


def quadrature(smoothing: str, count: int = 12) -> tuple[Tensor, Tensor]:
    """Nodes of one ζ ``[n]`` and the masses r(ζ|z) dζ of z = 0 and z = 1 ``[2, n]``."""
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(count))
    zeta, weights = (nodes + 1) / 2, weights / 2
    if smoothing == "overlap_logistic":
        # Each component has nodes of its own, at its quantiles.
        quantiles = 0.25 * torch.logit(zeta)
        none = torch.zeros_like(weights)
        mass = torch.stack([torch.cat([weights, none]), torch.cat([none, weights])])
        return torch.cat([quantiles, quantiles + 1]), mass
    high = BETA * torch.exp(BETA * (zeta - 1)) / -math.expm1(-BETA)
    if smoothing == "overlap_exponential":
        return zeta, torch.stack([high.flip(0), high]) * weights
    atom = torch.zeros(1, dtype=torch.float64)
    spike = torch.cat([atom + 1, torch.zeros(count)])
    return torch.cat([atom, zeta]), torch.stack([spike, torch.cat([atom, high * weights])])


class Encoder:
    """q(z₁) q(z₂|ζ₁) …: logits of group g are c_g + A_g tanh(2 ζ_<g)."""

    def __init__(self, sizes: tuple[int, ...], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.sizes = sizes
        self.parameters: list[Tensor] = []
        for group, size in enumerate(sizes):
            for shape in ((size,), (size, sum(sizes[:group]))):
                self.parameters.append(
                    torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_(math.prod(shape) > 0)
                )

    def logits(self, group: int, zetas: list[Tensor], rows: int) -> Tensor:
        constant, matrix = self.parameters[2 * group], self.parameters[2 * group + 1]
        if not zetas:
            return constant.expand(rows, -1)
        return constant + torch.tanh(2 * torch.cat(zetas, -1)) @ matrix.t()

    def trainable(self) -> list[Tensor]:
        return [p for p in self.parameters if p.requires_grad]


def exact_kl(encoder: Encoder, rbm: RBM, smoothing: str) -> Tensor:
    """E[log q(z|ζ_<) + E(z)] over all z and a tensor grid of the ζ of all groups but the last."""
    nodes, masses = quadrature(smoothing)
    inner = sum(encoder.sizes[:-1])
    index = torch.tensor(list(itertools.product(range(len(nodes)), repeat=inner)))
    grid = nodes[index]
    zetas = list(grid.split(encoder.sizes[:-1], -1))
    logits = [encoder.logits(g, zetas[:g], len(grid)) for g in range(len(encoder.sizes))]
    joined = torch.cat(logits, -1)
    total = torch.zeros((), dtype=torch.float64)
    for z in all_states(sum(encoder.sizes)):
        log_q = torch.nn.functional.logsigmoid((2 * z - 1) * joined).sum(-1)
        mass = torch.stack([masses[int(z[unit]), index[:, unit]] for unit in range(inner)]).prod(0)
        energy = rbm.energy(z[: rbm.n_visible], z[rbm.n_visible :])
        total = total + (mass * log_q.exp() * (log_q + energy)).sum()
    return total


def sampled_kl(encoder: Encoder, rbm: RBM, smoothing: Smoothing, rows: int) -> Tensor:
    logits: list[Tensor] = []
    zetas: list[Tensor] = []
    for group in range(len(encoder.sizes)):
        logits.append(encoder.logits(group, zetas, rows))
        zetas.append(smoothing.sample(logits[-1]))
    means = [smoothing.posterior_mean(g, z) for g, z in zip(logits[:-1], zetas[:-1], strict=True)]
    return rbm_kl(rbm, logits, means).mean()


def z_scores(sizes: tuple[int, ...], halves: tuple[int, int], smoothing: str, estimator: Smoothing) -> Tensor:
    """Value and gradient of the estimator against the exact ones, in standard errors from 60 blocks of 4000 rows."""
    torch.manual_seed(6)
    encoder, rbm = Encoder(sizes, seed=7), random_rbm(*halves, seed=8)
    parameters = [*encoder.trainable(), *rbm.parameters()]

    def flat(loss: Tensor) -> Tensor:
        gradients = torch.autograd.grad(loss, parameters)
        return torch.cat([loss.detach().reshape(1), *(g.flatten() for g in gradients)])

    exact = flat(exact_kl(encoder, rbm, smoothing))
    blocks = torch.stack([flat(sampled_kl(encoder, rbm, estimator, 4000)) for _ in range(60)])
    # The quadrature is good to 1e-6 or better; entries without noise (μ of the first group) are compared to that.
    error = (blocks.std(0) / math.sqrt(60)).clamp_min(1e-6)
    return (blocks.mean(0) - exact).abs() / error


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize(
    ("sizes", "halves"),
    [((2, 2), (2, 2)), ((1, 1, 1), (1, 2)), ((1, 2, 1), (2, 2)), ((1, 1, 2), (2, 2))],
    ids=["two groups", "three, odd", "one straddles", "three"],
)
def test_hierarchical_kl_is_unbiased_in_value_and_gradient(
    sizes: tuple[int, ...], halves: tuple[int, int], smoothing: str
) -> None:
    """At most 20 numbers in each of 12 cases, t with 59 degrees of freedom below 6: false alarm 240 · 1e-7."""
    assert z_scores(sizes, halves, smoothing, SMOOTHINGS[smoothing]).max() < 6


def test_the_jump_of_the_spike_is_needed() -> None:
    """Without the gradient of z's jump the spike's estimator is biased, and the test above would see it."""

    class WithoutJump(SpikeSmoothing):
        def posterior_mean(self, logits: Tensor, zeta: Tensor) -> Tensor:
            return super().posterior_mean(logits, zeta).detach()

    assert z_scores((2, 2), (2, 2), "spike_exponential", WithoutJump(ops.spike_exponential_icdf, BETA)).max() > 20


@pytest.mark.parametrize(("halves", "units"), [((2, 3), 5), ((1, 1), 2)])
def test_one_group_is_the_mean_field_kl(halves: tuple[int, int], units: int) -> None:
    rbm = random_rbm(*halves, seed=9)
    logits = torch.randn(4, units, dtype=torch.float64, generator=torch.Generator().manual_seed(10)) * 2
    states = all_states(units)
    log_q = torch.nn.functional.logsigmoid((2 * states - 1) * logits[:, None]).sum(-1)
    log_p = rbm.log_prob(states[:, : halves[0]], states[:, halves[0] :], exact_log_z(rbm))
    expected = (log_q.exp() * (log_q - log_p)).sum(-1)
    torch.testing.assert_close(rbm_kl(rbm, [logits], []) + exact_log_z(rbm), expected)


def test_bad_groups() -> None:
    rbm = RBM(2, 2)
    with pytest.raises(ValueError, match="logits: expected 4 units"):
        rbm_kl(rbm, [torch.zeros(1, 3)], [])
    with pytest.raises(ValueError, match="posterior_means: expected 1"):
        rbm_kl(rbm, [torch.zeros(1, 2), torch.zeros(1, 2)], [])


def test_autocast_does_not_round_the_divergence() -> None:
    rbm = random_rbm(30, 20).float()
    logits = 5 * torch.randn(4, 50, generator=torch.Generator().manual_seed(5))
    expected = rbm_kl(rbm, [logits[:, :15], logits[:, 15:]], [torch.sigmoid(logits[:, :15])])
    with torch.autocast("cpu", torch.bfloat16):
        inside = rbm_kl(rbm, [logits[:, :15], logits[:, 15:]], [torch.sigmoid(logits[:, :15])])
    assert torch.equal(inside, expected)
    half = logits.bfloat16()
    assert torch.equal(rbm_kl(rbm, [half], []), rbm_kl(rbm, [half.float()], []))


def test_certain_units_have_a_finite_divergence() -> None:
    """log Z of a machine whose first unit is kept at 0, and whose second q knows: only the third is uncertain."""
    rbm = RBM(2, 1)
    with torch.no_grad():
        rbm.visible_bias[0] = -math.inf
        rbm.visible_bias[1] = 2.0
    logits = torch.tensor([[-math.inf, math.inf, 0.0]], requires_grad=True)
    divergence = rbm_kl(rbm, [logits], [])
    assert divergence.item() == pytest.approx(-2 - math.log(2))
    gradients = torch.autograd.grad(divergence.sum(), [logits, *rbm.parameters()])
    assert all(gradient.isfinite().all() for gradient in gradients)
