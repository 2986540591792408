"""KL divergence of every pair in a batch of diagonal normals."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dvae_ext.ops._autograd import call_backward, refuse_second_order, register_autograd
from dvae_ext.ops._posteriors import check_posteriors


@torch.library.register_fake("dvae_ext::pairwise_kl_normal")
def _fake(mean: Tensor, logvar: Tensor) -> Tensor:
    return mean.new_empty((mean.shape[0], mean.shape[0]))


@torch.library.register_fake("dvae_ext::pairwise_kl_normal_backward")
def _fake_backward(grad: Tensor, mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(mean), torch.empty_like(logvar)


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    mean, logvar = ctx.saved_tensors
    return call_backward(torch.ops.dvae_ext.pairwise_kl_normal_backward.default, grad.contiguous(), mean, logvar)


_OP = register_autograd("pairwise_kl_normal", _backward, _setup_context)
refuse_second_order("pairwise_kl_normal")


def pairwise_kl_normal(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(q_i ‖ q_j) of every ordered pair of diagonal normals, the dimensions summed (MAE section 3.2).

    Nothing of size ``batch · batch · dims`` exists, forward or backward, and no sum depends on the number of threads.

    Args:
        mean: ``[batch, dims]``.
        logvar: ``[batch, dims]``, logarithms of the variances.

    Returns:
        ``[batch, batch]``, entry (i, j) = KL(q_i ‖ q_j) ≥ 0, zero on the diagonal. float32, float64, and bfloat16 or
        float16 with float32 inside. Accurate for log-variances that almost agree, and as far as the result is finite.
        A NaN makes NaN of its row and column. Differentiable once in both arguments; a second time is an error. An
        infinite KL adds nothing to a gradient where the incoming one is 0.

    Raises:
        TypeError: an argument is no tensor of these dtypes, or dtypes differ.
        ValueError: a shape is not ``[batch, dims]``, or the shapes differ.
        RuntimeError: tensors on different devices, or on a device without kernels.

    Example:
        >>> import torch
        >>> from dvae_ext import ops
        >>> ops.pairwise_kl_normal(torch.tensor([[0.0], [2.0]]), torch.zeros(2, 1))
        tensor([[0., 2.],
                [2., 0.]])
    """
    return _OP(*check_posteriors("pairwise_kl_normal", mean=mean, logvar=logvar))
