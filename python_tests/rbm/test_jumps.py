"""Jumps between modes: the mixtures, detailed balance, and the RBMs that they are for."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from dvae_ext.rbm import log_z
from dvae_ext.rbm.ensemble import Ensemble, Path, World
from dvae_ext.rbm.mixture import Mixture
from dvae_ext.rbm.quench import log_z_of_states, quenched_states, rounding
from dvae_ext.rbm.statistics import empty_statistics, increments
from python_tests.rbm.known_models import (
    HARD_MODELS,
    LARGE_MODELS,
    blocks,
    exact_log_z,
    model,
    pairs,
    random_rbm,
    rbm,
    wells,
)


def all_states(units: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=units)))


def two_modes(units: int = 6, count: int = 400) -> torch.Tensor:
    """``[2, count, units]``: half of the states near 0…0 and half near 1…1, with one unit in ten flipped."""
    generator = torch.Generator().manual_seed(0)
    centre = (torch.arange(count) % 2).float()[:, None]
    flips = (torch.rand(2, count, units, generator=generator) < 0.1).float()
    return (centre - flips).abs().double()


def test_a_mixture_finds_the_modes_and_is_normalised() -> None:
    generator = torch.Generator().manual_seed(1)
    fitted = Mixture.fit(two_modes(), 2, generator)
    means = torch.sigmoid(fitted.logits).mean(-1).sort(1).values
    torch.testing.assert_close(means, torch.tensor([[0.1, 0.9]] * 2).double(), atol=0.04, rtol=0)
    joined = Mixture.of([(0.7, fitted), (0.3, Mixture.fit(two_modes()[:1], 3, generator))])
    assert joined.logits.shape == (2, 5, 6)
    probability = joined.log_prob(all_states(6).double().expand(2, -1, -1)).exp()
    torch.testing.assert_close(probability.sum(1), torch.ones(2).double(), atol=1e-5, rtol=0)
    both = Mixture.stack([joined, joined])
    torch.testing.assert_close(both.log_prob(all_states(6).double().expand(4, -1, -1)).exp(), probability.repeat(2, 1))


def test_draws_of_a_mixture_have_its_probabilities() -> None:
    """Chi-squared over 16 states of 4 units: beyond 44.3 once in 10,000."""
    generator = torch.Generator().manual_seed(2)
    mixture = Mixture.fit(two_modes(4)[:1], 3, generator)
    draws = mixture.sample(torch.rand(1, 20_000, 5, generator=generator).double())[0]
    expected = mixture.log_prob(all_states(4).double()[None])[0].exp() * len(draws)
    index = (draws @ torch.tensor([8.0, 4.0, 2.0, 1.0]).double()).long()
    counts = torch.bincount(index, minlength=16).float()
    assert ((counts - expected) ** 2 / expected).sum() < 44.3


def test_jumps_leave_every_level_as_it_is() -> None:
    """Jumps alone, from a mixture that is far off, bring coin flips to the distribution of each level: 2^5 states.

    Chi-squared with 31 degrees: beyond 69.1 once in 10,000, over 3 levels.
    """
    one = random_rbm(5, 4, 1.5, seed=3)
    path = Path.uniform(one.weight, one.visible_bias, one.hidden_bias)
    betas = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    modes = Mixture.fit(two_modes(5)[:1], 2, torch.Generator().manual_seed(0))
    ensemble = Ensemble(path, betas, 4000, seed=5, world=World(), modes=modes)
    ensemble.snapshots.append(ensemble.at_levels())
    ensemble.fit()
    for _ in range(60):
        ensemble.jump()
    assert 0.1 < ensemble.jump_acceptance().min() < ensemble.jump_acceptance().max() < 0.9
    states = all_states(5)
    index = (ensemble.at_levels() @ torch.tensor([16.0, 8.0, 4.0, 2.0, 1.0])).long()
    for level, beta in enumerate(betas):
        expected = path.negative_free_energy(states, beta.float()).softmax(0) * 4000
        counts = torch.bincount(index[:, level], minlength=32).float()
        assert ((counts - expected) ** 2 / expected).sum() < 69.1


def test_the_smallest_wells() -> None:
    """Three wells of 10, 20 and 40 units: without jumps +0.61 with a standard error of 0.20, and no warning."""
    one = wells(20, [10, 20, 40], 2)
    estimate = log_z(one, sweeps=1024, seed=1)
    assert abs(estimate.value - exact_log_z(one)) < 4 * estimate.std_error < 0.02
    assert not estimate.warnings
    assert estimate.stuck == 0
    assert len(estimate.jump_acceptance) == len(estimate.betas)
    assert min(estimate.jump_acceptance) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", [*HARD_MODELS, *LARGE_MODELS])
def test_hard_models(name: str) -> None:
    """Seeds other than those of the benchmark; 4.5 standard errors are exceeded once in 50,000 runs of 32 ladders."""
    one = model(name)
    estimate = log_z(one, sweeps=2048, seed=90)
    assert not estimate.warnings
    assert abs(estimate.value - exact_log_z(one)) < 4.5 * estimate.std_error


def test_replicas_that_are_stuck_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without jumps: from the fitted reference wells hold replicas, and the uniform one is taken in its place."""
    monkeypatch.setattr(Ensemble, "fit", lambda ensemble: None)
    one = wells(20, [10, 20, 40], 2)
    held = log_z(one, sweeps=2048, seed=1, reference="independent")
    assert held.stuck > 0.05
    assert abs(held.value - exact_log_z(one)) > 2 * held.std_error
    assert any("of the replicas made no journey between reference and model" in w for w in held.warnings)
    free = log_z(one, sweeps=2048, seed=1)
    assert free.reference == "uniform"
    assert free.stuck < 0.02
    assert abs(free.value - exact_log_z(one)) < 4 * free.std_error < 0.1


