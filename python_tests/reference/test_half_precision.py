"""The reference computes 16-bit tensors in float32, and rounds once; its products heed no autocast."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dvae_ext import reference, rng


def uniform(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def normal(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


CASES = {
    "coarse_grain_kl": ([normal(3, 4, 2), normal(4, 2, seed=3)], []),
    "coarse_grain_sample": ([normal(3, 4, 2)], [rng.key(1), 0.5]),
    "mutual_posterior_divergence": ([normal(5, 3), normal(5, 3, seed=3)], []),
    "overlap_exponential_icdf": ([uniform(50), 3 * normal(50)], [8.0]),
    "overlap_exponential_log_prob": ([uniform(50), 3 * normal(50)], [8.0]),
    "overlap_logistic_icdf": ([uniform(50), 3 * normal(50)], [0.0, 1.0, 0.05]),
    "overlap_logistic_log_prob": ([uniform(50), 3 * normal(50)], [0.0, 1.0, 0.05]),
    "pairwise_kl_bernoulli": ([5 * normal(5, 3)], []),
    "pairwise_kl_normal": ([normal(5, 3), normal(5, 3, seed=3)], []),
    "spike_exponential_icdf": ([uniform(50), normal(50)], [8.0]),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_in_float32(name: str, dtype: torch.dtype) -> None:
    tensors, rest = CASES[name]
    function = getattr(reference, name)
    half = [tensor.to(dtype) for tensor in tensors]
    results, expected = function(*half, *rest), function(*(tensor.float() for tensor in half), *rest)
    pairs = zip(results, expected, strict=True) if isinstance(results, tuple) else [(results, expected)]
    for result, wanted in pairs:
        assert torch.equal(result, wanted.to(dtype))
        assert result.isfinite().all()


def test_every_function_of_tensors_has_a_case() -> None:
    # The RBM's functions take float32 and float64 alone, as their ops do.
    assert {*CASES, "rbm_gibbs_", "rbm_log_z_exact", "rbm_temper_"} == set(reference.__all__)


@pytest.mark.parametrize("name", CASES)
def test_autocast_changes_nothing(name: str) -> None:
    tensors, rest = CASES[name]
    function = getattr(reference, name)
    with torch.autocast("cpu", torch.bfloat16):
        inside = function(*tensors, *rest)
    torch.testing.assert_close(inside, function(*tensors, *rest), rtol=0, atol=0)


def test_autocast_does_not_change_draws() -> None:
    """A field of 100.25 - 100.3 decides, which bfloat16 makes -0.5."""
    states = []
    for enabled in (False, True):
        visible, hidden = torch.ones(200, 2), torch.zeros(200, 2)
        weight = torch.tensor([[100.25, 0.3], [-100.3, -0.2]])
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            reference.rbm_gibbs_(visible, hidden, weight, torch.zeros(2), torch.zeros(2), rng.key(3), 1)
        states.append(torch.cat([visible, hidden], 1))
    assert torch.equal(*states)
