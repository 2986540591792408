"""Persistent chains, and the gradient of log Z from their states."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn

from dvae_ext.ops import rbm_gibbs_
from dvae_ext.rbm import RBM, PersistentChains
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


def test_ctrl_c_does_not_bring_the_same_draws_again() -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    chains = PersistentChains(RBM(5, 4), 10, seed=4, gibbs=interrupted)
    with pytest.raises(KeyboardInterrupt):
        chains.sample(8)
    assert chains.key.tolist() == [4, 8]


def test_initial_states_are_fair_coins_and_independent_of_the_first_draws() -> None:
    chains = PersistentChains(RBM(20, 30), 1000, seed=9)
    before = chains.visible.clone()
    assert abs(before.mean().item() - 0.5) < 6 * 0.5 / math.sqrt(20_000)  # false alarm 2e-9
    chains.sample(1)  # a zero RBM draws fair coins: agreement with the start is one half
    assert abs((chains.visible == before).float().mean().item() - 0.5) < 6 * 0.5 / math.sqrt(20_000)


@pytest.mark.parametrize("average", [{}, {"multi_avg_fn": get_ema_multi_avg_fn(0.9)}, {"avg_fn": get_ema_avg_fn(0.9)}])
def test_averaging_a_model_leaves_its_chains_states(average: dict[str, Any]) -> None:
    """States and keys are no quantities: with buffers averaged they became 1/3, 2/3 and another seed."""
    rbm = RBM(4, 3)
    model = nn.ModuleDict({"rbm": rbm, "chains": PersistentChains(rbm, 5, seed=1)})
    averaged = AveragedModel(model, use_buffers=True, **average)
    for _ in range(3):
        model["chains"].sample(1)
        averaged.update_parameters(model)
    chains = averaged.module["chains"]
    assert set(chains.visible.unique().tolist()) <= {0.0, 1.0}
    assert chains.key.tolist() == [1, 0]
    chains.sample(1)
    assert list(chains.buffers()) == []


def test_states_are_moved_loaded_and_checked_as_buffers_are() -> None:
    rbm = random_rbm(5, 4, seed=3).float()
    chains = PersistentChains(rbm, 10, seed=4)
    twin = copy.deepcopy(chains)
    for assign in (False, True):
        other = PersistentChains(rbm, 10, seed=5)
        other.load_state_dict(twin.state_dict(), assign=assign)
        assert torch.equal(other.visible, chains.visible)
        assert torch.equal(other.key, chains.key)
    assert torch.equal(twin.double().visible, chains.visible.double())
    assert twin.to("meta").key.is_meta
    state = dict(chains.state_dict())
    with pytest.raises(RuntimeError, match="size mismatch for visible"):
        chains.load_state_dict(state | {"visible": torch.zeros(10, 4)})
    del state["key"]
    with pytest.raises(RuntimeError, match=r'Missing key.*"key"'):
        chains.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"more"'):
        chains.load_state_dict(dict(chains.state_dict()) | {"more": torch.zeros(1)})


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


def test_log_z_gradient_over_all_states_is_exact() -> None:
    """The surrogate's gradient, averaged over the states with their probabilities, is the gradient of log Z."""
    rbm = random_rbm(3, 2, seed=11)
    exact = torch.autograd.grad(exact_log_z(rbm), list(rbm.parameters()))
    total = [torch.zeros_like(p) for p in rbm.parameters()]
    for state in all_states(5):
        visible, hidden = state[None, :3], state[None, 3:]
        surrogate = rbm.negative_energy_mean(visible, hidden)
        assert surrogate.item() == pytest.approx(-rbm.energy(visible, hidden).item())
        probability = rbm.log_prob(visible, hidden, exact_log_z(rbm)).exp().detach()
        for sum_, gradient in zip(total, torch.autograd.grad(surrogate, list(rbm.parameters())), strict=True):
            sum_ += probability * gradient
    torch.testing.assert_close(tuple(total), exact)


@pytest.mark.parametrize("gibbs", [rbm_gibbs_, eager_gibbs_])
def test_autocast_does_not_change_draws(gibbs: Callable[..., object]) -> None:
    """A field of 100.25 - 100.3 decides, which bfloat16 makes -0.5."""
    rbm = RBM(2, 2)
    with torch.no_grad():
        rbm.weight.copy_(torch.tensor([[100.25, 0.3], [-100.3, -0.2]]))
    drawn = []
    for enabled in (False, True):
        torch.manual_seed(1)
        chains = PersistentChains(rbm, 500, seed=4, gibbs=gibbs)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            drawn.append(torch.cat([states.clone() for states in chains.sample(3)], 1))
    assert torch.equal(*drawn)
