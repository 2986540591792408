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