def test_short_runs_raise_no_alarm_by_chance() -> None:
    """Sixteen levels and 320 sweeps: a replica in five makes no journey, and none is held anywhere."""
    estimate = log_z(random_rbm(20, 30, 1.0), sweeps=320, levels=16, reference="uniform", seed=0)
    assert estimate.stuck > 0.02
    assert not estimate.warnings


def test_no_precision_of_products_turns_jumps_off() -> None:
    """In bfloat16 a mean came out above 1, its logit NaN, and no jump was ever accepted."""
    one = random_rbm(20, 60, 3.0)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        estimate = log_z(one, sweeps=256, seed=11)
    finally:
        torch.set_float32_matmul_precision(before)
    assert min(estimate.jump_acceptance) > 0.5


def test_narrow_modes_that_few_coins_fell_into_are_not_lost() -> None:
    """The free block spreads the quenched states, and the deepest well was never proposed: -0.05 ± 0.0016."""
    one = blocks(wells(22, [20] * 14 + [34, 35], 0, strength=3.0), random_rbm(16, 16, 0.1))
    estimate = log_z(one, sweeps=2048, seed=0)
    assert abs(estimate.value - exact_log_z(one)) < 3 * estimate.std_error < 0.1


def test_the_error_bar_holds_the_rounding_of_free_energies() -> None:
    """Every state has a free energy of exactly 0, made of terms of hundreds: the spread of an estimate is 1e-9."""
    one = pairs(16, 40.0, -20.0)
    estimate = log_z(one, sweeps=512, seed=0)
    assert estimate.std_error > 1e-6
    assert abs(estimate.value - 16 * math.log(2)) < 2 * estimate.std_error < 1e-4
    states = torch.ones(3, 16)
    assert rounding(states, one.weight, one.visible_bias, one.hidden_bias) == pytest.approx(640 * 2**-24)
    wider = rbm(one.weight.double(), one.visible_bias.double(), one.hidden_bias.double())
    assert log_z(wider, sweeps=512, seed=0).std_error < 1e-7


def test_increments_of_thousands_of_nats() -> None:
    """Bridge sampling around 0 has nothing to sum there; the estimate was NaN."""
    one = random_rbm(300, 16, 10.0)
    estimate = log_z(one, sweeps=256, seed=0)
    assert abs(estimate.value - exact_log_z(one)) < 4 * estimate.std_error < 0.1
    statistics = empty_statistics(2, 2)
    statistics[:, 0, 0], statistics[:, 1, 0], statistics[:, 2, 0] = 3001.0, -2999.0, 2.0
    torch.testing.assert_close(
        increments(statistics, torch.zeros(1, dtype=torch.float64)), torch.tensor([3000.0]).double()
    )


def test_annealing_that_never_left_its_start_is_told_of() -> None:
    """log 2, of which the biases' own state holds one half: all chains stay there and agree on 0."""
    one = rbm(torch.tensor([[40.0]]), torch.tensor([-20.0]), torch.tensor([-20.0]))
    annealed = log_z(one, "ais", seed=0)
    assert abs(annealed.value) < 1e-6
    assert any("all chains carry the same weight" in warning for warning in annealed.warnings)
    assert any("hold exp(0.6931) of Z, which is more than the estimate" in warning for warning in annealed.warnings)
    tempered = log_z(one, seed=0, sweeps=512)
    assert tempered.value == pytest.approx(math.log(2), abs=1e-5)
    assert not tempered.warnings
    few = log_z(random_rbm(20, 60, 10.0), "ais", chains=64, num_betas=50, seed=0)
    assert any("chains carry the weight, fewer than 10" in warning for warning in few.warnings)


def test_states_seen_bound_log_z_from_below() -> None:
    one = random_rbm(6, 5, 1.0)
    parameters = (one.weight, one.visible_bias, one.hidden_bias)
    exact = exact_log_z(one)
    states = all_states(6)
    assert log_z_of_states(torch.cat([states, states]), *parameters) == pytest.approx(exact, abs=1e-5)
    assert log_z_of_states(states[:20], *parameters) < exact
    strong = model("random 20×60, σ 10")
    strong_parameters = (strong.weight, strong.visible_bias, strong.hidden_bias)
    found = quenched_states(*strong_parameters, seed=0)
    assert exact_log_z(strong) - 0.7 < log_z_of_states(found, *strong_parameters) < exact_log_z(strong)


def test_another_default_device_changes_nothing() -> None:
    one = random_rbm(8, 12, 0.5)
    methods = {"exact": {}, "ais": {"chains": 8}, "tempering": {"sweeps": 64, "seed": 0}}
    torch.manual_seed(0)
    expected = [log_z(one, method, **options).value for method, options in methods.items()]
    torch.manual_seed(0)
    torch.set_default_device("meta")
    try:
        found = [log_z(one, method, **options).value for method, options in methods.items()]
    finally:
        torch.set_default_device(None)
    assert found == expected
