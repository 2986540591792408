"""Smoothing of binary variables by two overlapping exponentials (DVAE++ section 3 and appendix A)."""

from __future__ import annotations

from torch import Tensor

from dvae_ext.ops import _elementwise
from dvae_ext.ops._arguments import check_tensor, elementwise_arguments, parameter

_ICDF = _elementwise.register("overlap_exponential_icdf", arguments=3, second_order=True)
_LOG_PROB = _elementwise.register("overlap_exponential_log_prob", arguments=3, second_order=True)


def overlap_exponential_icdf(rho: Tensor, logits: Tensor, beta: float | Tensor) -> Tensor:
    """Inverse CDF of the mixture q r(ζ|1) + (1-q) r(ζ|0) with r(ζ|0) ∝ exp(-βζ), r(ζ|1) ∝ exp(β(ζ-1)) on [0, 1].

    DVAE++ eq. 3. A uniform ``rho`` becomes a differentiable sample of a relaxed Bernoulli variable. The variance of its
    gradient grows like exp(β/2) / β²: values of β above 15 are exact here but of little use for training.

    Args:
        rho: uniform numbers in [0, 1], any shape that broadcasts. Drawn in 16 bits they are too coarse:
            :func:`dvae_ext.rng.uniform` draws them in float32, which may stand beside logits of 16 bits.
        logits: logit q of the binary variable; ±infinity is the certain variable.
        beta: inverse temperature > 0, a number or a tensor.

    Returns:
        ζ in [0, 1] of the broadcast shape, 0 at ``rho`` = 0 and 1 at ``rho`` = 1 whatever the logits are. Where an
        argument is NaN, ``rho`` outside [0, 1] or ``beta`` ≤ 0 it is NaN. The slope in ``rho`` is 1/density, held
        finite where that is beyond the dtype. float32, float64, bfloat16 and float16 (the last two compute in float32);
        16-bit tensors beside a float32 one give float32. Differentiable twice in all arguments.

    Raises:
        TypeError: an argument is no tensor of these dtypes, or float64 stands beside another.
        ValueError: shapes do not broadcast, or ``beta`` is a number that is not positive and finite in the dtype.
        RuntimeError: tensors on different devices, or on a device without kernels.

    Example:
        >>> import torch
        >>> from dvae_ext import ops
        >>> ops.overlap_exponential_icdf(torch.tensor([0.1, 0.5, 0.9]), torch.zeros(3), beta=8.0)
        tensor([0.0279, 0.5000, 0.9721])
    """
    op = "overlap_exponential_icdf"
    tensors = {"rho": check_tensor(rho, op, "rho"), "logits": check_tensor(logits, op, "logits")}
    arguments = elementwise_arguments(op, tensors, {"beta": parameter(beta, rho, op, "beta")})
    return _ICDF(*arguments)


def overlap_exponential_log_prob(zeta: Tensor, logits: Tensor, beta: float | Tensor) -> Tensor:
    """Log-density of the same mixture: log q(ζ) = ln β - ln(1-e^-β) - softplus(l) - βζ + softplus(l + β(2ζ-1)).

    Args:
        zeta: points; outside [0, 1] the density is zero and the result -infinity.
        logits: logit q of the binary variable; ±infinity leaves one component.
        beta: inverse temperature > 0, a number or a tensor.

    Returns:
        Log-density of the broadcast shape, differentiable twice in all arguments; dtypes and NaN as for
        :func:`overlap_exponential_icdf`.

    Raises:
        TypeError, ValueError, RuntimeError: as for :func:`overlap_exponential_icdf`.

    Example:
        >>> import torch
        >>> from dvae_ext import ops
        >>> ops.overlap_exponential_log_prob(torch.tensor([0.0, 0.5]), torch.zeros(2), beta=8.0)
        tensor([ 1.3870, -1.9202])
    """
    op = "overlap_exponential_log_prob"
    tensors = {"zeta": check_tensor(zeta, op, "zeta"), "logits": check_tensor(logits, op, "logits")}
    arguments = elementwise_arguments(op, tensors, {"beta": parameter(beta, zeta, op, "beta")})
    return _LOG_PROB(*arguments)
