"""The distributions inside one graph of torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.distributions import Distribution, Normal, kl_divergence

from dvae_ext.distributions import CoarseGrained, OverlapExponential, OverlapLogistic, SpikeExponential

GENERATOR = torch.Generator().manual_seed(0)
LOGITS, VALUE = torch.randn(3, 4, generator=GENERATOR), torch.rand(3, 4, generator=GENERATOR)
# More values than torch.compile makes graphs.
REALS = [1.3 + 0.4 * k for k in range(10)]
KINDS: dict[str, Callable[[Tensor, Any], Distribution]] = {
    "overlap_exponential": lambda x, v: OverlapExponential(logits=x, beta=v, validate_args=False),
    "overlap_exponential-probs": lambda x, v: OverlapExponential(probs=x.sigmoid(), beta=v, validate_args=False),
    "overlap_logistic": lambda x, v: OverlapLogistic(logits=x, mu1=v, scale=v, validate_args=False),
    "spike_exponential": lambda x, v: SpikeExponential(logits=x, beta=v, validate_args=False),
    "coarse_grained": lambda x, v: CoarseGrained(x[..., None], 0.1 * v, int(v) + 3, validate_args=False),
}
METHODS: dict[str, Callable[[Distribution], Tensor]] = {
    "rsample": lambda d: d.rsample((2,)),
    "expand": lambda d: d.expand((2, 3, 4)).rsample(),
    "log_prob": lambda d: d.log_prob(VALUE),
    "log_prob-number": lambda d: d.log_prob(0.3),  # type: ignore[arg-type]
    "cdf": lambda d: d.cdf(VALUE),
    "icdf": lambda d: d.icdf(VALUE),
    "mean": lambda d: d.mean,
    "variance": lambda d: d.variance,
    "posterior_logits": lambda d: d.posterior_logits(VALUE),  # type: ignore[attr-defined]
    "kl": lambda d: kl_divergence(d, CoarseGrained(torch.zeros(3, 4, 1), num_points=d.num_points)),  # type: ignore
}


def traces_expand() -> bool:
    """Whether this torch traces expand of a distribution of its own: 2.11 does not."""
    try:
        normal = torch.compile(lambda x: Normal(x, 1.0).expand((2, 3)).mean, fullgraph=True, backend="aot_eager")
        normal(torch.zeros(3))
    except torch._dynamo.exc.Unsupported:
        return False
    return True


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_graph_gives_what_eager_calls_give(kind: str, method: str) -> None:
    if (method == "kl") != (kind == "coarse_grained") and method in ("kl", "posterior_logits"):
        pytest.skip("the method belongs to the other distributions")
    torch._dynamo.reset()
    if method == "expand" and not traces_expand():
        pytest.skip(f"torch {torch.__version__} does not trace expand of its own distributions either")

    def function(x: Tensor, sharpness: Any) -> Tensor:
        return METHODS[method](KINDS[kind](x, sharpness))

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    results = []
    for call in (compiled, function):
        leaf = LOGITS.clone().requires_grad_()
        torch.manual_seed(1)
        result = call(leaf, 3.0)
        gradient = torch.autograd.grad(result.sum(), leaf, allow_unused=True)[0] if result.requires_grad else None
        results.append((result.detach(), gradient))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["rsample", "log_prob", "icdf", "cdf", "variance"])
@pytest.mark.parametrize("kind", [*KINDS][:-1])
def test_two_graphs_serve_all_numbers(kind: str, method: str) -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")

    def function(sharpness: float) -> Tensor:
        return METHODS[method](KINDS[kind](LOGITS, sharpness))

    compiled = torch.compile(function, fullgraph=True, backend=counter)
    for value in REALS:
        torch.manual_seed(1)
        result = compiled(value)
        torch.manual_seed(1)
        torch.testing.assert_close(result, function(value), rtol=1e-5, atol=1e-6)
    assert counter.frame_count == 2


@pytest.mark.parametrize("argument", ["temperature", "num_points"])
def test_two_graphs_serve_coarse_grained_samples(argument: str) -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")

    def function(value: Any) -> Tensor:
        return CoarseGrained(LOGITS, **{argument: value}, validate_args=False).rsample((2,))

    compiled = torch.compile(function, fullgraph=True, backend=counter)
    for value in REALS if argument == "temperature" else range(7, 17):
        torch.manual_seed(1)
        result = compiled(value)
        torch.manual_seed(1)
        torch.testing.assert_close(result, function(value), rtol=1e-5, atol=1e-6)
    assert counter.frame_count == 2
