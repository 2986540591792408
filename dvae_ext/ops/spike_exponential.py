"""Spike-and-exponential smoothing of Rolfe (2016), the baseline that DVAE++ compares against."""

from __future__ import annotations

from torch import Tensor

from dvae_ext.ops import _elementwise
from dvae_ext.ops._arguments import check_tensor, elementwise_arguments, parameter

_ICDF = _elementwise.register("spike_exponential_icdf", arguments=3, second_order=False)


def spike_exponential_icdf(rho: Tensor, logits: Tensor, beta: float | Tensor) -> Tensor:
    """Inverse CDF of q r(ζ|1) + (1-q) δ(ζ) with r(ζ|1) ∝ exp(βζ) on [0, 1] (DVAE++ section 2; Rolfe 2016).

    Args:
        rho: uniform numbers in [0, 1], any shape that broadcasts; ζ = 0 for ``rho`` ≤ 1 - q. Drawn in 16 bits they are
            too coarse: :func:`dvae_ext.rng.uniform` draws them in float32, which may stand beside logits of 16 bits.
        logits: logit q of the binary variable. At -infinity ζ = 0 for every ``rho``; ``rho`` = 1 has no limit there, as
            it gives 1 for every finite logit.
        beta: inverse temperature > 0, a number or a tensor.

    Returns:
        ζ in [0, 1] of the broadcast shape. Where an argument is NaN, ``rho`` outside [0, 1] or ``beta`` ≤ 0 it is NaN.
        float32, float64, bfloat16, float16; 16-bit tensors beside a float32 one give float32. Differentiable once in
        all arguments (zero on the spike); a second time is an error.

    Raises:
        TypeError: an argument is no tensor of these dtypes, or float64 stands beside another.
        ValueError: shapes do not broadcast, or ``beta`` is a number that is not positive and finite in the dtype.
        RuntimeError: tensors on different devices, or on a device without kernels.

    Example:
        >>> import torch
        >>> from dvae_ext import ops
        >>> ops.spike_exponential_icdf(torch.tensor([0.3, 0.75, 1.0]), torch.zeros(3), beta=5.0)
        tensor([0.0000, 0.8627, 1.0000])
    """
    op = "spike_exponential_icdf"
    tensors = {"rho": check_tensor(rho, op, "rho"), "logits": check_tensor(logits, op, "logits")}
    arguments = elementwise_arguments(op, tensors, {"beta": parameter(beta, rho, op, "beta")})
    return _ICDF(*arguments)
