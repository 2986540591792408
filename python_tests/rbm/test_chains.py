"""Persistent chains and the running log Z."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch

from dvae_ext.ops import rbm_gibbs_
from dvae_ext.rbm import RBM, LogZTracker, PersistentChains
from dvae_ext.rbm.eager import eager_gibbs_
from dvae_ext.rbm.rbm import sufficient_statistics
from python_tests.enumeration import all_states, exact_log_z, random_rbm


@pytest.mark.parametrize("gibbs", [rbm_gibbs_, eager_gibbs_])
def test_chains_reach_the_distribution_of_the_rbm(gibbs: Callable[..., object]) -> None:
    """20,000 chains of a 4×3 RBM: 19 statistics within 6 standard errors, false alarm 38 · 2e-9."""
    torch.manual_seed(3)
    rbm = random_rbm(4, 3, seed=1).float()
    visible, hidden = PersistentChains(rbm, 20_000, seed=2, gibbs=gibbs).sample(100)
    exact = torch.autograd.grad(exact_log_z(rbm.double()), [rbm.weight, rbm.visible_bias, rbm.hidden_bias])
    for estimate, expected in zip(sufficient_statistics(visible.double(), hidden.double()), exact, strict=True):
        error = (expected * (1 - expected) / 20_000).sqrt()
        assert ((estimate - expected).abs() / error).max() < 6


def test_a_loaded_state_continues_exactly() -> None:
    rbm = random_rbm(5, 4, seed=3).float()
    chains = PersistentChains(rbm, 10, seed=4)
    chains.sample(3)
    state = copy.deepcopy(chains.state_dict())
    assert sorted(state) == ["hidden", "key", "visible"]
    expected = [s.clone() for s in chains.sample(5)]
    other = PersistentChains(rbm, 10, seed=99)
    other.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(other.sample(5), expected, strict=True))


def test_chains_follow_the_rbm_and_not_the_default_device() -> None:
    rbm = random_rbm(5, 4, seed=3).float()
    expected = PersistentChains(rbm, 10, seed=4).sample(3)
    torch.set_default_device("meta")
    try:
        states = PersistentChains(rbm, 10, seed=4).sample(3)
        PersistentChains(rbm, 10)
    finally:
        torch.set_default_device(None)
    assert all(torch.equal(a, b) for a, b in zip(states, expected, strict=True))


def test_sweeps_can_be_split_and_seeds_matter() -> None:
    rbm = random_rbm(5, 4, seed=5).float()
    once, twice, other = (PersistentChains(rbm, 50, seed=seed) for seed in (6, 6, 7))
    once.sample(8)
    twice.sample(3)
    twice.sample(5)
    other.sample(8)
    assert torch.equal(once.visible, twice.visible)
    assert torch.equal(once.key, twice.key)
    assert not torch.equal(once.visible, other.visible)
    torch.manual_seed(8)
    first = PersistentChains(rbm, 50)
    torch.manual_seed(8)
    assert torch.equal(first.visible, PersistentChains(rbm, 50).visible)


def test_initial_states_are_fair_coins_and_independent_of_the_first_draws() -> None:
    chains = PersistentChains(RBM(20, 30), 1000, seed=9)
    before = chains.visible.clone()
    assert abs(before.mean().item() - 0.5) < 6 * 0.5 / math.sqrt(20_000)  # false alarm 2e-9
    chains.sample(1)  # a zero RBM draws fair coins: agreement with the start is one half
    assert abs((chains.visible == before).float().mean().item() - 0.5) < 6 * 0.5 / math.sqrt(20_000)


def test_the_rbm_is_referred_to_not_owned() -> None:
    rbm = RBM(3, 2)
    chains = PersistentChains(rbm, 4)
    assert not list(chains.parameters())
    with torch.no_grad():
        rbm.visible_bias.fill_(100.0)
    assert bool(torch.all(chains.sample(1)[0] == 1))
    for bad in (2.5, True):
        with pytest.raises(ValueError, match=f"num_chains: expected an integer of at least 1, got {bad}"):
            PersistentChains(RBM(3, 2), bad)
    with pytest.raises(ValueError, match="num_chains: expected an integer of at least 1, got 0"):
        PersistentChains(rbm, 0)


def test_tracker_follows_log_z_along_a_path() -> None:
    """From zero to a random 6×5 RBM in 200 steps with 2000 chains; exact log Z by enumeration.

    The error is that of averages over 2000 chains, a few thousandths of a nat; log Z changes by 1.
    """
    target = random_rbm(6, 5, seed=10).float()
    rbm = RBM(6, 5)
    chains = PersistentChains(rbm, 2000, seed=11)
    tracker = LogZTracker(rbm, chains.visible, chains.hidden)
    start = tracker.value.item()
    assert start == pytest.approx(11 * math.log(2))
    for step in range(1, 201):
        with torch.no_grad():
            for parameter, end in zip(rbm.parameters(), target.parameters(), strict=True):
                parameter.copy_(end * step / 200)
        tracker.update(rbm, *chains.sample(10))
    exact = exact_log_z(rbm.double()).item()
    assert abs(exact - start) > 0.9
    assert tracker.value.item() == pytest.approx(exact, abs=0.03)


def test_log_z_gradient_over_all_states_is_exact() -> None:
    """The surrogate's gradient, averaged over the states with their probabilities, is the gradient of log Z."""
    rbm = random_rbm(3, 2, seed=11)
    exact = torch.autograd.grad(exact_log_z(rbm), list(rbm.parameters()))
    tracker = LogZTracker(RBM(3, 2, dtype=torch.float64), torch.zeros(1, 3), torch.zeros(1, 2)).double()
    total = [torch.zeros_like(p) for p in rbm.parameters()]
    for state in all_states(5):
        visible, hidden = state[None, :3], state[None, 3:]
        tracker.update(rbm, visible, hidden)
        tracker.correct(4.5)
        surrogate = tracker.log_z(rbm)
        assert surrogate.item() == pytest.approx(4.5)
        assert tracker.negative_energy_mean(rbm).item() == pytest.approx(-rbm.energy(visible, hidden).item())
        probability = rbm.log_prob(visible, hidden, exact_log_z(rbm)).exp().detach()
        for sum_, gradient in zip(total, torch.autograd.grad(surrogate, list(rbm.parameters())), strict=True):
            sum_ += probability * gradient
    torch.testing.assert_close(tuple(total), exact)


def test_tracker_needs_a_known_start() -> None:
    with pytest.raises(ValueError, match="zero weights"):
        LogZTracker(random_rbm(2, 2), torch.zeros(1, 2), torch.zeros(1, 2))
