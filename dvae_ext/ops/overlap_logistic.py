"""Smoothing of binary variables by two overlapping logistic distributions (DVAE++ appendix B)."""

from __future__ import annotations

from torch import Tensor

from dvae_ext.ops import _elementwise
from dvae_ext.ops._arguments import check_tensor, elementwise_arguments, parameter

_ICDF = _elementwise.register("overlap_logistic_icdf", arguments=5, second_order=False)
_LOG_PROB = _elementwise.register("overlap_logistic_log_prob", arguments=5, second_order=False)


def _arguments(
    op: str,
    tensors: dict[str, Tensor],
    mu0: float | Tensor,
    mu1: float | Tensor,
    scale: float | Tensor,
) -> list[Tensor]:
    first = next(iter(tensors.values()))
    if not isinstance(mu0, Tensor) and not isinstance(mu1, Tensor) and not mu1 > mu0:
        raise ValueError(f"{op}: mu1 is {mu1}, expected more than mu0, which is {mu0}")
    parameters = {
        "mu0": parameter(mu0, first, op, "mu0", positive=False),
        "mu1": parameter(mu1, first, op, "mu1", positive=False),
        "scale": parameter(scale, first, op, "scale"),
    }
    return elementwise_arguments(op, tensors, parameters)


def overlap_logistic_icdf(
    rho: Tensor, logits: Tensor, mu0: float | Tensor, mu1: float | Tensor, scale: float | Tensor
) -> Tensor:
    """Inverse CDF of the mixture q Logistic(μ1, s) + (1-q) Logistic(μ0, s) on the real line (DVAE++ appendix B).

    Args:
        rho: uniform numbers in [0, 1], any shape that broadcasts. Drawn in 16 bits they are too coarse:
            :func:`dvae_ext.rng.uniform` draws them in float32, which may stand beside logits of 16 bits. The ends would
            map to ±infinity: values are held 2⁻²⁴ (float64: 2⁻⁵³) away from them.
        logits: logit q of the binary variable; ±infinity leaves one component.
        mu0, mu1: the places that stand for 0 and 1, ``mu1 > mu0``, numbers or tensors.
        scale: width of both components > 0, a number or a tensor, as small as the dtype has: ζ tends to ``mu0`` or
            ``mu1``, and to half-way between them where ``rho`` is exactly 1-q.

    Returns:
        ζ of the broadcast shape. Where an argument is NaN, ``rho`` outside [0, 1], ``scale`` ≤ 0 or ``mu1`` ≤ ``mu0``
        are NaN. float32, float64, bfloat16, float16; 16-bit tensors beside a float32 one give float32. Differentiable
        once in all arguments; a second time is an error.

    Raises:
        TypeError: an argument is no tensor of these dtypes, or float64 stands beside another.
        ValueError: shapes do not broadcast; ``mu1`` ≤ ``mu0``; ``scale`` is a number that is not positive and finite in
            the dtype.
        RuntimeError: tensors on different devices, or on a device without kernels.

    Example:
        >>> import torch
        >>> from dvae_ext import ops
        >>> ops.overlap_logistic_icdf(torch.tensor([0.1, 0.5, 0.9]), torch.zeros(3), 0.0, 1.0, 0.05)
        tensor([-0.0693,  0.5000,  1.0693])
    """
    op = "overlap_logistic_icdf"
    tensors = {"rho": check_tensor(rho, op, "rho"), "logits": check_tensor(logits, op, "logits")}
    return _ICDF(*_arguments(op, tensors, mu0, mu1, scale))


def overlap_logistic_log_prob(
    zeta: Tensor, logits: Tensor, mu0: float | Tensor, mu1: float | Tensor, scale: float | Tensor
) -> Tensor:
    """Log-density of the mixture of :func:`overlap_logistic_icdf`.

    Args:
        zeta: points of the real line, any shape that broadcasts; at ±infinity the result is -infinity.
        logits, mu0, mu1, scale: as for :func:`overlap_logistic_icdf`.

    Returns:
        Log-density of the broadcast shape; dtypes, NaN and differentiability as for :func:`overlap_logistic_icdf`.

    Raises:
        TypeError, ValueError, RuntimeError: as for :func:`overlap_logistic_icdf`.

    Example:
        >>> import torch
        >>> from dvae_ext import ops
        >>> ops.overlap_logistic_log_prob(torch.tensor([0.0, 1.0]), torch.zeros(2), 0.0, 1.0, 0.05)
        tensor([0.9163, 0.9163])
    """
    op = "overlap_logistic_log_prob"
    tensors = {"zeta": check_tensor(zeta, op, "zeta"), "logits": check_tensor(logits, op, "logits")}
    return _LOG_PROB(*_arguments(op, tensors, mu0, mu1, scale))
