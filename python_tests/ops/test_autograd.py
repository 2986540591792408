"""Eager calls have an autograd function of their own: it gives what the registered op gives."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from dvae_ext import ops, rng

KEY = rng.key(5)
NATIVE = torch.ops.dvae_ext
# Name: the public function of one leaf, and the registered op behind it.
CASES: dict[str, tuple[Callable[[Tensor], Any], Callable[[Tensor], Any], tuple[int, ...]]] = {
    "overlap_exponential_icdf": (
        lambda x: ops.overlap_exponential_icdf(x.detach().sigmoid(), x, 8.0),
        lambda x: NATIVE.overlap_exponential_icdf.default(x.detach().sigmoid(), x, torch.tensor(8.0)),
        (4, 5),
    ),
    "spike_exponential_icdf": (
        lambda x: ops.spike_exponential_icdf(x.detach().sigmoid(), x, 3.0),
        lambda x: NATIVE.spike_exponential_icdf.default(x.detach().sigmoid(), x, torch.tensor(3.0)),
        (4, 5),
    ),
    "overlap_exponential_log_prob": (
        lambda x: ops.overlap_exponential_log_prob(x.detach().sigmoid(), x, 8.0),
        lambda x: NATIVE.overlap_exponential_log_prob.default(x.detach().sigmoid(), x, torch.tensor(8.0)),
        (4, 5),
    ),
    "overlap_logistic_icdf": (
        lambda x: ops.overlap_logistic_icdf(x.detach().sigmoid(), x, 0.0, 1.0, 0.3),
        lambda x: NATIVE.overlap_logistic_icdf.default(x.detach().sigmoid(), x, *map(torch.tensor, (0.0, 1.0, 0.3))),
        (4, 5),
    ),
    "overlap_logistic_log_prob": (
        lambda x: ops.overlap_logistic_log_prob(x.detach().sigmoid(), x, 0.0, 1.0, 0.3),
        lambda x: NATIVE.overlap_logistic_log_prob.default(
            x.detach().sigmoid(), x, *map(torch.tensor, (0.0, 1.0, 0.3))
        ),
        (4, 5),
    ),
    "pairwise_kl_normal": (
        lambda x: ops.pairwise_kl_normal(x, x.sin()),
        lambda x: NATIVE.pairwise_kl_normal.default(x, x.sin()),
        (4, 5),
    ),
    "pairwise_kl_bernoulli": (ops.pairwise_kl_bernoulli, NATIVE.pairwise_kl_bernoulli.default, (4, 5)),
    "mutual_posterior_divergence": (
        lambda x: ops.mutual_posterior_divergence(x, x.sin())[1],
        lambda x: NATIVE.mutual_posterior_divergence.default(x, x.sin())[1],
        (4, 5),
    ),
    "coarse_grain_sample": (
        lambda x: ops.coarse_grain_sample(x, KEY, 0.5, 11, 2),
        lambda x: NATIVE.coarse_grain_sample.default(x, KEY, torch.tensor(0.5, dtype=torch.float64), 11, 2),
        (2, 3, 4),
    ),
    "coarse_grain_kl": (
        lambda x: ops.coarse_grain_kl(x, x[0].sin(), 11),
        lambda x: NATIVE.coarse_grain_kl.default(x, x[0].sin(), 11),
        (2, 3, 4),
    ),
    "rbm_log_z_exact": (
        lambda x: ops.rbm_log_z_exact(x, x[:, 0], x[0]),
        lambda x: NATIVE.rbm_log_z_exact.default(x, x[:, 0].contiguous(), x[0].contiguous()),
        (4, 5),
    ),
}


def leaf_of(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2)).requires_grad_()


@pytest.mark.parametrize("name", CASES)
def test_equals_the_registered_op(name: str) -> None:
    function, registered, shape = CASES[name]
    leaf = leaf_of(shape)
    own, expected = function(leaf), registered(leaf)
    assert name in type(own.grad_fn).__name__ or name == "mutual_posterior_divergence"
    assert torch.equal(own, expected)
    cotangent = torch.randn(own.shape, generator=torch.Generator().manual_seed(3)).to(own.dtype)
    gradients = [torch.autograd.grad(value, leaf, cotangent, retain_graph=True)[0] for value in (own, expected)]
    assert torch.equal(*gradients)
    batch = torch.stack([cotangent, -2 * cotangent])
    (batched,) = torch.autograd.grad(own, leaf, batch, is_grads_batched=True)
    torch.testing.assert_close(batched, torch.stack([gradients[0], -2 * gradients[0]]))


@pytest.mark.parametrize("name", CASES)
def test_recomputation_and_offloading(name: str) -> None:
    function, _, shape = CASES[name]
    leaf = leaf_of(shape)
    (expected,) = torch.autograd.grad(function(leaf).sum(), leaf)
    (recomputed,) = torch.autograd.grad(checkpoint(function, leaf, use_reentrant=False).sum(), leaf)
    with torch.autograd.graph.save_on_cpu():
        offloaded = function(leaf).sum()
    assert torch.equal(recomputed, expected)
    assert torch.equal(torch.autograd.grad(offloaded, leaf)[0], expected)


@pytest.mark.parametrize("name", CASES)
def test_without_gradients(name: str) -> None:
    function, _, shape = CASES[name]
    leaf = leaf_of(shape)
    expected = function(leaf).detach()
    with torch.no_grad():
        assert torch.equal(function(leaf), expected)
        assert not function(leaf).requires_grad
    with torch.inference_mode():
        assert torch.equal(function(leaf), expected)
        assert function(leaf).is_inference()


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap calls the op once for each slice
@pytest.mark.parametrize("name", CASES)
def test_transformations_of_torch_func(name: str) -> None:
    """Reverse mode and vmap, nested and compiled, give what autograd gives for one example after the other."""
    function, _, shape = CASES[name]
    func = torch.func
    torch._dynamo.reset()

    def loss(x: Tensor) -> Tensor:
        return (function(x) * torch.arange(1, function(x).numel() + 1).reshape(function(x).shape)).sum()

    batch = torch.stack([leaf_of(shape).detach() * factor for factor in (1.0, -0.5)])
    expected = []
    for example in batch:
        leaf = example.clone().requires_grad_()
        expected.append(torch.autograd.grad(loss(leaf), leaf)[0])
    gradients = {
        "grad": func.grad(loss)(batch[0]),
        "vjp": func.vjp(loss, batch[0])[1](torch.tensor(1.0, dtype=loss(batch[0]).dtype))[0],
        "jacrev": func.jacrev(loss)(batch[0]),
        "compiled": torch.compile(func.grad(loss), fullgraph=True, backend="aot_eager")(batch[0]),
    }
    for transformation, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[0], msg=lambda m, name=transformation: f"{name}: {m}")
    torch.testing.assert_close(func.vmap(func.grad(loss))(batch), torch.stack(expected))
    torch.testing.assert_close(func.vmap(function)(batch), torch.stack([function(example) for example in batch]))


@pytest.mark.parametrize("name", CASES)
def test_forward_mode_is_refused_in_one_sentence(name: str) -> None:
    function, _, shape = CASES[name]
    x = leaf_of(shape).detach()
    sentence = f"{name}: .* carries a forward-mode tangent .*the ops have derivatives of reverse mode alone"
    with pytest.raises(NotImplementedError, match=sentence):
        torch.func.jvp(function, (x,), (x,))
    with pytest.raises(NotImplementedError, match=sentence):
        torch.func.hessian(lambda x: function(x).sum())(x)


@pytest.mark.parametrize("name", CASES)
def test_derivatives_that_lack_are_refused(name: str) -> None:
    """By torch.func as by autograd: a term is never zero in silence."""
    function, _, shape = CASES[name]
    x = leaf_of(shape).detach()
    twice = name.startswith("overlap_exponential")

    def derivative(f: Callable[[Tensor], Tensor], transformed: bool) -> Callable[[Tensor], Tensor]:
        if transformed:
            return torch.func.grad(lambda x: f(x).sum())

        def gradient(x: Tensor) -> Tensor:
            x = x if x.requires_grad else x.requires_grad_()
            return torch.autograd.grad(f(x).sum(), x, create_graph=True)[0]

        return gradient

    results = []
    for transformed in (False, True):
        second = derivative(derivative(function, transformed), transformed)
        if twice:
            results.append(second(x.clone()).detach())
            with pytest.raises(RuntimeError, match=f"{name} has no third-order gradient"):
                derivative(second, transformed)(x.clone())
        else:
            with pytest.raises(RuntimeError, match=f"{name} has no second-order gradient"):
                second(x.clone())
    if twice:
        assert results[0].abs().min() > 0
        torch.testing.assert_close(*results)


def test_a_change_of_a_saved_argument_is_noticed() -> None:
    leaf = leaf_of((2, 3, 4))
    coefficients = leaf * 1.0
    z = ops.coarse_grain_sample(coefficients, KEY, 0.5)
    coefficients.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


class Weighted(TorchFunctionMode):
    """Multiplies what an op of this package returns by a weight, with autograd."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return result * self.weight if "dvae_ext" in str(func) else result


