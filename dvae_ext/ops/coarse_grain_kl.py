"""KL divergence between coarse-grained densities."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dvae_ext.ops._arguments import check_tensor, in_one_dtype
from dvae_ext.ops._autograd import call_backward, refuse_second_order, register_autograd
from dvae_ext.ops.coarse_grain_sample import check_grid


@torch.library.register_fake("dvae_ext::coarse_grain_kl")
def _fake(q_coefficients: Tensor, p_coefficients: Tensor, num_points: int) -> Tensor:
    return q_coefficients.new_empty(q_coefficients.shape[:2])


@torch.library.register_fake("dvae_ext::coarse_grain_kl_backward")
def _fake_backward(
    grad: Tensor, q_coefficients: Tensor, p_coefficients: Tensor, num_points: int
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q_coefficients), torch.empty_like(p_coefficients)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q_coefficients, p_coefficients, ctx.num_points = inputs
    ctx.save_for_backward(q_coefficients, p_coefficients)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    grads = call_backward(
        torch.ops.dvae_ext.coarse_grain_kl_backward.default, grad.contiguous(), *ctx.saved_tensors, ctx.num_points
    )
    return *grads, None


_OP = register_autograd("coarse_grain_kl", _backward, _setup_context)
refuse_second_order("coarse_grain_kl")


def coarse_grain_kl(q_coefficients: Tensor, p_coefficients: Tensor, num_points: int = 101) -> Tensor:
    """KL divergence between the categorical limits of coarse-grained densities (CG-BPEF-VAE eq. 4).

    Args:
        q_coefficients: ``[batch, dims, order]``, of the powers 1 … order; 1 ≤ order ≤ ``num_points`` - 2.
        p_coefficients: ``[dims, order]``, the prior.
        num_points: R, the number of equidistant points on [-1, 1].

    Returns:
        ``[batch, dims]``, Σ_r q_r log(q_r / p_r) with q = softmax(Σ_m c_m ζ^m): ≥ 0, and zero where q and p have the
        same coefficients. float32, float64, and bfloat16 or float16 with float32 inside; 16-bit coefficients beside
        float32 ones give float32. Differentiable once in both; a second time is an error. NaN in, NaN out.

    Raises:
        TypeError: an argument is of the wrong type or dtype.
        ValueError: a shape is wrong, or the order is above ``num_points`` - 2.
        RuntimeError: tensors on different devices, or on a device without kernels.

    Example:
        >>> import torch
        >>> from dvae_ext import ops
        >>> ops.coarse_grain_kl(torch.tensor([[[0.0, -2.0]], [[1.0, 0.0]]]), torch.tensor([[1.0, 0.0]]))
        tensor([[0.2957],
                [0.0000]])
    """
    op = "coarse_grain_kl"
    check_tensor(q_coefficients, op, "q_coefficients")
    check_tensor(p_coefficients, op, "p_coefficients")
    if q_coefficients.ndim != 3:
        raise ValueError(f"{op}: q_coefficients has shape {list(q_coefficients.shape)}, expected [batch, dims, order]")
    if p_coefficients.shape != q_coefficients.shape[1:]:
        raise ValueError(
            f"{op}: p_coefficients has shape {list(p_coefficients.shape)}, expected [dims, order] = "
            f"{list(q_coefficients.shape[1:])} like q_coefficients"
        )
    both = in_one_dtype(op, {"q_coefficients": q_coefficients, "p_coefficients": p_coefficients})
    check_grid(op, q_coefficients.shape[2], num_points)
    return _OP(*(tensor.contiguous() for tensor in both.values()), num_points)
