"""KL between coarse-grained densities against enumeration."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dvae_ext import ops, reference


def coefficients_of(*shape: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value_and_gradients(function, q: Tensor, p: Tensor, num_points: int, cotangent: Tensor) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in (q, p)]
    value = function(*leaves, num_points)
    return [value.detach(), *torch.autograd.grad((value * cotangent).sum(), leaves)]


# The batch is summed in chunks of 8 for the prior's gradient.
@pytest.mark.parametrize(
    ("batch", "dims", "order", "num_points"),
    [(1, 1, 1, 3), (3, 4, 2, 101), (8, 2, 5, 17), (9, 3, 3, 64), (20, 2, 49, 51), (2, 1, 4, 1001)],
)
@pytest.mark.parametrize("scale", [0.3, 5.0])
def test_float64_equals_enumeration(
    batch: int, dims: int, order: int, num_points: int, scale: float, device: torch.device
) -> None:
    q = coefficients_of(batch, dims, order, scale=scale).to(device)
    p = coefficients_of(dims, order, scale=scale, seed=1).to(device)
    cotangent = coefficients_of(batch, dims, seed=2).to(device)
    ours = value_and_gradients(ops.coarse_grain_kl, q, p, num_points, cotangent)
    theirs = value_and_gradients(reference.coarse_grain_kl, q, p, num_points, cotangent)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-12)


def test_equation_4_by_hand() -> None:
    """R = 3, so grid points -1, 0, 1 and logits -c, 0, c."""
    q, p = torch.tensor([[[0.7]]], dtype=torch.float64), torch.tensor([[-0.2]], dtype=torch.float64)
    log_q, log_p = (torch.tensor([-c, 0.0, c], dtype=torch.float64).log_softmax(0) for c in (0.7, -0.2))
    expected = sum(log_q[r].exp() * (log_q[r] - log_p[r]) for r in range(3))
    torch.testing.assert_close(ops.coarse_grain_kl(q, p, 3)[0, 0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_at_equal_parameters_and_never_negative(dtype: torch.dtype, device: torch.device) -> None:
    p = coefficients_of(6, 5, scale=3.0).to(device, dtype)
    q = p[None].expand(4, 6, 5)
    leaves = [q.clone().requires_grad_(), p.clone().requires_grad_()]
    kl = ops.coarse_grain_kl(*leaves, 101)
    assert (kl == 0).all()
    for gradient in torch.autograd.grad(kl.sum(), leaves):
        assert (gradient == 0).all()
    for distance in (1e-7, 1e-5, 1e-3, 0.1):
        close = q + distance * coefficients_of(4, 6, 5, seed=3).to(device, dtype)
        assert (ops.coarse_grain_kl(close, p, 101) >= 0).all()


@pytest.mark.parametrize("distance", [1e-4, 1e-2, 1.0, 30.0])
def test_float32_keeps_its_relative_accuracy(distance: float, device: torch.device) -> None:
    p = coefficients_of(5, 4).float().to(device)
    q = (p[None] + distance * coefficients_of(7, 5, 4, seed=1).float().to(device)).float()
    cotangent = torch.ones(7, 5, device=device)
    ours = value_and_gradients(ops.coarse_grain_kl, q, p, 101, cotangent)
    theirs = value_and_gradients(reference.coarse_grain_kl, q.double(), p.double(), 101, cotangent.double())
    # The logits themselves carry an error of 1e-7 each; the divergence is quadratic in their difference.
    torch.testing.assert_close(ours[0].double(), theirs[0], rtol=1e-5 + 2e-6 / distance, atol=0)
    for mine, expected in zip(ours[1:], theirs[1:], strict=True):
        assert (mine.double() - expected).abs().max() <= (1e-5 + 2e-6 / distance) * expected.abs().max()


def test_large_coefficients_stay_finite(device: torch.device) -> None:
    """q sits on the point 1, p on the point -1; the divergence is the difference of their logits there."""
    q = torch.tensor([[[1e20]]], device=device, requires_grad=True)
    p = torch.tensor([[-1e20]], device=device, requires_grad=True)
    kl = ops.coarse_grain_kl(q, p, 5)
    torch.testing.assert_close(kl, torch.full_like(kl, 2e20))
    for gradient in torch.autograd.grad(kl.sum(), [q, p]):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_in_float32(dtype: torch.dtype, device: torch.device) -> None:
    q, p = coefficients_of(3, 4, 2).to(device, dtype), coefficients_of(4, 2, seed=1).to(device, dtype)
    torch.testing.assert_close(ops.coarse_grain_kl(q, p), ops.coarse_grain_kl(q.float(), p.float()).to(dtype))


def test_nan_stays_in_its_density(device: torch.device) -> None:
    q, p = coefficients_of(2, 3, 2).float().to(device), coefficients_of(3, 2).float().to(device)
    q[1, 2, 0] = float("nan")
    expected = torch.zeros(2, 3, dtype=torch.bool, device=device)
    expected[1, 2] = True
    assert torch.equal(ops.coarse_grain_kl(q, p).isnan(), expected)


def test_gradcheck() -> None:
    leaves = [coefficients_of(3, 2, 3).requires_grad_(), coefficients_of(2, 3, seed=1).requires_grad_()]
    assert torch.autograd.gradcheck(lambda q, p: ops.coarse_grain_kl(q, p, 11), leaves)


def test_empty(device: torch.device) -> None:
    q = torch.zeros(0, 3, 2, device=device, requires_grad=True)
    p = torch.zeros(3, 2, device=device, requires_grad=True)
    kl = ops.coarse_grain_kl(q, p)
    assert kl.shape == (0, 3)
    assert (torch.autograd.grad(kl.sum(), p)[0] == 0).all()


@pytest.mark.not_interpreted("sets the threads of the CPU kernels; the interpreter has one")
def test_same_for_any_number_of_threads() -> None:
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        q, p = coefficients_of(30, 3, 2).float(), coefficients_of(3, 2, seed=1).float()
        results.append(value_and_gradients(ops.coarse_grain_kl, q, p, 21, torch.ones(30, 3)))
    torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_opcheck() -> None:
    leaves = [coefficients_of(3, 2, 3).float().requires_grad_(), coefficients_of(2, 3).float().requires_grad_()]
    torch.library.opcheck(torch.ops.dvae_ext.coarse_grain_kl.default, [*leaves, 11])


def test_bad_arguments() -> None:
    q, p = torch.zeros(2, 3, 4), torch.zeros(3, 4)
    with pytest.raises(ValueError, match=r"p_coefficients has shape \[2, 4\], expected \[dims, order\] = \[3, 4\]"):
        ops.coarse_grain_kl(q, p[:2])
    with pytest.raises(ValueError, match=r"q_coefficients has shape \[3, 4\]"):
        ops.coarse_grain_kl(p, p)
    with pytest.raises(ValueError, match=r"order 4 on a grid of num_points = 5"):
        ops.coarse_grain_kl(q, p, 5)
    with pytest.raises(TypeError, match=r"p_coefficients has dtype torch\.float64, expected torch\.float32"):
        ops.coarse_grain_kl(q, p.double())


def test_second_order_is_an_error() -> None:
    q, p = coefficients_of(2, 3, 2).requires_grad_(), coefficients_of(3, 2)
    (gradient,) = torch.autograd.grad(ops.coarse_grain_kl(q, p).sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="coarse_grain_kl has no second-order gradient"):
        gradient.sum().backward()