def test_function_modes_are_differentiated() -> None:
    leaf, weight = leaf_of((4, 5)), torch.tensor(2.0, requires_grad=True)
    plain = ops.pairwise_kl_bernoulli(leaf)
    with Weighted(weight):
        weighted = ops.pairwise_kl_bernoulli(leaf)
    gradient, weight_gradient = torch.autograd.grad(weighted.sum(), (leaf, weight))
    torch.testing.assert_close(gradient, 2 * torch.autograd.grad(plain.sum(), leaf)[0])
    torch.testing.assert_close(weight_gradient, plain.sum())


def test_results_of_subclasses_may_change_in_place() -> None:
    class Subclass(Tensor):
        pass

    leaf = leaf_of((4, 5)).detach().as_subclass(Subclass).requires_grad_()
    changed = ops.pairwise_kl_bernoulli(leaf)
    changed.add_(1)
    (gradient,) = torch.autograd.grad(changed.sum(), leaf)
    plain = leaf_of((4, 5))
    torch.testing.assert_close(
        gradient.as_subclass(Tensor), torch.autograd.grad(ops.pairwise_kl_bernoulli(plain).sum(), plain)[0]
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_traces_can_be_saved() -> None:
    leaf = leaf_of((4, 5))
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(ops.pairwise_kl_bernoulli, (leaf,)), file)
    file.seek(0)
    assert torch.equal(torch.jit.load(file)(leaf), ops.pairwise_kl_bernoulli(leaf))


def test_compiled_backward_passes() -> None:
    leaf = leaf_of((4, 5))
    (expected,) = torch.autograd.grad(ops.pairwise_kl_bernoulli(leaf).sum(), leaf)
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager", fullgraph=True)):
        ops.pairwise_kl_bernoulli(leaf).sum().backward()
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, expected)
