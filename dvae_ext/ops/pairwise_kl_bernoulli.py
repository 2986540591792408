"""KL divergence of every pair in a batch of factorial Bernoulli distributions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dvae_ext.ops._autograd import call_backward, refuse_second_order, register_autograd
from dvae_ext.ops._posteriors import check_posteriors


@torch.library.register_fake("dvae_ext::pairwise_kl_bernoulli")
def _fake(logits: Tensor) -> Tensor:
    return logits.new_empty((logits.shape[0], logits.shape[0]))


@torch.library.register_fake("dvae_ext::pairwise_kl_bernoulli_backward")
def _fake_backward(grad: Tensor, logits: Tensor) -> Tensor:
    return torch.empty_like(logits)


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> Tensor:
    (logits,) = ctx.saved_tensors
    return call_backward(torch.ops.dvae_ext.pairwise_kl_bernoulli_backward.default, grad.contiguous(), logits)


_OP = register_autograd("pairwise_kl_bernoulli", _backward, _setup_context)
refuse_second_order("pairwise_kl_bernoulli")


def pairwise_kl_bernoulli(logits: Tensor) -> Tensor:
    """KL(q_i ‖ q_j) of every ordered pair of factorial Bernoulli distributions, the dimensions summed.

    Nothing of size ``batch · batch · dims`` exists, forward or backward, and no sum depends on the number of threads.

    Args:
        logits: ``[batch, dims]``; ±infinity is a certain variable. The KL from it to any other is minus the other's
            log-probability of its value; the KL from any other to it is infinite.

    Returns:
        ``[batch, batch]``, entry (i, j) = KL(q_i ‖ q_j) ≥ 0, zero on the diagonal. float32, float64, and bfloat16 or
        float16 with float32 inside. Keeps its relative accuracy for saturated logits and for logits that almost agree.
        A NaN makes NaN of its row and column. Differentiable once; a second time is an error. A certain
        variable stays certain: the gradient of KL(q_i ‖ q_j) in its own logit as q_i is 0. That of an infinite KL in a
        finite logit is infinite, and 0 where the incoming gradient is 0.

    Raises:
        TypeError: ``logits`` is no tensor of these dtypes.
        ValueError: its shape is not ``[batch, dims]``.
        RuntimeError: it is on a device without kernels.

    Example:
        >>> import torch
        >>> from dvae_ext import ops
        >>> ops.pairwise_kl_bernoulli(torch.tensor([[0.0], [2.0]]))
        tensor([[0.0000, 0.4338],
                [0.3278, 0.0000]])
    """
    return _OP(*check_posteriors("pairwise_kl_bernoulli", logits=logits))
