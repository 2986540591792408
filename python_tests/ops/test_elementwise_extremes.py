"""The elementwise ops where their slopes leave the range of the dtype."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dvae_ext import ops

RHOS = (0.0, 2.0**-24, 1e-10, 0.25, 0.5, 0.75, 1 - 2.0**-24, 1.0)
POINTS = (-1e30, -1.0, 0.0, 0.3, 0.5, 1.0, 1e30)
LOGITS = (-math.inf, -300.0, -90.0, -17.0, -1.0, 0.0, 1.0, 17.0, 90.0, 300.0, math.inf)
WIDTHS = (0.0, 1e-30, 1e-10, 1e-3, 0.1, 1.0, 8.0, 100.0, 1e3, 1e10, 1e30)  # 0 stands for the smallest normal number


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("op", "first", "places"),
    [
        (ops.overlap_exponential_icdf, RHOS, ()),
        (ops.overlap_exponential_log_prob, (0.0, 0.3, 0.5, 1.0), ()),
        (ops.spike_exponential_icdf, RHOS, ()),
        (ops.overlap_logistic_icdf, RHOS, (0.0, 1.0)),
        (ops.overlap_logistic_log_prob, POINTS, (0.0, 1.0)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_gradient_of_0_switches_every_slope_off(
    op: Callable[..., Tensor],
    first: tuple[float, ...],
    places: tuple[float, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    widths = [max(width, torch.finfo(dtype).tiny) for width in WIDTHS]
    columns = (torch.tensor(values, dtype=dtype) for values in (first, LOGITS, widths))
    x, logits, width = torch.cartesian_prod(*columns).T.contiguous().to(device)
    arguments = [x, logits, *(torch.full_like(x, place) for place in places), width]
    leaves = [argument.clone().requires_grad_() for argument in arguments]
    result = op(*leaves)
    assert not result.isnan().any()
    for gradient in torch.autograd.grad(result, leaves, torch.zeros_like(result), retain_graph=True):
        assert (gradient == 0).all()
    for gradient in torch.autograd.grad(result, leaves, torch.ones_like(result)):
        assert not gradient.isnan().any()
