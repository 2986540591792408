"""Coarse-grained samples against the reference that makes the same noise, and against their exact limits."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dvae_ext import ops, reference, rng
from dvae_ext.reference.coarse_grain_sample import coarse_grain_logits, grid


def coefficients_of(batch: int, dims: int, order: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(batch, dims, order, generator=generator, dtype=torch.float64)


# Grids that do and do not fill generator calls and vectors, one dimension and many, orders from 1 to R - 2.
SHAPES = [
    {"batch": 3, "dims": 4, "order": 2, "num_points": 101, "num_samples": 2},
    {"batch": 1, "dims": 1, "order": 1, "num_points": 3, "num_samples": 1},
    {"batch": 2, "dims": 7, "order": 5, "num_points": 17, "num_samples": 3},
    {"batch": 2, "dims": 50, "order": 3, "num_points": 101, "num_samples": 1},
    {"batch": 2, "dims": 3, "order": 15, "num_points": 64, "num_samples": 5},
    {"batch": 1, "dims": 2, "order": 4, "num_points": 1001, "num_samples": 2},
    {"batch": 1, "dims": 2, "order": 49, "num_points": 51, "num_samples": 2},
]


@pytest.mark.parametrize("temperature", [0.05, 0.3, 0.5, 10.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_reference(shape: dict[str, int], temperature: float, device: torch.device) -> None:
    sizes = {name: shape[name] for name in ("num_points", "num_samples")}
    key = torch.tensor([0x123456789ABCDEF, 5_000_000_000], device=device)
    leaf = coefficients_of(shape["batch"], shape["dims"], shape["order"]).to(device).requires_grad_()
    other = leaf.detach().clone().requires_grad_()
    z = ops.coarse_grain_sample(leaf, key, temperature, **sizes)
    expected = reference.coarse_grain_sample(other, key, temperature, **sizes)
    torch.testing.assert_close(z, expected, rtol=1e-10, atol=1e-11)
    cotangent = torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(device)
    gradient = torch.autograd.grad((z * cotangent).sum(), leaf)[0]
    expected_gradient = torch.autograd.grad((expected * cotangent).sum(), other)[0]
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("temperature", [0.05, 0.2999, 0.3, 0.5, 10.0])
def test_float32_has_the_draws_of_float64(temperature: float, device: torch.device, interpreted: bool) -> None:
    """1.2 million draws on the CPU, so that the tails of the noise are met too."""
    coefficients = coefficients_of(20, 6, 5, 3.0).float().to(device)
    key = rng.key(3, device)
    leaves = [coefficients.clone().requires_grad_(), coefficients.double().requires_grad_()]
    z = [ops.coarse_grain_sample(leaf, key, temperature, 101, 4 if interpreted else 100) for leaf in leaves]
    # At low temperature an error of 1e-6 in two competing perturbed logits is divided by T.
    torch.testing.assert_close(z[0].double(), z[1], rtol=0, atol=4e-6 / temperature)
    gradients = [torch.autograd.grad(value.sum(), leaf)[0] for value, leaf in zip(z, leaves, strict=True)]
    torch.testing.assert_close(gradients[0].double(), gradients[1], rtol=1e-4, atol=1e-4 / temperature)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_in_float32(dtype: torch.dtype, device: torch.device) -> None:
    coefficients = coefficients_of(3, 4, 2).to(device, dtype)
    z = ops.coarse_grain_sample(coefficients, rng.key(3, device), 0.5)
    assert z.dtype == dtype
    expected = ops.coarse_grain_sample(coefficients.float(), rng.key(3, device), 0.5)
    torch.testing.assert_close(z, expected.to(dtype))


def test_frequencies_are_the_categorical_limit(interpreted: bool) -> None:
    """T → 0: z sits on the grid with the softmax frequencies. Chi-squared at a false-alarm rate of 1e-3."""
    coefficients = torch.tensor([[[1.5, -2.0, 0.7]]])
    draws = 2_000 if interpreted else 40_000
    z = ops.coarse_grain_sample(coefficients, rng.key(11), 1e-3, num_points=9, num_samples=draws).reshape(-1)
    index = ((z + 1) * 4).round().long()
    # Only where the two largest perturbed logits nearly tie does z lie between grid points.
    assert ((z - grid(9, torch.float32)[index]).abs() < 1e-3).float().mean() > 0.98
    observed = torch.bincount(index, minlength=9).numpy()
    expected = coarse_grain_logits(coefficients.double(), 9).softmax(-1).reshape(-1).numpy() * draws
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed: pip install 'dvae_ext[test]'")
    assert stats.chisquare(observed, expected / expected.sum() * observed.sum()).pvalue > 1e-3


def test_moments_equal_quadrature_of_the_truncated_normal(interpreted: bool) -> None:
    """M = 2 with c_2 < 0 is a truncated normal: mean and variance of fine-grained samples, at 4.5 standard errors."""
    location, scale = 0.3, 0.4
    coefficients = torch.tensor([[[location / scale**2, -0.5 / scale**2]]])
    draws = 2_000 if interpreted else 100_000
    z = ops.coarse_grain_sample(coefficients, rng.key(5), 1e-4, num_points=401, num_samples=draws).double().reshape(-1)
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed: pip install 'dvae_ext[test]'")
    exact = stats.truncnorm((-1 - location) / scale, (1 - location) / scale, loc=location, scale=scale)
    mean, variance, fourth = exact.mean(), exact.var(), exact.stats("k") + 3
    assert abs(z.mean().item() - mean) < 4.5 * math.sqrt(variance / draws) + 1e-5
    assert abs(z.var().item() - variance) < 4.5 * variance * math.sqrt((float(fourth) - 1) / draws) + 1e-4


def test_samples_are_independent_of_each_other(interpreted: bool) -> None:
    """Correlations between samples, rows and dimensions vanish: |r| < 4.9/√n, a false-alarm rate of 1e-6 each."""
    rows = 10 if interpreted else 50
    z = ops.coarse_grain_sample(torch.zeros(rows, 8, 1), rng.key(2), 0.1, num_points=11, num_samples=50)
    flat = z.reshape(50, 8 * rows).double().numpy()
    for lag in (1, 2, 8, 16):
        pairs = np.corrcoef(flat[:, :-lag].ravel(), flat[:, lag:].ravel())[0, 1]
        assert abs(pairs) < 4.9 / math.sqrt(flat[:, lag:].size)
    between = np.corrcoef(flat[:-1].ravel(), flat[1:].ravel())[0, 1]
    assert abs(between) < 4.9 / math.sqrt(flat[1:].size)


def test_large_coefficients_stay_finite(device: torch.device) -> None:
    coefficients = torch.tensor([[[1e30, -3e37], [-1e20, 0.0]]], device=device, requires_grad=True)
    z = ops.coarse_grain_sample(coefficients, rng.key(1, device), 0.05)
    (gradient,) = torch.autograd.grad(z.sum(), coefficients)
    torch.testing.assert_close(z, torch.tensor([[[0.0, -1.0]]], device=device), rtol=0, atol=1e-6)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("function", [ops.coarse_grain_sample, reference.coarse_grain_sample], ids=["op", "reference"])
@pytest.mark.parametrize(
    ("dtype", "temperature"), [(torch.float32, 1e-40), (torch.float32, 1e-20), (torch.float64, 1e-307)]
)
def test_temperatures_below_all_differences(
    function, dtype: torch.dtype, temperature: float, device: torch.device
) -> None:
    """z is the grid point of the largest perturbed logit, and moves with no coefficient."""
    leaf = coefficients_of(2, 3, 3).to(device, dtype).requires_grad_()
    z = function(leaf, rng.key(1, device), temperature)
    limit = ops.coarse_grain_sample(leaf.detach(), rng.key(1, device), 1e-5)
    torch.testing.assert_close(z.detach(), limit, rtol=0, atol=1e-6)
    assert torch.autograd.grad(z.sum(), leaf)[0].abs().max() < 1e-9


def test_nan_stays_in_its_density(device: torch.device) -> None:
    coefficients = coefficients_of(2, 3, 2).float().to(device)
    coefficients[1, 2, 0] = float("nan")
    z = ops.coarse_grain_sample(coefficients, rng.key(1, device), 0.5, num_samples=3)
    expected = torch.zeros(3, 2, 3, dtype=torch.bool, device=device)
    expected[:, 1, 2] = True
    assert torch.equal(z.isnan(), expected)


def test_stays_inside_the_interval(device: torch.device) -> None:
    coefficients = coefficients_of(8, 5, 3, 50.0).float().to(device)
    for temperature in (0.05, 10.0):
        assert ops.coarse_grain_sample(coefficients, rng.key(1, device), temperature, 21, 3).abs().max() <= 1


def test_advancing_the_key_does_not_disturb_the_backward_pass(device: torch.device) -> None:
    gradients = []
    for advance in (False, True):
        key = rng.key(4, device)
        leaf = coefficients_of(2, 3, 2).to(device).requires_grad_()
        z = ops.coarse_grain_sample(leaf, key, 0.5)
        if advance:
            rng.advance_(key, 1)
        gradients.append(torch.autograd.grad(z.sum(), leaf)[0])
    assert torch.equal(*gradients)


def test_keys_give_different_draws(device: torch.device) -> None:
    coefficients = coefficients_of(2, 3, 2).to(device)
    first, second = rng.key(4, device), rng.key(4, device)
    rng.advance_(second, 1)
    assert not torch.equal(
        ops.coarse_grain_sample(coefficients, first, 0.5), ops.coarse_grain_sample(coefficients, second, 0.5)
    )


@pytest.mark.not_interpreted("sets the threads of the CPU kernels; the interpreter has one")
def test_same_for_any_number_of_threads() -> None:
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        leaf = coefficients_of(9, 5, 3).float().requires_grad_()
        z = ops.coarse_grain_sample(leaf, rng.key(4), 0.5, num_samples=3)
        results.append((z.detach(), torch.autograd.grad(z.square().sum(), leaf)[0]))
    torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_gradcheck() -> None:
    leaf = coefficients_of(2, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: ops.coarse_grain_sample(c, rng.key(4), 0.7, 11, 2), [leaf])


def test_empty(device: torch.device) -> None:
    key = rng.key(1, device)
    assert ops.coarse_grain_sample(torch.zeros(0, 3, 2, device=device), key, 0.5).shape == (1, 0, 3)
    leaf = torch.zeros(2, 3, 2, device=device, requires_grad=True)
    nothing = ops.coarse_grain_sample(leaf, key, 0.5, num_samples=0)
    assert nothing.shape == (0, 2, 3)
    assert (torch.autograd.grad(nothing.sum(), leaf)[0] == 0).all()


def test_opcheck() -> None:
    leaf = coefficients_of(2, 3, 2).float().requires_grad_()
    temperature = torch.tensor(0.5, dtype=torch.float64)
    torch.library.opcheck(torch.ops.dvae_ext.coarse_grain_sample.default, [leaf, rng.key(4), temperature, 21, 2])


def test_compiles_into_one_graph() -> None:
    coefficients, key = coefficients_of(2, 3, 2).float(), rng.key(4)
    compiled = torch.compile(ops.coarse_grain_sample, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(coefficients, key, 0.5), ops.coarse_grain_sample(coefficients, key, 0.5))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"coefficients": torch.zeros(2, 3)}, ValueError, r"coefficients has shape \[2, 3\]"),
        ({"coefficients": torch.zeros(2, 3, 4)}, ValueError, r"order 4 on a grid of num_points = 5"),
        ({"coefficients": torch.zeros(2, 3, 0)}, ValueError, r"order 0 on a grid"),
        ({"coefficients": torch.zeros(2, 3, 2).long()}, TypeError, "coefficients has dtype int64"),
        ({"num_points": 2}, ValueError, "order 2 on a grid of num_points = 2"),
        ({"num_points": 5.0}, TypeError, "num_points is float"),
        ({"temperature": 0.0}, ValueError, "temperature is 0.0, expected a positive finite number"),
        ({"temperature": -1.0}, ValueError, "temperature is -1.0"),
        ({"temperature": float("nan")}, ValueError, "temperature is nan"),
        ({"temperature": "hot"}, TypeError, "temperature is str"),
        (
            {"temperature": torch.tensor(0.5, requires_grad=True)},
            TypeError,
            "temperature is a tensor, expected a number",
        ),
        ({"num_samples": -1}, ValueError, "num_samples is -1"),
        ({"key": torch.zeros(2)}, TypeError, "key has dtype float32"),
        ({"key": torch.zeros(3, dtype=torch.int64)}, ValueError, r"key has shape \[3\]"),
    ],
)
def test_bad_arguments(change: dict[str, object], error: type[Exception], message: str) -> None:
    arguments = {"coefficients": torch.zeros(2, 3, 2), "key": rng.key(1), "temperature": 0.5, "num_points": 5}
    with pytest.raises(error, match=message):
        ops.coarse_grain_sample(**{**arguments, **change})


def test_second_order_is_an_error() -> None:
    leaf = coefficients_of(2, 3, 2).requires_grad_()
    loss = ops.coarse_grain_sample(leaf, rng.key(4), 0.5).sum()
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="coarse_grain_sample has no second-order gradient"):
        gradient.sum().backward()


MEMORY_PROGRAM = """
import resource, torch
from dvae_ext import ops, rng
def step(samples):
    coefficients = torch.zeros(100, 40, 5, requires_grad=True)
    ops.coarse_grain_sample(coefficients, rng.key(1), 0.5, 1001, samples).sum().backward()
step(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(50)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.not_interpreted("measures the CPU kernels' memory; the interpreter adds a stack for each CUDA thread")
def test_peak_memory_is_that_of_z() -> None:
    """50 samples on 1001 points: z has 0.8 MB, its gradient as much, the noise alone would have 800 MB."""
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-c", MEMORY_PROGRAM], capture_output=True, text=True, check=True, cwd=root, timeout=120
    )
    assert int(result.stdout) < 8 * 1024
