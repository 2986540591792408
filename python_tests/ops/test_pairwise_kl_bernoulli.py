"""Pairwise KL of factorial Bernoulli distributions against float64, mpmath and torch.distributions."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, kl_divergence

from dvae_ext import ops, reference


def logits_of(batch: int, dims: int, scale: float = 2.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(batch, dims, generator=generator, dtype=torch.float64)


def value_and_gradient(function, logits: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.detach().clone().requires_grad_()
    value = function(leaf)
    return value.detach(), torch.autograd.grad((value * cotangent).sum(), leaf)[0]


@pytest.mark.parametrize(("batch", "dims"), [(1, 3), (2, 1), (17, 5), (64, 16), (65, 33)])
def test_float64_equals_the_reference(batch: int, dims: int, device: torch.device) -> None:
    logits = logits_of(batch, dims).to(device)
    cotangent = logits_of(batch, batch, seed=1).to(device)
    ours = value_and_gradient(ops.pairwise_kl_bernoulli, logits, cotangent)
    theirs = value_and_gradient(reference.pairwise_kl_bernoulli, logits, cotangent)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)


def test_equals_torch_distributions() -> None:
    logits = logits_of(6, 4)
    q, p = logits[:, None].expand(6, 6, 4), logits[None].expand(6, 6, 4)
    expected = kl_divergence(Bernoulli(logits=q), Bernoulli(logits=p)).sum(-1)
    torch.testing.assert_close(ops.pairwise_kl_bernoulli(logits), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_relative_accuracy_in_tails_and_near_the_diagonal(dtype: torch.dtype, device: torch.device) -> None:
    """Against 50 digits: saturated logits of either sign, and differences from 1e-4 to 100."""
    base = [-60.0, -15.0, -3.0, -0.5, 0.0, 0.5, 3.0, 15.0, 60.0]
    steps = [0.0, 1e-4, 0.03, 0.7, 0.99, 1.01, 4.0, 20.0]
    logits = torch.tensor([b + s for b in base for s in steps], dtype=dtype)
    kl = ops.pairwise_kl_bernoulli(logits[:, None].to(device)).cpu().double()
    with mpmath.workdps(50):

        def exact(a: float, b: float) -> float:
            a, b = mpmath.mpf(a), mpmath.mpf(b)
            p = 1 / (1 + mpmath.exp(-a))
            return float(mpmath.log1p(mpmath.exp(b)) - mpmath.log1p(mpmath.exp(a)) - p * (b - a))

        values = logits.double().tolist()
        expected = torch.tensor([[exact(a, b) for b in values] for a in values], dtype=torch.float64)
    tiny = 1e-37 if dtype == torch.float32 else 0.0
    tolerance = 4e-6 if dtype == torch.float32 else 1e-14
    assert ((kl - expected).abs() <= tolerance * expected + tiny).all()


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_float32_gradient(scale: float, device: torch.device) -> None:
    logits = logits_of(40, 24, scale).float().to(device)
    cotangent = torch.ones(40, 40, device=device)
    _, ours = value_and_gradient(ops.pairwise_kl_bernoulli, logits, cotangent)
    _, theirs = value_and_gradient(reference.pairwise_kl_bernoulli, logits.double(), cotangent.double())
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_in_float32(dtype: torch.dtype, device: torch.device) -> None:
    logits = logits_of(10, 5).to(device, dtype)
    expected = ops.pairwise_kl_bernoulli(logits.float()).to(dtype)
    torch.testing.assert_close(ops.pairwise_kl_bernoulli(logits), expected)


def test_gradcheck() -> None:
    assert torch.autograd.gradcheck(ops.pairwise_kl_bernoulli, [logits_of(5, 3).requires_grad_()])


def test_nan_stays_in_its_row_and_column(device: torch.device) -> None:
    logits = logits_of(9, 4).float().to(device)
    logits[3, 2] = float("nan")
    expected = torch.zeros(9, 9, dtype=torch.bool, device=device)
    expected[3], expected[:, 3] = True, True
    assert torch.equal(ops.pairwise_kl_bernoulli(logits).isnan(), expected)


def test_empty(device: torch.device) -> None:
    assert ops.pairwise_kl_bernoulli(torch.zeros(0, 3, device=device)).shape == (0, 0)


def test_opcheck() -> None:
    torch.library.opcheck(torch.ops.dvae_ext.pairwise_kl_bernoulli.default, [logits_of(6, 3).float().requires_grad_()])


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"logits has shape \[2, 3, 4\], expected \[batch, dims\]"):
        ops.pairwise_kl_bernoulli(torch.zeros(2, 3, 4))
    with pytest.raises(TypeError, match="logits has dtype int64"):
        ops.pairwise_kl_bernoulli(torch.zeros(2, 3, dtype=torch.int64))


def test_second_order_is_an_error() -> None:
    logits = logits_of(4, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(ops.pairwise_kl_bernoulli(logits).sum(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="pairwise_kl_bernoulli has no second-order gradient"):
        gradient.sum().backward()


def test_certain_variables(device: torch.device) -> None:
    """KL(0 || q) = -log(1 - q), KL(p || 0) = infinity unless p = 0; the gradient of the finite entries stays finite."""
    inf = math.inf
    for dtype in (torch.float32, torch.float64):
        logits = torch.tensor([[-inf], [-2.0], [200.0], [inf], [-inf], [inf]], dtype=dtype, device=device)
        s = math.log1p(math.exp(-2))
        expected = [
            [0, s, 200, inf, 0, inf],
            [inf, 0, None, inf, inf, inf],
            [inf, 2 + s, 0, inf, inf, inf],
            [inf, 2 + s, 0, 0, inf, 0],
            [0, s, 200, inf, 0, inf],
            [inf, 2 + s, 0, 0, inf, 0],
        ]
        leaf = logits.clone().requires_grad_()
        kl = ops.pairwise_kl_bernoulli(leaf)
        for row, expected_row in zip(kl.tolist(), expected, strict=True):
            for value, wanted in zip(row, expected_row, strict=True):
                if wanted is not None:
                    assert value == pytest.approx(wanted, rel=1e-6, abs=1e-30)
        torch.testing.assert_close(
            kl.detach().double(), reference.pairwise_kl_bernoulli(logits.double()), rtol=1e-6, atol=1e-30
        )
        (gradient,) = torch.autograd.grad(kl[kl.isfinite()].sum(), leaf)
        q = 1 / (1 + math.exp(2))
        # The logit -2 is met from 0 (twice), from 200 and from 1 (twice), and looks at 200.
        wanted = 2 * q + 3 * (q - 1) + q * (1 - q) * (-2 - 200)
        assert gradient[1].item() == pytest.approx(wanted, rel=1e-6)
        assert gradient.isfinite().all()
        assert gradient[0] == 0 == gradient[3]


@pytest.mark.parametrize(
    "function", [ops.pairwise_kl_bernoulli, reference.pairwise_kl_bernoulli], ids=["op", "reference"]
)
def test_logits_whose_difference_overflows(function, device: torch.device) -> None:
    """KL(0 || b) = softplus(b): as large as the logit, and no larger."""
    leaf = torch.tensor([[-3e38], [3e38]], device=device, requires_grad=True)
    kl = function(leaf)
    expected = torch.tensor([[0, 3e38], [3e38, 0]], device=device)
    torch.testing.assert_close(kl.detach(), expected, rtol=1e-6, atol=0)
    assert torch.autograd.grad(kl[0, 1] + kl[1, 0], leaf)[0].tolist() == [[-1], [1]]
    beside = torch.tensor([[3e38], [-math.inf], [-1000.0]], device=device, requires_grad=True)
    kl = function(beside)
    assert kl[:, 0].tolist() == pytest.approx([0, 3e38, 3e38], rel=1e-6)
    assert kl[:, 1].tolist() == [math.inf, 0, math.inf]
    (gradient,) = torch.autograd.grad(kl[1, 0] + kl[2, 0], beside)
    assert gradient.tolist() == [[2], [0], [0]]


def test_a_certain_variable_beside_a_nan(device: torch.device) -> None:
    logits = torch.tensor([[math.nan], [math.inf], [1.0]], device=device)
    assert ops.pairwise_kl_bernoulli(logits).isnan().tolist() == [
        [True] * 3,
        [True, False, False],
        [True, False, False],
    ]


def test_forward_mode_is_an_error() -> None:
    logits = logits_of(4, 3)
    with pytest.raises(NotImplementedError, match="pairwise_kl_bernoulli: logits carries a forward-mode tangent"):
        torch.func.jvp(ops.pairwise_kl_bernoulli, (logits,), (logits,))
