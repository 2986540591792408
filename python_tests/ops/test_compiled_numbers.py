"""Numbers that change between calls of a compiled function: a graph for the first value, one for all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from dvae_ext import ops, rng

pytestmark = pytest.mark.not_interpreted("traces and graphs do not depend on the backend")

GENERATOR = torch.Generator().manual_seed(0)
FIRST, LOGITS = torch.rand(4, 5, generator=GENERATOR), torch.randn(4, 5, generator=GENERATOR)
COEFFICIENTS, PRIOR = torch.randn(2, 3, 2, generator=GENERATOR), torch.randn(3, 2, generator=GENERATOR)
KEY = rng.key(3)
# More values than torch.compile makes graphs (torch._dynamo.config.recompile_limit is 8).
REALS = [0.4 + 0.37 * k for k in range(10)]
COUNTS = list(range(4, 14))


def gibbs(sweeps: int) -> Tensor:
    visible, hidden = torch.zeros(6, 5), torch.zeros(6, 4)
    ops.rbm_gibbs_(visible, hidden, LOGITS.T[:, :4].contiguous(), LOGITS[0], FIRST[0, :4], KEY, sweeps)
    return visible


def temper(sweeps: int, batch: int, first_ladder: int) -> Tensor:
    visible, level = torch.zeros(3, 2, 5), torch.arange(2).repeat(3, 1)
    statistics = torch.zeros(3, 9, 2, dtype=torch.float64)
    biases = [LOGITS[0], FIRST[0, :4]] * 2
    betas, shifts = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    weight = LOGITS.T[:, :4].contiguous()
    ops.rbm_temper_(
        visible,
        level,
        torch.zeros_like(level),
        statistics,
        weight,
        *biases,
        betas,
        shifts,
        KEY,
        sweeps,
        batch,
        first_ladder,
    )
    return statistics


CASES: dict[str, tuple[Callable[..., Tensor], list[Any]]] = {
    "overlap_exponential_icdf-beta": (lambda x, v: ops.overlap_exponential_icdf(FIRST, x, v), REALS),
    "overlap_exponential_log_prob-beta": (lambda x, v: ops.overlap_exponential_log_prob(FIRST, x, v), REALS),
    "overlap_logistic_icdf-mu0": (lambda x, v: ops.overlap_logistic_icdf(FIRST, x, v, 5.0, 0.1), REALS),
    "overlap_logistic_icdf-mu1": (lambda x, v: ops.overlap_logistic_icdf(FIRST, x, 0.0, v, 0.1), REALS),
    "overlap_logistic_icdf-scale": (lambda x, v: ops.overlap_logistic_icdf(FIRST, x, 0.0, 1.0, v), REALS),
    "overlap_logistic_log_prob-scale": (lambda x, v: ops.overlap_logistic_log_prob(FIRST, x, 0.0, 1.0, v), REALS),
    "spike_exponential_icdf-beta": (lambda x, v: ops.spike_exponential_icdf(FIRST, x, v), REALS),
    "spike_exponential_icdf-whole-beta": (lambda x, v: ops.spike_exponential_icdf(FIRST, x, v), COUNTS),
    "spike_exponential_icdf-double": (
        lambda x, v: ops.spike_exponential_icdf(FIRST.double(), x.double(), v).float(),
        REALS,
    ),
    "spike_exponential_icdf-bfloat16": (
        lambda x, v: ops.spike_exponential_icdf(FIRST.bfloat16(), x.bfloat16(), v).float(),
        REALS,
    ),
    "coarse_grain_sample-temperature": (lambda x, v: ops.coarse_grain_sample(x[:, None, :2], KEY, v), REALS),
    "coarse_grain_sample-num_points": (lambda x, v: ops.coarse_grain_sample(x[:, None, :2], KEY, 0.5, v), COUNTS),
    "coarse_grain_sample-num_samples": (lambda x, v: ops.coarse_grain_sample(x[:, None, :2], KEY, 0.5, 9, v), COUNTS),
    "coarse_grain_kl-num_points": (lambda x, v: ops.coarse_grain_kl(x[:, None, :2], PRIOR[:1], v), COUNTS),
    "rbm_gibbs_-sweeps": (lambda x, v: gibbs(v) + x[0], COUNTS),
    "rbm_temper_-sweeps": (lambda x, v: temper(v, 1, 0) + x[0, 0], COUNTS),
    "rbm_temper_-batch": (lambda x, v: temper(2 * v, v, 0) + x[0, 0], COUNTS),
    "rbm_temper_-first_ladder": (lambda x, v: temper(3, 1, v) + x[0, 0], COUNTS),
}


@pytest.mark.parametrize("name", CASES)
def test_two_graphs_serve_all_numbers(name: str) -> None:
    function, values = CASES[name]
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(function, fullgraph=True, backend=counter)
    for value in values:
        leaf, other = (LOGITS.clone().requires_grad_() for _ in range(2))
        result, expected = compiled(leaf, value), function(other, value)
        torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-7)
        gradients = [torch.autograd.grad(r.sum(), x)[0] for r, x in ((result, leaf), (expected, other))]
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
    assert counter.frame_count == 2


def test_a_number_out_of_range_is_refused_while_tracing() -> None:
    compiled = torch.compile(lambda v: ops.spike_exponential_icdf(FIRST, LOGITS, v), backend="aot_eager")
    for value in (2.0, 3.0, 4.0):
        compiled(value)
    with pytest.raises(ValueError, match=r"beta is -1.0, expected a positive finite number"):
        compiled(-1.0)
