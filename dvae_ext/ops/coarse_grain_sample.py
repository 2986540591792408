"""Relaxed samples of coarse-grained densities."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dvae_ext.ops._arguments import check_number, check_tensor, is_integer, scalar
from dvae_ext.ops._autograd import call_backward, refuse_second_order, register_autograd


@torch.library.register_fake("dvae_ext::coarse_grain_sample")
def _fake(coefficients: Tensor, key: Tensor, temperature: Tensor, num_points: int, num_samples: int) -> Tensor:
    return coefficients.new_empty((num_samples, coefficients.shape[0], coefficients.shape[1]))


@torch.library.register_fake("dvae_ext::coarse_grain_sample_backward")
def _fake_backward(grad: Tensor, coefficients: Tensor, key: Tensor, temperature: Tensor, num_points: int) -> Tensor:
    return torch.empty_like(coefficients)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    coefficients, key, temperature, ctx.num_points, _ = inputs
    ctx.save_for_backward(coefficients, key, temperature)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_coefficients = call_backward(
        torch.ops.dvae_ext.coarse_grain_sample_backward.default,
        grad.contiguous(),
        *ctx.saved_tensors,
        ctx.num_points,
    )
    return grad_coefficients, None, None, None, None


_OP = register_autograd("coarse_grain_sample", _backward, _setup_context)
refuse_second_order("coarse_grain_sample")


def check_grid(op: str, order: int, num_points: int) -> None:
    """A polynomial of this order needs a grid on which it is not redundant."""
    if not is_integer(num_points):
        raise TypeError(f"{op}: num_points is {type(num_points).__name__}, expected an integer")
    if not 1 <= order <= num_points - 2:
        raise ValueError(
            f"{op}: the polynomial has order {order} on a grid of num_points = {num_points}, expected an order from 1 "
            "to num_points - 2"
        )


def coarse_grain_sample(
    coefficients: Tensor, key: Tensor, temperature: float, num_points: int = 101, num_samples: int = 1
) -> Tensor:
    """Samples z ∈ [-1, 1] of polynomial exponential families by coarse graining (CG-BPEF-VAE section 3.2).

    The density exp(Σ_m c_m z^m) is reduced to its values on R equidistant points of [-1, 1], a Concrete vector
    y = softmax((Σ_m c_m ζ^m + g) / T) is drawn with Gumbel noise g, and z = Σ_r y_r ζ_r. The noise is made from the key
    inside the kernel, and again in the backward pass: y and g never exist as tensors. g is made of uniforms of
    21 bits: as T → 0 points less likely than 2⁻²² are drawn too rarely, and those below 2⁻²⁵ hardly ever.

    Args:
        coefficients: ``[batch, dims, order]``, c of the powers 1 … order, with 1 ≤ order ≤ ``num_points`` - 2.
        key: ``int64[2]`` from :func:`dvae_ext.rng.key`, on the same device. The op consumes one step and leaves it to
            the caller to advance the key; advancing it before the backward pass does no harm.
        temperature: T > 0, a number; it has no gradient. As T → 0, z takes the value ζ_r with probability
            softmax(Σ_m c_m ζ^m)_r.
        num_points: R, the number of grid points.
        num_samples: L, how many samples of each posterior.

    Returns:
        ``[num_samples, batch, dims]``. float32, float64, and bfloat16 or float16 with float32 inside. The same key
        gives the same noise on every device. Finite as long as the polynomial itself is finite; NaN in, NaN out.
        Differentiable once in ``coefficients``; a second time is an error.

    Raises:
        TypeError: an argument is of the wrong type or dtype.
        ValueError: wrong shape, ``temperature`` not positive, order above ``num_points`` - 2, negative ``num_samples``.
        RuntimeError: the key is on another device, or the device has no kernels.

    Example:
        >>> import torch
        >>> from dvae_ext import ops, rng
        >>> z = ops.coarse_grain_sample(torch.tensor([[[0.0, -50.0]]]), rng.key(7), temperature=0.5, num_samples=5)
        >>> z.shape, bool((z.abs() < 0.5).all())
        (torch.Size([5, 1, 1]), True)
    """
    op = "coarse_grain_sample"
    check_tensor(coefficients, op, "coefficients")
    if coefficients.ndim != 3:
        raise ValueError(f"{op}: coefficients has shape {list(coefficients.shape)}, expected [batch, dims, order]")
    check_grid(op, coefficients.shape[2], num_points)
    check_tensor(key, op, "key", (torch.int64,))
    if key.shape != (2,):
        raise ValueError(f"{op}: key has shape {list(key.shape)}, expected [2], from dvae_ext.rng.key")
    if key.device != coefficients.device:
        raise RuntimeError(f"{op}: key is on {key.device}, expected {coefficients.device} like coefficients")
    if isinstance(temperature, Tensor):
        raise TypeError(f"{op}: temperature is a tensor, expected a number, as it has no gradient")
    number = check_number(temperature, op, "temperature", torch.float64)
    if not is_integer(num_samples):
        raise TypeError(f"{op}: num_samples is {type(num_samples).__name__}, expected an integer")
    if num_samples < 0:
        raise ValueError(f"{op}: num_samples is {num_samples}, expected a number ≥ 0")
    temperature_there = scalar(number, torch.float64, coefficients.device)
    # The copy lets the caller advance the key in place while the backward pass still needs the old one.
    return _OP(coefficients.contiguous(), key.clone(), temperature_there, num_points, num_samples)
