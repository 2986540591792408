"""The RBM module against enumeration."""

from __future__ import annotations

import pytest
import torch

from dvae_ext.rbm import RBM
from dvae_ext.rbm.rbm import sufficient_statistics
from python_tests.enumeration import all_states, exact_log_z, random_rbm


def test_energies_agree_with_the_definition() -> None:
    rbm = random_rbm(3, 2)
    v, h = torch.tensor([1.0, 0.0, 1.0]).double(), torch.tensor([0.0, 1.0]).double()
    expected = -(rbm.visible_bias[0] + rbm.visible_bias[2] + rbm.hidden_bias[1] + rbm.weight[0, 1] + rbm.weight[2, 1])
    torch.testing.assert_close(rbm.energy(v, h), expected)
    free = -torch.logsumexp(-rbm.energy(v.expand(4, 3), all_states(2)), 0)
    torch.testing.assert_close(rbm.free_energy(v), free)


def test_probabilities_sum_to_one() -> None:
    rbm = random_rbm(3, 4)
    states = all_states(7)
    total = rbm.log_prob(states[:, :3], states[:, 3:], exact_log_z(rbm)).exp().sum()
    torch.testing.assert_close(total, torch.ones((), dtype=torch.float64))


def test_mean_negative_energy_and_its_gradient() -> None:
    rbm = random_rbm(5, 3)
    torch.manual_seed(0)
    visible, hidden = torch.randint(0, 2, (11, 5)).double(), torch.randint(0, 2, (11, 3)).double()
    mean = rbm.negative_energy_mean(visible, hidden)
    torch.testing.assert_close(mean, -rbm.energy(visible, hidden).mean())
    gradients = torch.autograd.grad(mean, [rbm.weight, rbm.visible_bias, rbm.hidden_bias])
    torch.testing.assert_close(gradients, sufficient_statistics(visible, hidden))


def test_starts_uniform_and_checks_shapes() -> None:
    assert all(bool(torch.all(p == 0)) for p in RBM(4, 3).parameters())
    with pytest.raises(ValueError, match="n_hidden: expected a number of units of at least 1, got 0"):
        RBM(3, 0)
    rbm = RBM(4, 3)
    with pytest.raises(ValueError, match=r"visible: expected shape \[..., 4\], got \[2, 3\]"):
        rbm.energy(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"hidden: expected shape \[..., 3\], got \[2, 4\]"):
        rbm.energy(torch.zeros(2, 4), torch.zeros(2, 4))


def test_a_unit_that_is_kept_at_zero_has_a_finite_energy() -> None:
    """0 · -inf is the limit 0, in values and in gradients; the same unit at 1 has an infinite energy."""
    rbm = RBM(2, 1)
    with torch.no_grad():
        rbm.weight.fill_(0.5)
        rbm.visible_bias.copy_(torch.tensor([-torch.inf, 2.0]))
        rbm.hidden_bias.fill_(-torch.inf)
    visible, hidden = torch.tensor([0.0, 1.0], requires_grad=True), torch.zeros(1, requires_grad=True)
    for value in (
        -rbm.energy(visible, hidden),
        -rbm.free_energy(visible),
        rbm.log_prob(visible, hidden, 0.0),
        rbm.negative_energy_mean(visible[None], hidden[None]),
    ):
        assert value.item() == 2
        gradients = torch.autograd.grad(value, [*rbm.parameters()])
        assert [gradient.flatten().tolist() for gradient in gradients] == [[0, 0], [0, 1], [0]]
    by_states = torch.autograd.grad(rbm.energy(visible, hidden), (visible, hidden))
    assert all(gradient.isfinite().all() for gradient in by_states)
    assert rbm.energy(torch.ones(2), torch.zeros(1)).item() == torch.inf


def energies(rbm: RBM, visible: torch.Tensor, hidden: torch.Tensor) -> list[torch.Tensor]:
    values = rbm.energy(visible, hidden), rbm.free_energy(visible), rbm.negative_energy_mean(visible, hidden)
    return [*values, *sufficient_statistics(visible, hidden)]


def test_autocast_does_not_round_energies() -> None:
    rbm = RBM(2, 1)
    with torch.no_grad():
        rbm.weight.copy_(torch.tensor([[100.25], [0.3]]))
    ones = torch.ones(1, 2), torch.ones(1, 1)
    for rounded in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
            energy, free_energy, mean, *_ = energies(rbm, *ones)
        assert [x.item() for x in (energy, free_energy, mean)] == pytest.approx([-100.55, -100.55, 100.55], rel=1e-7)
    rbm, states = random_rbm(30, 20).float(), torch.randint(0, 2, (300, 50), generator=torch.Generator().manual_seed(1))
    expected = energies(rbm, states[:, :30].float(), states[:, 30:].float())
    with torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, energies(rbm, states[:, :30].float(), states[:, 30:].float()), expected))
    # Chains in 16 bits hold the same states.
    assert all(map(torch.equal, energies(rbm, states[:, :30].bfloat16(), states[:, 30:].bfloat16()), expected))


def test_parameters_in_half_precision_have_float32_energies() -> None:
    rbm = random_rbm(30, 20).bfloat16()
    states = torch.randint(0, 2, (300, 50), generator=torch.Generator().manual_seed(1)).bfloat16()
    found, expected = (energies(machine, states[:, :30], states[:, 30:]) for machine in (rbm, rbm.float()))
    assert all(x.dtype == torch.float32 for x in found)
    assert all(map(torch.equal, found, expected))
