"""Pairwise KL of diagonal normals against float64 and torch.distributions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from dvae_ext import ops, reference


def posteriors(batch: int, dims: int, spread: float = 1.0, logvar_range: float = 2.0, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean = spread * torch.randn(batch, dims, generator=generator, dtype=torch.float64)
    logvar = logvar_range * (2 * torch.rand(batch, dims, generator=generator, dtype=torch.float64) - 1)
    return [mean, logvar]


def value_and_gradients(function, inputs: list[Tensor], cotangent: Tensor) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    value = function(*leaves)
    return [value.detach(), *torch.autograd.grad((value * cotangent).sum(), leaves)]


# Sizes around the kernels' tiles: rows of 16, columns of 64 and 256, 32 and 16 dimensions at a time.
@pytest.mark.parametrize(("batch", "dims"), [(1, 3), (2, 1), (17, 5), (64, 16), (65, 33)])
def test_float64_equals_the_reference(batch: int, dims: int, device: torch.device) -> None:
    inputs = [x.to(device) for x in posteriors(batch, dims)]
    cotangent = posteriors(batch, batch, seed=1)[0].to(device)
    ours = value_and_gradients(ops.pairwise_kl_normal, inputs, cotangent)
    theirs = value_and_gradients(reference.pairwise_kl_normal, inputs, cotangent)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)


def test_long_batches(device: torch.device) -> None:
    inputs = [x.to(device) for x in posteriors(301, 3)]
    torch.testing.assert_close(
        ops.pairwise_kl_normal(*inputs), reference.pairwise_kl_normal(*inputs), rtol=1e-12, atol=1e-12
    )


def test_equals_torch_distributions() -> None:
    mean, logvar = posteriors(6, 4)
    q = Normal(mean[:, None], (0.5 * logvar[:, None]).exp())
    p = Normal(mean[None], (0.5 * logvar[None]).exp())
    torch.testing.assert_close(ops.pairwise_kl_normal(mean, logvar), kl_divergence(q, p).sum(-1))


@pytest.mark.parametrize(("spread", "logvar_range"), [(1.0, 2.0), (1e4, 20.0), (0.0, 1e-3), (1e-3, 0.0), (1.0, 80.0)])
def test_float32_keeps_its_relative_accuracy(spread: float, logvar_range: float, device: torch.device) -> None:
    inputs = [x.float().to(device) for x in posteriors(40, 24, spread, logvar_range)]
    cotangent = torch.ones(40, 40, device=device)
    ours = value_and_gradients(ops.pairwise_kl_normal, inputs, cotangent)
    theirs = value_and_gradients(reference.pairwise_kl_normal, [x.double() for x in inputs], cotangent.double())
    # Past log-variances of 40 the exponential is taken of a rounded difference.
    rtol = 3e-6 if logvar_range <= 40 else 2e-5
    representable = theirs[0] < 1.5e38  # twice as much is met on the way
    torch.testing.assert_close(ours[0].double()[representable], theirs[0][representable], rtol=rtol, atol=0)
    if bool(representable.all()):
        for mine, expected in zip(ours[1:], theirs[1:], strict=True):
            # The gradient sums terms of both signs: compared at the scale of the largest of a posterior.
            scale = expected.abs().amax(dim=0, keepdim=True)
            assert ((mine.double() - expected).abs() <= 1e-5 * scale).all()


@pytest.mark.parametrize("function", [ops.pairwise_kl_normal, reference.pairwise_kl_normal], ids=["op", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_variances_beyond_the_range_of_float32(function, dtype: torch.dtype, device: torch.device) -> None:
    def run(
        mean: list[float], logvar: list[float], *entries: tuple[int, int]
    ) -> tuple[Tensor, list[float], list[float]]:
        leaves = [torch.tensor(x, dtype=dtype, device=device)[:, None].requires_grad_() for x in (mean, logvar)]
        kl = function(*leaves)
        sum(kl[entry] for entry in entries).backward()
        return kl.detach().double().cpu(), *(leaf.grad.double().flatten().tolist() for leaf in leaves)

    rel = 4e-3 if dtype == torch.bfloat16 else 1e-6
    kl, by_mean, by_logvar = run([0.0], [89.0], (0, 0))
    assert (kl.item(), by_mean, by_logvar) == (0, [0], [0])
    kl, by_mean, by_logvar = run([0.0, 0.0], [-100.0, -101.0], (0, 1), (1, 0))
    torch.testing.assert_close(
        kl, torch.tensor([[0, math.e / 2 - 1], [0.5 / math.e, 0]], dtype=torch.float64), rtol=rel, atol=0
    )
    assert by_mean == [0, 0]
    assert by_logvar == pytest.approx([math.sinh(1), -math.sinh(1)], rel=rel)
    # The other divergence of this pair is infinite in float32; its gradient is not asked for.
    kl, by_mean, by_logvar = run([0.0, 3.0], [-80.0, 80.0], (0, 1))
    assert kl[0, 1].item() == pytest.approx(79.5, rel=rel)
    assert kl[1, 0].item() > 3e38
    assert by_mean == pytest.approx([-3 * math.exp(-80), 3 * math.exp(-80)], rel=rel)
    assert by_logvar == [-0.5, 0.5]
    # A precision beyond the range times a small distance, squared: exp(100) 1e-40 / 2.
    kl, by_mean, by_logvar = run([0.0, 1e-20], [-100.0, -100.0], (0, 1))
    distance = torch.tensor(1e-20, dtype=dtype).item()
    assert kl[0, 1].item() == pytest.approx(math.exp(100) * distance**2 / 2, rel=rel)
    assert by_mean == pytest.approx([-math.exp(100) * distance, math.exp(100) * distance], rel=rel)
    assert by_logvar == pytest.approx([0, -math.exp(100) * distance**2 / 2], rel=rel)


def test_diagonal_is_zero(device: torch.device) -> None:
    kl = ops.pairwise_kl_normal(*(x.float().to(device) for x in posteriors(20, 7, 100.0, 100.0)))
    assert (kl.diagonal() == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_in_float32(dtype: torch.dtype, device: torch.device) -> None:
    inputs = [x.to(device, dtype) for x in posteriors(10, 5)]
    torch.testing.assert_close(
        ops.pairwise_kl_normal(*inputs), ops.pairwise_kl_normal(*(x.float() for x in inputs)).to(dtype)
    )


def test_gradcheck() -> None:
    inputs = [x.requires_grad_() for x in posteriors(5, 3)]
    assert torch.autograd.gradcheck(ops.pairwise_kl_normal, inputs)


def test_empty_and_non_contiguous(device: torch.device) -> None:
    empty = torch.zeros(0, 3, device=device)
    assert ops.pairwise_kl_normal(empty, empty).shape == (0, 0)
    flat = torch.zeros(4, 0, device=device)
    assert (ops.pairwise_kl_normal(flat, flat) == torch.zeros(4, 4, device=device)).all()
    mean, logvar = (x.to(device) for x in posteriors(7, 4))
    strided = [x.T.contiguous().T for x in (mean, logvar)]
    assert torch.equal(ops.pairwise_kl_normal(*strided), ops.pairwise_kl_normal(mean, logvar))


def test_nan_stays_in_its_row_and_column(device: torch.device) -> None:
    mean, logvar = (x.float().to(device) for x in posteriors(9, 4))
    mean[3, 2] = float("nan")
    kl = ops.pairwise_kl_normal(mean, logvar)
    expected = torch.zeros(9, 9, dtype=torch.bool, device=device)
    expected[3], expected[:, 3] = True, True
    assert torch.equal(kl.isnan(), expected)


@pytest.mark.not_interpreted("sets the threads of the CPU kernels; the interpreter has one")
def test_same_for_any_number_of_threads() -> None:
    inputs = [x.float() for x in posteriors(130, 9)]
    cotangent = torch.randn(130, 130, generator=torch.Generator().manual_seed(3))
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(value_and_gradients(ops.pairwise_kl_normal, inputs, cotangent))
    torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_opcheck() -> None:
    inputs = [x.float().requires_grad_() for x in posteriors(6, 3)]
    torch.library.opcheck(torch.ops.dvae_ext.pairwise_kl_normal.default, inputs)


def test_bad_arguments() -> None:
    mean, logvar = posteriors(4, 3)
    with pytest.raises(ValueError, match=r"logvar has shape \[3, 3\], expected \[4, 3\] like mean"):
        ops.pairwise_kl_normal(mean, logvar[:3])
    with pytest.raises(ValueError, match=r"mean has shape \[3\], expected \[batch, dims\]"):
        ops.pairwise_kl_normal(mean[0], logvar[0])
    with pytest.raises(TypeError, match=r"logvar has dtype torch\.float32, expected torch\.float64 like mean"):
        ops.pairwise_kl_normal(mean, logvar.float())
    with pytest.raises(TypeError, match="mean has dtype int64"):
        ops.pairwise_kl_normal(mean.long(), logvar)
    with pytest.raises(TypeError, match="mean is list, expected a tensor"):
        ops.pairwise_kl_normal([[1.0]], logvar)


def test_second_order_is_an_error() -> None:
    mean, logvar = (x.requires_grad_() for x in posteriors(4, 3))
    (gradient,) = torch.autograd.grad(ops.pairwise_kl_normal(mean, logvar).sum(), mean, create_graph=True)
    with pytest.raises(RuntimeError, match="pairwise_kl_normal has no second-order gradient"):
        gradient.sum().backward()
